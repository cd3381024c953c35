"""Our log on consoles that lack characters: ComfyUI's streams raise there, and end its worker."""

import io
import logging
import sys

import harness
import pytest

TEXT = "PARO: saved profile \u753b\u50cf \N{CLAPPER BOARD} Gr\u00f6\u00dfe \ud800"


class Strict(logging.StreamHandler):
    """As ComfyUI's: what its stream raises passes through."""

    def handleError(self, record):
        raise


@pytest.fixture
def console(monkeypatch):
    """console(encoding): a console of that encoding; what it has got as bytes."""
    harness.plugin()
    log, added = logging.getLogger("paroattention"), []

    def make(encoding):
        held = io.BytesIO()
        stream = io.TextIOWrapper(held, encoding=encoding, write_through=True)
        monkeypatch.setattr(sys, "stderr", stream)
        added.append(Strict(stream))
        log.addHandler(added[-1])
        return held

    yield make
    for handler in added:
        log.removeHandler(handler)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp932", "latin-1", "utf-8"])
def test_any_text_can_be_logged(console, encoding):
    held = console(encoding)
    log = logging.getLogger("paroattention")
    log.warning("PARO: %s", TEXT)
    try:
        raise ValueError(TEXT)
    except ValueError:
        log.exception("PARO: %s failed", TEXT)
    shown = held.getvalue().decode(encoding)
    assert shown.count("PARO: PARO: saved profile") == 2 and "ValueError: PARO" in shown
    assert shown.count("\u753b\u50cf") == (3 if encoding in ("utf-8", "cp932") else 0)
    assert shown.count("Gr\u00f6\u00dfe") == (0 if encoding in ("ascii", "cp932") else 3)


def test_the_filter_is_put_on_once():
    module = harness.part("console_log")
    module.begin()
    filters = logging.getLogger("paroattention").filters
    assert sum(isinstance(one, module.Encodable) for one in filters) == 1
