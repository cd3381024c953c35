"""Run by Windows' Python: NAME.json and its capture for the viewer, made as tests/viewer does.

Arguments: the checkout's tests/viewer, the folder, the name.
"""

import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from conftest import make_profile

make_profile(Path(sys.argv[2]), sys.argv[3], heads=4)
