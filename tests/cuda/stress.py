"""Random calls of attention for minutes: python3 tests/cuda/stress.py --seconds 600 --out FILE

Every call is held against fp64 by the tolerances of tests/tolerances.py: shapes, layouts, dtypes,
strides, masks and densities, orders, precisions, tile sizes, tails and paths are random. Besides:
calls on several streams and from several threads, memory used again, plans that come and go, graphs
replayed with other data, two processes, calls that get no memory, strides and tensors of more than
2^31 elements, and a sample under compute-sanitizer (memcheck, initcheck, synccheck). FILE gets
counts and worst errors by kind, every ten seconds. Whatever is wrong is printed with its seed and a
command that runs only it; a random call is made as simple as it stays wrong. Ends with 0 where
nothing was wrong and all of it ran.

--device cpu runs the CPU library and stand-ins for what only a GPU has, on smaller sizes.
--only SECTION:SEED and --case JSON run one round again. --plant NAME puts a fault in, which the run
then has to find (stress_plants.py). --without NAME leaves out a section, or `sanitizer`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# As for sanitize.py: another package, whose library racecheck can follow.
PACKAGE = Path(os.environ.get("PARO_PACKAGE") or ROOT / "native" / "python")
sys.path[:0] = [str(HERE), str(HERE.parent)]
# The build in the working tree, or else the installed wheel.
if any((PACKAGE / "paroattention").glob("_core*")):
    sys.path.insert(0, str(PACKAGE))

import last_pass  # noqa: E402
import stress_children as children  # noqa: E402
import stress_plants  # noqa: E402
import stress_sections as sections  # noqa: E402
import torch  # noqa: E402
from stress_cases import Case  # noqa: E402
from stress_devices import DEVICES  # noqa: E402
from stress_shrink import smallest  # noqa: E402
from stress_tally import Mismatch, Tally  # noqa: E402

# Random calls of a whole run on a GPU.
AT_LEAST = 20_000
PROCESSES = "processes"
# Calls under the sanitizer.
SAMPLE = 40
# So many cases that are wrong are made simple in a process: where all are, the others say no more.
SIMPLIFIED = 5


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=DEVICES, default="cuda")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--out", type=Path, help="JSON with what came of it")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first round")
    parser.add_argument("--workers", type=int, help="processes with random calls beside this one")
    parser.add_argument("--only", help="SECTION:SEED, one round again")
    parser.add_argument("--case", help="one call again, as it was printed")
    parser.add_argument("--plant", choices=stress_plants.PLANTS, default="")
    parser.add_argument("--without", action="append", default=[])
    parser.add_argument("--sanitizer", default="compute-sanitizer", help="the program")
    parser.add_argument("--race-package", default="", help="racecheck too, of this (run.py)")
    for hidden in ("--worker", "--digest", "--sample"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    known = {*sections.SECTIONS, PROCESSES, "sanitizer"}
    if wrong := set(options.without) - known:
        parser.error(f"--without must be one of {', '.join(sorted(known))} (got {wrong.pop()})")
    if options.workers is None:
        options.workers = min(6, (os.cpu_count() or 1) // 2) if options.device == "cuda" else 0
    return options


def command_of(options: argparse.Namespace) -> str:
    plant = f" --plant {options.plant}" if options.plant else ""
    return f"python3 tests/cuda/stress.py --device {options.device}{plant}"


class Run:
    """This process' rounds, and what they found."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.tally = options, Tally()
        self.device = DEVICES[options.device]()
        attend = stress_plants.PLANTS.get(options.plant, sections.calls.attend)
        self.context = sections.Context(self.device, self.tally, attend)

    def round(self, section: str, seed: int, seconds: float = 120) -> list[str]:
        """One round; what was wrong is kept and printed."""
        begun = time.monotonic()
        try:
            if section == PROCESSES:
                found = children.processes_round(self.context, seed, seconds)
            else:
                found = sections.SECTIONS[section][0](self.context, seed)
        except Exception as error:
            found = [f"{type(error).__name__}: {error}"]
        self.tally.spent(section, time.monotonic() - begun)
        if found:
            self._failed(section, seed, found)
        return found

    def _failed(self, section: str, seed: int, found: list[str]) -> None:
        command = command_of(self.options)
        mismatch = Mismatch(section, seed, found, f"{command} --only {section}:{seed}")
        print(f"WRONG in {section}, seed {seed}: {'; '.join(found)}"[:3000])
        print(f"  again: {mismatch.command}", flush=True)
        if section == "random" and not broken(found) and len(self.tally.mismatches) < SIMPLIFIED:
            case = self.context.draw(seed)
            least = smallest(case, lambda one: self.case(one))
            mismatch.case = case.dump()
            mismatch.smallest = f"{command} --case '{least.dump()}'"
            print(f"  simplest: {mismatch.smallest}", flush=True)
        self.tally.failed(mismatch)

    def case(self, case: Case) -> list[str]:
        """What is wrong with one call; counts nowhere."""
        apart = sections.Context(self.device, Tally(), self.context.attend)
        try:
            return sections.check_case(apart, case)
        except Exception as error:
            return [f"{type(error).__name__}: {error}"]


