"""The package's console module, from its file: set-up runs before package and torch are here."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_FILE = Path(__file__).resolve().parents[2] / "native" / "python" / "paroattention" / "console.py"
_spec = importlib.util.spec_from_file_location("paro_console", _FILE)
_console = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_console)
prepared, shown = _console.prepared, _console.shown
