"""tests/ itself on the path: tolerances.py serves other test folders too. So does tests/faults."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.append(str(Path(__file__).resolve().parents[1] / "faults"))
