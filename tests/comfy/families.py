"""Random models of ComfyUI's own classes at tiny sizes, one builder a family, and their inputs.

Every family has two heads, one or two blocks of a kind and the real class's own forward; what it is
given goes through ComfyUI's own conditioning, sampler and model wrappers.
"""

from __future__ import annotations

import harness
from family_cases import Case, random


def initialise(module, seed: int) -> None:
    """Random weights of the size that keeps activations near 1; norms near 1, biases 0."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    for name, weight in module.named_parameters():
        with torch.no_grad():
            if weight.dim() > 1:
                fan = weight[0].numel()
                weight.copy_(torch.randn(weight.shape, generator=draw) / fan**0.5)
            elif name.endswith("bias"):
                weight.zero_()
            else:
                weight.copy_(1 + 0.1 * torch.randn(weight.shape, generator=draw))
    for name, buffer in module.named_buffers():
        # Left empty by the constructor, as a checkpoint fills it.
        if "inv_freq" in name:
            buffer.copy_(1.0 / 10 ** torch.linspace(0, 4, buffer.numel()).view(buffer.shape))


def build(case: Case, seed: int = 0):
    """A patcher of the family's real model."""
    harness.start()
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models
    import torch

    name, unet = case.config
    config = getattr(comfy.supported_models, name)(dict(unet))
    config.set_inference_dtype(torch.float32, None)
    config.unet_config["dtype"] = torch.float32
    model = config.get_model({}, "", device=torch.device("cpu"))
    if case.prepare is not None:
        case.prepare(model.diffusion_model)
    initialise(model.diffusion_model, seed)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def latent(case: Case, batch: int = 1):
    import torch

    samples = torch.zeros(batch, *case.latent)
    if not case.audio:
        return samples
    import comfy.nested_tensor

    return comfy.nested_tensor.NestedTensor((samples, torch.zeros(batch, *case.audio)))


def conditioning(case: Case, seed: int = 0, tokens: int | None = None):
    count, width = case.text
    extras, tokens = case.extras(), tokens or count
    if "attention_mask" in extras:
        extras["attention_mask"] = extras["attention_mask"][:, :tokens]
    return [[random(1, tokens, width, seed=seed), extras]]


def sample(case: Case, model, *, steps=3, seed=1, cfg=1.0, batch=1, **options):
    """Latents of ComfyUI's KSampler: the video's, where audio comes along."""
    import nodes

    start = {"samples": latent(case, batch)}
    if case.noise_mask is not None:
        start["noise_mask"] = case.noise_mask()
    positive = options.pop("positive", None) or conditioning(case)
    negative = options.pop("negative", None) or conditioning(case, seed=5)
    out = nodes.common_ksampler(
        model, seed, steps, cfg, "euler", "simple", positive, negative, start, **options
    )[0]["samples"]
    return out.tensors[0] if hasattr(out, "tensors") else out
