"""python -m tools.locks.install [--target FOLDER] NAME...: installs locked packages by name.

What CI's shell scripts install. The versions and hashes are those of single.txt.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from ..setup.paths import Paths
from ..setup.python_env import PIP
from ..setup.steps import SetupError
from . import options, table


def find(name: str) -> str:
    """The locked name==version of a package. Throws SetupError where it has none, or several."""
    found = [one for one in table() if one.partition("==")[0] == name]
    if len(found) != 1:
        raise SetupError(f"{name} must have one locked version (got {found or 'none'})")
    return found[0]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.locks.install")
    parser.add_argument("names", nargs="+")
    parser.add_argument("--target", help="a folder of its own, instead of this Python's")
    arguments = parser.parse_args(argv)
    try:
        wanted = options(Paths(), tuple(map(find, arguments.names)))
    except SetupError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    command = [sys.executable, *PIP, "install", "--quiet", "--no-deps", *wanted]
    if arguments.target:
        command += ["--target", arguments.target]
    return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
