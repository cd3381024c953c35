"""tests/cuda/stress.py and its modules, for tests; nothing else of tests/cuda is on the path."""

import sys
from pathlib import Path

before = [*sys.path]
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cuda"))
import stress  # noqa: E402, F401
import stress_calls  # noqa: E402, F401
import stress_cases  # noqa: E402, F401
import stress_children  # noqa: E402, F401
import stress_devices  # noqa: E402, F401
import stress_plants  # noqa: E402, F401
import stress_sections  # noqa: E402, F401
import stress_tally  # noqa: E402, F401

sys.path[:] = before
