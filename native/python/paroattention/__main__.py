"""The commands of `python -m paroattention`."""

from __future__ import annotations

import sys

from . import _core, console
from .cli import doctor
from .cli import profile as profile_cli
from .cli import viewer as viewer_cli

USAGE = """python -m paroattention COMMAND
  doctor                                 what this machine can run
  profile show|merge|diff FILE           profiles on the command line
  view FILE                              open a profile in the desktop viewer
  bench TOOL                             speed and fidelity"""


def _bench(arguments: list[str]) -> int:
    # Benchmarks import more than the package needs; only who asks pays for it.
    from .bench import (
        attention,
        comfy,
        comfy_caches,
        comfy_parallel,
        fidelity,
        heads,
        memory,
        observe,
        offsets,
        parallel,
        plan,
        runs,
    )

    tools = {"attention": attention.main, "caches": comfy_caches.main, "comfy": comfy.main}
    tools |= {"fidelity": fidelity.main, "heads": heads.main, "observe": observe.main}
    tools |= {"memory": memory.main, "offsets": offsets.main, "plan": plan.main}
    tools |= {"comfy-parallel": comfy_parallel.main, "parallel": parallel.main, "runs": runs.main}
    if not arguments or arguments[0] not in tools:
        got = arguments[0] if arguments else "nothing"
        print(f"bench must be one of {', '.join(tools)} (got {got})", file=sys.stderr)
        return 2
    return tools[arguments[0]](arguments[1:])


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0, 1 on a failed check, 2 on bad usage."""
    try:
        with console.prepared():
            return _run(arguments)
    except OSError as error:
        # What was still to be written could not be: a full disk.
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(arguments: list[str] | None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    commands = {"doctor": doctor.main, "profile": profile_cli.main, "bench": _bench}
    commands["view"] = viewer_cli.main
    if not arguments or arguments[0] not in commands:
        print(f"usage: {USAGE}", file=sys.stderr)
        return 2
    try:
        return commands[arguments[0]](arguments[1:])
    except (_core.Error, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