def broken(found: list[str]) -> bool:
    """Whether the device no longer answers: nothing after that says anything."""
    return any("CUDA error" in text for text in found)


def work(options: argparse.Namespace) -> int:
    """A worker: random calls of every `step`th seed until a time, by the clock."""
    first, step, until, path = options.worker.split(":", 3)
    seed, until, file = int(first), float(until), Path(f"{path}.json")
    torch.set_num_threads(1)  # there are many of us
    run, written = Run(options), 0.0
    while time.time() < until:
        Path(f"{path}.seed").write_text(str(seed))
        found = run.round("random", seed)
        seed += int(step)
        if found or time.time() - written > 2:
            run.tally.write(file)
            written = time.time()
        if broken(found):
            return children.BROKEN
    run.tally.write(file)
    return 0


def again(options: argparse.Namespace) -> int:
    """--only and --case: one round."""
    run = Run(options)
    if options.case:
        found = run.case(run.device.adapt(Case.parse(options.case)))
        print("\n".join(f"WRONG: {text}" for text in found) or "right")
        return 1 if found else 0
    section, _, seed = options.only.partition(":")
    if section not in (*sections.SECTIONS, PROCESSES) or not seed.isdigit():
        raise SystemExit(f"stress.py: --only must be SECTION:SEED (got {options.only})")
    found = run.round(section, int(seed))
    print("right" if not found else f"wrong: {len(found)}")
    return 1 if found else 0


def in_turns(run: Run, workers: list[children.Worker], until: float, keep) -> None:
    """Every section again and again, each with its share of the time. keep: called now and then."""
    shares = {name: share for name, (_, share) in sections.SECTIONS.items()} | {PROCESSES: 0.5}
    shares = {name: share for name, share in shares.items() if name not in run.options.without}
    command, seed = command_of(run.options), run.options.seed
    kept = time.time()
    while shares:
        missing = [name for name in shares if name not in run.tally.rounds]
        if time.time() >= until and not missing:
            break
        spent = run.tally.seconds
        name = min(missing or shares, key=lambda one: spent.get(one, 0.0) / shares[one])
        if broken(run.round(name, seed, max(60.0, until - time.time()))):
            break
        # Apart from the workers' seeds.
        seed += 1
        for worker in workers:
            worker.watch(command)
        if time.time() - kept > 10:
            kept = time.time()
            keep()


def whole(options: argparse.Namespace) -> int:
    begun, until = time.time(), time.time() + options.seconds
    run, scratch = Run(options), Path(tempfile.mkdtemp())
    arguments = ["--device", options.device]
    arguments += ["--plant", options.plant] if options.plant else []
    workers = [children.Worker(i, arguments, scratch) for i in range(options.workers)]
    for worker in workers:
        first = options.seed + 1_000_000 + worker.number
        worker.start(first, len(workers), until)
    sanitized: dict[str, children.Child | None] = {}
    if options.device == "cuda" and "sanitizer" not in options.without:
        sanitized = children.sanitizers(
            options.sanitizer, options.seed, SAMPLE, options.race_package
        )

    def so_far() -> None:
        tally = Tally()
        for one in (run.tally, *(worker.so_far() for worker in workers)):
            tally.add(one)
        waiting = {tool: ("not finished", False) for tool in sanitized}
        keep(options, outcome(run, tally, waiting, time.time() - begun))

    in_turns(run, workers, until, so_far)
    for worker in workers:
        run.tally.add(worker.result(max(0.0, until - time.time()) + 120))
    left = max(60.0, until - time.time())
    verdicts = {tool: children.verdict(child, left) for tool, child in sanitized.items()}
    for tool in (tool for tool, (_, good) in verdicts.items() if not good):
        sample = f"--sample {options.seed}:{SAMPLE}"
        print(f"again: {options.sanitizer} --tool {tool} {command_of(options)} {sample}")
    shutil.rmtree(scratch)
    result = outcome(run, run.tally, verdicts, time.time() - begun, finished=True)
    keep(options, result)
    show(result)
    # A run that leaves out a section is never whole, and may still find nothing wrong.
    sound = not result["mismatches"] and all(good for _, good in verdicts.values())
    left_out = bool(options.without) and result["calls_against_fp64"] > 0
    return 0 if result["whole"] or (sound and left_out) else 1


