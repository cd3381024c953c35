"""What the steps of a trial share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .environment import Environment
from .wine import Done, Wine, windows_path

PROBES = Path(__file__).with_name("probes")


class Failed(Exception):
    """A step has failed: what was seen, and details for the results."""

    def __init__(self, what: str, **details):
        super().__init__(what)
        self.details = details


@dataclass(frozen=True)
class Context:
    """wheel: what is tried. version: of the Python that has torch. out: for pictures."""

    environment: Environment
    wheel: Path
    version: str
    quick: bool
    out: Path

    @property
    def wine(self) -> Wine:
        return self.environment.wine

    @property
    def python(self) -> Path:
        return self.environment.python(self.version, with_torch=True)

    @property
    def site(self) -> Path:
        return self.python / "Lib" / "site-packages"

    @property
    def scratch(self) -> Path:
        """Where Windows' programs run: not the checkout, whose modules they must not find."""
        folder = self.environment.folder / "scratch"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def run(self, name: str, *arguments: str, python: Path | None = None, **options) -> Done:
        """Windows' Python in the scratch folder."""
        given = {"cwd": self.scratch, **options}
        return self.wine.run(name, (python or self.python) / "python.exe", *arguments, **given)

    def probe(self, script: str, *arguments: str, python: Path | None = None, **options) -> Done:
        """One of the scripts in probes/."""
        path = windows_path(PROBES / f"{script}.py")
        return self.run(f"{script}.py", path, *arguments, python=python, **options)

    @staticmethod
    def want(holds: bool, otherwise: str) -> None:
        if not holds:
            raise Failed(otherwise)
