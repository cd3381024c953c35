"""A run without a model, on one process or on several ranks: the same q, k, v either way."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.distributed as dist
from fake_host import KeptLog
from paroattention import Session, Settings, TokenLayout, reference
from paroattention.parallel.ranks import Ranks
from paroattention.parallel.ulysses import Ulysses, token_counts
from problems import MODEL, profile, tensors

SIGMAS = (1.0, 0.85, 0.7, 0.55, 0.4, 0.3, 0.2, 0.1, 0.0)
LAYERS = ("double.0.0", "double.1.0")


@dataclass(frozen=True)
class Case:
    """A run. known: it begins with a profile. dense_heads: heads of the profile's first layer that
    are dense. on_device: samples are taken where q lies and plans are built in the background, as
    on a GPU."""

    settings: Settings = field(default_factory=Settings)
    grid: tuple = (4, 8, 10)
    prefix: int = 0
    suffix: int = 0
    heads: int = 4
    head_dim: int = 64
    batch: int = 1
    known: bool = False
    dense_heads: tuple = ()
    sigmas: tuple = SIGMAS
    seed: int = 5
    on_device: bool = False

    @property
    def layout(self) -> TokenLayout:
        return TokenLayout(self.grid, self.prefix, self.suffix)

    def profile(self):
        if not self.known:
            return None
        made = profile(grid=self.grid, heads=self.heads, head_dim=self.head_dim)
        layers = list(made.layers)
        for head in self.dense_heads:
            layers[0].heads[head].density = 1.0
        made.layers = layers
        return made


def settings(**changes) -> Settings:
    """meter_limit: random attention is off by more than any model's."""
    given = {"observe_steps": 2, "meter_limit": 0.0, "dense_steps": "model", "queries": 16}
    return replace(Settings(), **(given | changes))


def _dense(q, k, v):
    return reference.dense(q, k, v).float()


class Runner:
    """One process of a run. after(step, layer): called behind each call."""

    def __init__(self, case: Case, ranks: Ranks | None = None):
        self.case, self.ranks, self.saved, self.dealings, self.parts = case, ranks, [], [], 0
        found = case.profile()
        self.session = Session(
            case.settings,
            list(case.sigmas),
            model=MODEL,
            find_profile=lambda grid: (found, "found" if found else ""),
            save_profile=lambda made, tensors: self.saved.append(made.dump()),
            runlog=KeptLog(),
            seed=case.seed,
            ranks=ranks,
        )
        if case.on_device:
            self.session.observer.on_device = lambda q: True
        # A group that a failed run has used is of no use to the next one.
        group = dist.new_group(backend="gloo", use_local_synchronization=True) if ranks else None
        self.engine = Ulysses(ranks, group, parts=0) if ranks else None

    def call(self, forward, layer: str, q, k, v) -> torch.Tensor:
        """Of all heads and all tokens; on several ranks of this rank's tokens."""
        case, session = self.case, self.session
        if self.engine is None:
            return session.attention(forward, layer, q, k, v, case.layout, lambda: _dense(q, k, v))[
                0
            ]
        counts = token_counts(case.layout.length, self.ranks.size)
        first = sum(counts[: self.ranks.rank])
        own = (x[:, :, first : first + counts[self.ranks.rank]] for x in (q, k, v))
        dealing = session.dealing(forward, layer, case.layout, case.heads, parts=0)
        self.dealings.append(dealing.heads)
        self.parts += len(dealing.parts)
        return self.engine.attention(session, forward, layer, *own, case.layout, _dense)

    def run(self, after=None) -> dict:
        case, outputs = self.case, []
        for step, sigma in enumerate(case.sigmas[:-1]):
            forward = self.session.begin_forward(sigma)
            for number, layer in enumerate(LAYERS):
                seed = 10 * step + number
                qkv = tensors(
                    case.heads, case.layout.length, case.head_dim, batch=case.batch, seed=seed
                )
                outputs.append(self.call(forward, layer, *qkv).clone())
                if after is not None:
                    after(step, layer)
        return self.told(outputs)

    def told(self, outputs: list) -> dict:
        session = self.session
        readings = [
            {name: one[name].tolist() for name in ("retained", "error", "sums")}
            | {"step": one["step"], "layer": one["layer"]}
            for one in session.watch.meter.history
        ]
        own = session.planner.profile
        densities = own and [[head.density for head in layer.heads] for layer in own.layers]
        summary = session.finish()
        kept = (
            "density",
            "density_total",
            "retained",
            "paths",
            "budgets",
            "renewals",
            "measured_error",
        )
        return {
            "outputs": outputs,
            "readings": readings,
            "densities": densities,
            "summary": {name: summary[name] for name in kept},
            "reasons": summary["reasons"],
            "saved": self.saved,
            "dealings": self.dealings,
            "parts": self.parts,
            "lines": [line for line in session.report.calls.runlog.lines if "step" in line],
        }


def alone(case: Case) -> dict:
    """The whole run in this process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return Runner(case).run()
    finally:
        torch.set_num_threads(before)


def shared(rank: int, size: int, case: Case, timeout: float = 30.0) -> dict:
    """This rank's part of it; for Team.run."""
    return Runner(case, Ranks(timeout=timeout)).run()
