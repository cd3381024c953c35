"""tests/ itself on the path: tolerances.py serves other test folders too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
