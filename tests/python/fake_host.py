"""A host of the session without a model: a few layers of random attention at chosen sigmas."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch
from paroattention import Session, Settings, TokenLayout, reference
from paroattention.runlog import RunLog
from problems import GRID, MODEL, profile, tensors

SIGMAS = [1.0, 0.9, 0.7, 0.5, 0.3, 0.1, 0.0]


class KeptLog(RunLog):
    """A run log that stays in memory."""

    def __init__(self):
        super().__init__(None)

    def flush(self):
        pass


class Host:
    """Runs a session's layers; keeps what dense() gave, what was ours and what was saved.

    limit: the meter's. Random attention is off by more than any model's, so it is none by default.
    dense_steps: whether 8 bits are faster, and so chosen, depends on the processor. watch: a run
    with a profile is sparse from its first step.
    """

    def __init__(
        self,
        settings=None,
        *,
        sigmas=SIGMAS,
        grid=GRID,
        heads=2,
        head_dim=64,
        limit=0.0,
        dense_steps="model",
        watch="if needed",
        **given,
    ):
        self.layout, self.heads, self.head_dim = TokenLayout(grid), heads, head_dim
        self.layers = ["double.0.0", "double.1.0"]
        self.saved, self.texts, self.looked_up = [], [], []
        self.dense_calls = 0
        given.setdefault("model", MODEL)
        given.setdefault("save_profile", lambda profile, tensors: self.saved.append(profile))
        given.setdefault("progress", lambda text, step, steps: self.texts.append((step, text)))
        changes = {"meter_limit": limit, "dense_steps": dense_steps, "watch": watch}
        settings = replace(settings or Settings(), **changes)
        self.session = Session(settings, sigmas, runlog=KeptLog(), **given)

    def dense(self, q, k, v):
        self.dense_calls += 1
        return reference.dense(q, k, v).float()

    def call(self, forward, layer, qkv, dense=None):
        dense = dense or (lambda: self.dense(*qkv))
        return self.session.attention(forward, layer, *qkv, self.layout, dense)

    def evaluate(self, sigma, *, change=None) -> list[bool]:
        """One model evaluation; for every layer, whether its output was ours."""
        forward = self.session.begin_forward(sigma)
        ours = []
        for number, layer in enumerate(self.layers):
            qkv = tensors(self.heads, self.layout.length, self.head_dim, seed=number)
            qkv = change(*qkv) if change else qkv
            out, mine = self.call(forward, layer, qkv)
            assert out.shape == qkv[0].shape and torch.isfinite(out).all()
            ours.append(mine)
        return ours

    def run(self, sigmas=SIGMAS[:-1], **options) -> dict:
        for sigma in sigmas:
            self.evaluate(sigma, **options)
        return self.session.finish()

    @property
    def lines(self) -> list[dict]:
        """The run log's lines of steps."""
        return [line for line in self.session.report.calls.runlog.lines if "step" in line]

    def paths(self) -> dict[int, str]:
        """The path of every step; all layers took the same one."""
        found: dict[int, set] = {}
        for line in self.lines:
            found.setdefault(line["step"], set()).add(line["path"])
        assert all(len(paths) == 1 for paths in found.values()), found
        return {step: paths.pop() for step, paths in sorted(found.items())}

    def reasons(self) -> Counter:
        return Counter(dict(self.session.report.reasons.counts))


def finder(profile, note="found"):
    """A find_profile that always finds `profile`, and the grids that it was asked for."""
    asked = []

    def find(grid):
        asked.append(grid)
        return profile, note if profile else ""

    return find, asked


def sparse_host(built=None, **options):
    """A host that begins with a profile: the given one, or one that fits."""
    find, _ = finder(built or profile())
    return Host(find_profile=find, **options)
