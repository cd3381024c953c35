"""The policies that are compared: where a run's plans come from."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np

from .. import _core
from ..kernels.attention import attention
from ..plan.head_densities import afforded, free_density
from ..plan.profile_build import build_profile
from ..plan.profile_copy import with_densities
from ..run.session import Session
from ..settings import AUTO, TARGET_ERROR, ModelInfo, Settings
from .bundled import Bundle
from .exact import ExactObserver, ExactRun

# Errors that "+target" aims at.
TARGETS = (0.08, 0.065)
POLICIES = ("fhw", "profile", "paper", "auto", "exact")


@dataclass(frozen=True)
class Case:
    """One policy at one setting. block: tile, queries and keys alike.

    policy: one of POLICIES; with "+refresh" the run samples on while sparse and renews its masks,
    as users' runs do; with "+dynamic" it samples on, and every call finds its own masks; with
    "+target" density is a target error that one density for all heads comes to.
    """

    policy: str
    density: float
    tail: bool = False
    block: int = 64
    precision: str = "fp32"
    dense_steps: int = 4


def paper_order(bins, grid):
    """order_of for build_profile: the published metric on the mean kernel of the groups."""

    def choose(kernels):
        mean = np.mean(kernels, axis=0).astype(np.float32)
        metrics = [_core.paper_metric(bins, mean, grid, order, 64) for order in _core.ORDERS]
        return _core.select_by_paper_metric(metrics)

    return choose


def with_dense_heads(profile, dense_heads: dict[str, list[bool]]):
    """The profile with these heads (by layer id) at density 1, all others at none of their own."""
    layers = []
    for layer in profile.layers:
        heads = list(layer.heads)
        chosen = dense_heads.get(layer.id, [False] * len(heads))
        for head, dense in zip(heads, chosen, strict=True):
            head.density = 1.0 if dense else None
        layers.append(_core.ProfileLayer(layer.id, heads))
    profile.layers = layers
    return profile


class Calibration:
    """One dense run of one prompt, watched by samples and by exact maps."""

    def __init__(self, bundle: Bundle, prompt: str, seed: int, steps: int, tiles, exact_every: int):
        self.bundle, self.steps = bundle, steps
        self.exact = {block: ExactObserver(block, block) for block in tiles}
        self.sigmas = [float(s) for s in bundle.wan.simple_sigmas(steps)]
        # Five steps apart: 4 of 20 steps are sampled, 64 queries a head.
        settings = Settings(calibrate=True, every_n_steps=max(1, steps // 4))
        self.session = Session(settings, self.sigmas, model=ModelInfo("wan2.1"))
        groups = self.session.steps.groups(halves=True)
        self.border = groups[0][1] if len(groups) > 1 else -1.0
        self._run(prompt, seed, exact_every)
        self.profiles = self._profiles(groups)

    def _run(self, prompt, seed, exact_every):
        bundle, layout = self.bundle, self.bundle.layout
        current = {}

        def attention(q, k, v, layer):
            name = f"double.{layer}.0"
            if current["step"] % exact_every == 0:
                scale, group = q.shape[-1] ** -0.5, self.group(current["forward"].sigma)
                for observer in self.exact.values():
                    observer.observe(name, q, k, layout, sm_scale=scale, group=group)
            return self.session.attention(
                current["forward"], name, q, k, v, layout, lambda: bundle.wan.sdpa(q, k, v, layer)
            )[0]

        def on_step(step, sigma, x):
            current.update(step=step, forward=self.session.begin_forward(sigma))

        bundle.model.attention = attention
        bundle.wan.sample(
            bundle.model,
            bundle.noise([seed]),
            bundle.context([prompt]),
            self.steps,
            on_step=on_step,
        )
        bundle.model.attention = bundle.wan.sdpa

    def _profiles(self, groups):
        observer = self.session.observer
        settings, info = Settings(), ModelInfo("wan2.1")
        first = next(iter(observer.layers.values()))
        # Which heads stay dense is no part of the comparison: all policies share the profile's.
        chosen = build_profile(observer, info, settings, groups, steps=self.steps)
        self.dense_heads = {
            layer.id: [head.density == 1.0 for head in layer.heads] for layer in chosen.layers
        }
        apart = replace(settings, dense_below=0.0)
        choices = {
            "fhw": lambda kernels: "FHW",
            "paper": paper_order(first.bins, self.bundle.layout.grid),
        }
        profiles = {"profile": chosen}
        for name, order_of in choices.items():
            profile = build_profile(
                observer, info, apart, groups, steps=self.steps, order_of=order_of
            )
            profiles[name] = with_dense_heads(profile, self.dense_heads)
        return profiles

    def group(self, sigma: float) -> int:
        return int(sigma <= self.border * (1 + 1e-5))


def session_for(case: Case, calibration: Calibration, seed: int, kernel=attention):
    """A session that runs a case, or an ExactRun; auto observes its own first steps. kernel: runs
    the sparse calls, as paroattention.attention."""
    start = case.dense_steps / calibration.steps
    policy, _, refresh = case.policy.partition("+")
    by_target = refresh == "target"
    settings = Settings(
        density=AUTO if by_target else case.density,
        target_error=case.density if by_target else TARGET_ERROR,
        precision="int8" if case.precision == "int8" else "bf16",
        mask="dynamic" if refresh == "dynamic" else "static",
        tail=case.tail,
        start_percent=0.0 if policy == "auto" else start,
        observe_steps=case.dense_steps if policy == "auto" else 0,
        refresh=bool(refresh),
        block_q=case.block,
        block_kv=case.block,
    )
    if policy == "exact":
        plans = _exact_plans(case, calibration)
        return ExactRun(settings, calibration.sigmas, plans, kernel)
    keywords = {"model": ModelInfo("wan2.1"), "seed": seed, "kernel": kernel}
    if policy != "auto":
        keywords["find_profile"] = lambda grid: (calibration.profiles[policy], policy)
    return Session(settings, calibration.sigmas, **keywords)


def _exact_plans(case: Case, calibration: Calibration):
    """plans(layer, sigma) -> Plan, made once for each timestep group."""
    maps = calibration.exact[case.block]

    # Which heads get more is no part of the comparison: as in runs with the profile.
    chosen = calibration.profiles["profile"]
    shared = with_densities(chosen, afforded(chosen, case.density))
    free = free_density(shared, case.density)

    @functools.cache
    def plan(layer: str, group: int):
        heads = shared.layers[shared.layer_ids().index(layer)].heads
        densities = [free if head.density is None else head.density for head in heads]
        return maps.plan(layer, case.density, group=group, densities=densities)

    return lambda layer, sigma: plan(layer, calibration.group(sigma))


def _grid(policies, densities, **fixed) -> list[Case]:
    return [
        Case(policy, density, tail, **fixed)
        for density in densities
        for policy in policies
        for tail in (False, True)
    ]


def cases(quick: bool = False) -> list[Case]:
    """The cases, the most telling first: a time limit cuts off the end."""
    every = (0.3, 0.2, 0.5, 0.1)
    base = _grid(("fhw", "profile", "auto", "auto+refresh", "profile+refresh", "exact"), every)
    if quick:
        return [case for case in base if case.density in (0.3, 0.2)]
    return [
        *base,
        *_grid(("auto+dynamic", "profile+dynamic"), every),
        *_grid(("auto+target",), TARGETS),
        *_grid(("profile",), every, precision="int8"),
        *(Case("paper", density) for density in every),
        *_grid(("fhw", "profile", "exact"), every, block=128),
        *_grid(("fhw", "profile"), every, dense_steps=0),
        *_grid(("exact",), (0.3, 0.2), dense_steps=0),
        *_grid(("profile",), (0.3, 0.2), block=128, precision="int8"),
        *_grid(("profile",), (0.3, 0.2), dense_steps=0, precision="int8"),
        *_grid(("fhw", "profile"), (0.3, 0.2), block=128, dense_steps=0),
        *_grid(("auto", "auto+refresh"), (0.3, 0.2, 0.5), precision="int8"),
        *_grid(("auto", "auto+refresh"), (0.3, 0.2, 0.5), block=128, precision="int8"),
    ]