def outcome(
    run: Run, tally: Tally, verdicts: dict[str, tuple[str, bool]], seconds: float, finished=False
) -> dict:
    """What came of a run, or has so far."""
    options = run.options
    missing = [name for name in (*sections.SECTIONS, PROCESSES) if name not in tally.rounds]
    enough = tally.calls >= (AT_LEAST if options.device == "cuda" else 1)
    complete = finished and enough and not (missing or options.without or options.plant)
    sound = not tally.mismatches and all(good for _, good in verdicts.values())
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": last_pass.commit(),
        "device": run.device.describe(),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "seed": options.seed,
        "seconds": round(seconds, 1),
        "finished": finished,
        "workers": options.workers,
        "left_out": options.without,
        "did_not_run": missing,
        "calls_against_fp64": tally.calls,
        "calls_wanted": AT_LEAST if options.device == "cuda" else 1,
        "repeats_bit_for_bit": tally.repeats,
        "mismatches": len(tally.mismatches),
        "whole": complete and sound,
        "sanitizer": {tool: text for tool, (text, _) in verdicts.items()},
        "rounds": tally.rounds,
        "seconds_of_sections": {name: round(s, 1) for name, s in tally.seconds.items()},
        "notes": tally.notes,
        "wrong": tally.mismatches,
        "kinds": tally.ordered(),
    }


def keep(options: argparse.Namespace, result: dict) -> None:
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        part = options.out.with_suffix(".part")
        part.write_text(json.dumps(result, indent=1) + "\n")
        part.replace(options.out)


def show(result: dict) -> None:
    for kind, values in result["kinds"].items():
        print(kind)
        for value, one in values.items():
            print(
                f"  {value:<32} {one['calls']:>7} calls, worst error {one['worst_error']:.2e},"
                f" of a token {one['worst_token_error']:.2e},"
                f" {one['worst_share_of_tolerance']:.2f} of the tolerance"
            )
    for name, count in sorted(result["rounds"].items()):
        print(f"{name:<10} {count:>7} rounds, {result['seconds_of_sections'][name]:.0f} s")
    for name, text in {**result["sanitizer"], **result["notes"]}.items():
        print(f"{name}: {text}")
    # The workers' too, whose output nobody sees.
    for one in result["wrong"][:20]:
        print(f"WRONG in {one['section']}, seed {one['seed']}: {'; '.join(one['what'])}"[:1000])
        print(f"  again: {one['command']}")
        if one["smallest"]:
            print(f"  simplest: {one['smallest']}")
    calls, wanted = result["calls_against_fp64"], result["calls_wanted"]
    if result["did_not_run"]:
        print(f"did not run: {', '.join(result['did_not_run'])}")
    if calls < wanted:
        print(f"{calls:,} calls are fewer than the {wanted:,} of a whole run")
    print(
        f"{result['device']}: {calls:,} calls against fp64, {result['repeats_bit_for_bit']:,}"
        f" repeated bit for bit, {result['seconds']:.0f} s: {result['mismatches']} mismatches"
    )


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    if options.device == "cpu":
        # Small calls: handing them out to threads takes longer than they do.
        torch.set_num_threads(1)
    if options.worker:
        return work(options)
    if options.only or options.case:
        return again(options)
    for hidden in ("digest", "sample"):
        if given := getattr(options, hidden):
            seed, count = (int(part) for part in given.split(":"))
            run = Run(options)
            if hidden == "sample":
                children.sample(run.device, seed, count)
            else:
                print("digest", children.digest(run.context, seed, count))
            return 0
    return whole(options)


if __name__ == "__main__":
    sys.exit(main())
