"""Runs of the stand-in, for Team.run."""

from __future__ import annotations

import torch
import torch.distributed as dist
from paroattention import Profile, raylight
from paroattention.parallel.ranks import Ranks
from problems import tensors
from raylight_stand_in import Attention, Packed, Patcher, Registry, dense
from shared_run import LAYERS, Runner


def sampled(rank, size, file, case, kind: str, more=None, fail_at=None) -> dict:
    """A run of a model of this kind ("h3" or "wan") with the processor of that file."""
    group = dist.new_group(backend="gloo", use_local_synchronization=True)
    # Its own all-to-all knows nothing of the processor's ranks: it waits, and gives up.
    attention = Attention(Ranks(group, timeout=2.0 if fail_at else 30.0), group)
    model = raylight.apply(Patcher(), file, registry=Registry(), group=group)
    processor = model.options["raylight_inner_attention"]
    frames, height, width = case.grid
    x = torch.zeros(1, 16, frames, 2 * height, 2 * width)
    payload = {"layout": Packed(case.prefix - 2, 2, case.layout.grid_size)}
    outputs = []

    def evaluate(x, context, timestep, options, payload=None, step=0):
        for number in range(len(LAYERS)):
            qkv = tensors(case.heads, case.layout.length, case.head_dim, seed=10 * step + number)
            if (step, number, rank) == (fail_at, 1, 1):
                raise MemoryError("no room in this worker")
            outputs.append(attention(*qkv, options, more=more))

    def sample(noise, latent, sampler, sigmas, *_):
        for step, sigma in enumerate(sigmas[:-1]):
            options = dict(model.options, sigmas=sigma[None], cond_or_uncond=[0])
            if kind == "wan":
                options["grid_sizes"] = torch.Size(case.grid)
            given = (
                ([x, None], None, None, options, payload)
                if kind == "h3"
                else (x, None, None, options)
            )
            model.wrapped("diffusion_model", evaluate)(*given, step=step)

    sigmas = torch.tensor(case.sigmas)
    model.wrapped("outer_sample", sample)(None, None, None, sigmas, None, None, None, case.seed)
    return {"outputs": outputs, "summary": processor.summary}


def alone(case, profile=None) -> list[torch.Tensor]:
    """What one process gives, with layers as the processor names them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    runner = Runner(case)
    if profile is not None:
        found = Profile.load(profile)
        runner.session.learning._find = lambda grid: (found, "found")
    outputs = []
    for step, sigma in enumerate(case.sigmas[:-1]):
        forward = runner.session.begin_forward(float(torch.tensor(sigma)), conds=(0,))
        for number in range(len(LAYERS)):
            qkv = tensors(case.heads, case.layout.length, case.head_dim, seed=10 * step + number)
            out = runner.call(forward, f"block.{number}.0", *qkv)
            outputs.append(out.transpose(1, 2).flatten(2))
    torch.set_num_threads(before)
    return outputs


def padded(case, step: int, number: int) -> torch.Tensor:
    """The host's attention of one call over its padded sequence, cut to the sequence."""
    qkv = tensors(case.heads, case.layout.length, case.head_dim, seed=10 * step + number)
    more = [torch.nn.functional.pad(x, (0, 0, 0, 1), value=0.5).transpose(1, 2) for x in qkv]
    return dense(*more).flatten(2)[:, : case.layout.length]


def with_ring(rank: int, size: int, file) -> None:
    """All ranks form a ring."""
    group = dist.new_group(backend="gloo", use_local_synchronization=True)
    processor = raylight.Processor(str(file), group)
    q = torch.zeros(1, 8, 1, 64)
    processor(lambda *_, **__: None, q, q, q, transformer_options={}, group=group)
