"""One run of a small Wan in a ComfyUI process of its own: python comfy_run.py PLACE OUT

PLACE: normal, lowvram, novram, or gpu1 (the second GPU). Writes to OUT what the run did, what it
left on the GPU, and its result. Every plan goes through the store's two buffers.
"""

from __future__ import annotations

import sys

import torch
from paroattention.bench import comfy, comfy_host
from paroattention.kernels import cuda, plan_store

STEPS, OBSERVED = 8, 2


def _start(place: str):
    comfy_host.start(None)
    from comfy.cli_args import args

    if place in ("lowvram", "novram"):
        setattr(args, place, True)
    elif place == "gpu1":
        torch.cuda.set_device(1)
    return comfy_host.plugin()


def _watch_devices() -> set[str]:
    """Where our calls' tensors lie, filled while a run goes on."""
    seen, call = set(), cuda.attention

    def noted(q, *args, **kwargs):
        seen.add(str(q.device))
        return call(q, *args, **kwargs)

    cuda.attention = noted
    return seen


def _left(device: torch.device) -> int:
    """Bytes on the GPU once ComfyUI has unloaded its models. cuBLAS keeps a workspace for every
    stream that it was used on, and which streams ComfyUI copies weights on differs from run to run:
    they do not count."""
    import comfy.model_management as management

    management.unload_all_models()
    management.soft_empty_cache()
    torch.cuda.synchronize(device)
    torch._C._cuda_clearCublasWorkspaces()
    return torch.cuda.memory_allocated(device)


def main(place: str, out: str) -> None:
    nodes = _start(place)
    size, seen = comfy_host.MODELS["tiny"], _watch_devices()
    with torch.inference_mode():
        model = comfy_host.random_wan(size)
        device = torch.device("cuda", torch.cuda.current_device())
        store = plan_store.PlanStore(plan_store.CudaCopies(device), resident_bytes=0)
        plan_store._stores[device] = store
        ours = nodes.PAROAttention.execute(
            model=model,
            profile="none",
            density=0.3,
            precision="int8",
            mask="static",
            tail=True,
            start_percent=0.0,
            end_percent=1.0,
            observe_steps=OBSERVED,
            save_as="",
        ).result[0]
        # What libraries keep for the process, workspaces above all, is there after a first run.
        comfy.sample(ours, size, STEPS)
        before = _left(device)
        clock, _ = comfy.sample(ours, size, STEPS)
    told = comfy._last_summary()

    loaded, plans = ours.model.model_loaded_weight_memory, store.device_bytes
    torch.save(
        {
            "paths": told["paths"],
            "reasons": told["reasons"],
            "devices": sorted(seen),
            "plan_bytes": plans,
            "reads": store.hits + store.misses,
            "loaded": loaded,
            "whole": ours.model_size(),
            "left_bytes": _left(device) - before,
            "latent": clock.latent.cpu(),
        },
        out,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
