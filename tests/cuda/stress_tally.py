"""What stress.py counts: calls and worst errors by kind, rounds by section, and what went wrong."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from stress_cases import Case
from tolerances import Tolerance


@dataclass
class Mismatch:
    """Something wrong. command: runs only what found it."""

    section: str
    seed: int
    what: list[str]
    command: str
    case: str = ""  # as JSON, where it is one call
    smallest: str = ""  # command of the simplest case that is still wrong


@dataclass
class Tally:
    """Counts of one process. Those of several can be added up."""

    calls: int = 0  # compared with fp64
    repeats: int = 0  # compared with the first call's bits
    rounds: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    kinds: dict[str, dict[str, dict]] = field(default_factory=dict)
    mismatches: list[dict] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)

    def compared(self, case: Case, measured: Tolerance, limit: Tolerance) -> None:
        """Counts a call whose output was this far from fp64."""
        self.calls += 1
        now = {
            "calls": 1,
            "worst_error": measured.total,
            "worst_token_error": measured.token,
            "worst_share_of_tolerance": max(
                measured.total / limit.total, measured.token / limit.token
            ),
            "worst_seed": case.seed,
        }
        for kind, values in case.kinds().items():
            for value in values:
                # A value's errors by precision: those of 8 bits would hide the others.
                name = value if kind in ("precision", "path") else f"{value}, {case.precision}"
                self._add(kind, name, now)

    def _add(self, kind: str, value: str, now: dict) -> None:
        held = self.kinds.setdefault(kind, {}).setdefault(value, {**now, "calls": 0})
        calls = held["calls"] + now["calls"]
        if now["worst_share_of_tolerance"] > held["worst_share_of_tolerance"]:
            held["worst_seed"] = now["worst_seed"]
        worst = {name: max(held[name], now[name]) for name in now if name.startswith("worst_")}
        held.update({**worst, "calls": calls, "worst_seed": held["worst_seed"]})

    def note(self, what: str, count: int = 1) -> None:
        self.notes[what] = self.notes.get(what, 0) + count

    def spent(self, section: str, seconds: float) -> None:
        self.rounds[section] = self.rounds.get(section, 0) + 1
        self.seconds[section] = self.seconds.get(section, 0.0) + seconds

    def failed(self, mismatch: Mismatch) -> None:
        self.mismatches.append(asdict(mismatch))

    def add(self, other: Tally) -> None:
        self.calls += other.calls
        self.repeats += other.repeats
        for mine, theirs in (
            (self.rounds, other.rounds), (self.seconds, other.seconds), (self.notes, other.notes),
        ):  # fmt: skip
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count
        for kind, values in other.kinds.items():
            for value, now in values.items():
                self._add(kind, value, now)
        self.mismatches += other.mismatches

    def write(self, path: Path) -> None:
        """Whole or not at all: who reads it may do so at any time."""
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self)))
        part.replace(path)

    @staticmethod
    def read(path: Path) -> Tally:
        return Tally(**json.loads(path.read_text()))

    def ordered(self) -> dict[str, dict[str, dict]]:
        """The kinds, sorted, for a file and for a person."""
        return {kind: dict(sorted(values.items())) for kind, values in sorted(self.kinds.items())}
