"""Train the tiny Wan model by flow matching on procedural clips.

    python data.py PHOTO_DIR clips.npz
    python train.py clips.npz OUT_DIR --minutes 9

OUT_DIR gets the float16 EMA model, the extras (codec and word vectors), the raw float32 weights
in two halves (for --resume), a log and a contact sheet for each shift asked for. Progress is kept
from time to time.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from data import FRAMES, MOTIONS, SUBJECTS, WORDS, Codec, Renderer, word_vectors
from safetensors.torch import load_file, save_file
from sheet import contact_sheet, prompt_index
from torch import Tensor
from wan_tiny import SHIFT, WanTiny, make_noise, parameter_count, sample, save

BEGAN = time.monotonic()
MODEL, EXTRAS = "paro-wan-tiny.safetensors", "paro-wan-tiny.extras.safetensors"
SHEET_PROMPTS = (
    "cat left ball", "astronaut right star", "coffee up face", "rocket closer horse",
    "galaxy away cup", "photographer clockwise ball", "retina anticlockwise star",
    "bricks down nothing",
    # Combinations that training left out:
    "astronaut right cup", "cat clockwise horse", "galaxy closer cup", "coffee down face",
)  # fmt: skip


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by Newton-Schulz; matrices of one shape go as one batch."""

    def __init__(self, parameters, lr: float, momentum: float = 0.95):
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum})
        shapes: dict[torch.Size, list] = {}
        for p in self.param_groups[0]["params"]:
            shapes.setdefault(p.shape, []).append(p)
        self.stacks = list(shapes.values())

    @torch.no_grad()
    def step(self, closure=None):
        group = self.param_groups[0]
        for stack in self.stacks:
            grad = torch.stack([p.grad for p in stack])
            state = self.state[stack[0]]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(grad)
            state["momentum"].lerp_(grad, 1 - group["momentum"])
            update = orthogonalise(grad.lerp(state["momentum"], group["momentum"]))
            # The factor makes the update's typical entry about that of Adam at 0.2 of its rate.
            factor = 0.2 * math.sqrt(max(update.shape[-2:]))
            torch._foreach_add_(stack, list(update.unbind(0)), alpha=-group["lr"] * factor)


def orthogonalise(g: Tensor, steps: int = 5) -> Tensor:
    x = g.bfloat16() if g.is_cuda else g
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if tall else x).float()


def cudnn_attention(q: Tensor, k: Tensor, v: Tensor, layer: int) -> Tensor:
    """On an H100 1.8 times as fast as the default, forward and backward."""
    return torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, True)[0]


def initialise(model: WanTiny) -> None:
    """Every block starts as the identity: gates closed, cross-attention's output zero."""
    with torch.no_grad():
        for block in model.blocks:
            block.modulation.zero_()
            block.cross_attn.o.weight.zero_()
            for layer in (block.self_attn, block.cross_attn):
                for linear in (layer.q, layer.k, layer.v, layer.o):
                    linear.bias.zero_()
        model.time_projection[1].weight.normal_(std=0.01)
        model.time_projection[1].bias.zero_()
        model.head.modulation.zero_()
        model.head.head.weight.zero_()
        model.head.head.bias.zero_()
        positional_heads(model)


# Along which axes each head of a layer starts out narrow; it averages along the others.
NARROW = (
    ("HW", "W"), ("HW", "FHW"), ("HW", "H"), ("HW", "W"),
    ("HW", "FW"), ("HW", "FHW"), ("HW", "W"), ("HW", "FHW"),
)  # fmt: skip


def positional_heads(model: WanTiny, pairs: int = 6, energy: float = 3.4) -> None:
    """Every head starts as a kernel over the offset between query and key.

    Constant parts of q and k meet after RoPE as a sum of cosines of the offset, so biases on the
    fastest pairs of an axis (periods of 6 to 56 tokens) make a head look near by along it. Heads
    of large video models end like that; in minutes of training half of the heads stay without
    a preference for any place. energy: of the bias over that of the content, about, times 3.
    """
    head_dim = model.config.head_dim
    side = head_dim // 6
    first = {"F": 0, "H": head_dim // 2 - 2 * side, "W": head_dim // 2 - side}
    for block, narrow in zip(model.blocks, NARROW, strict=True):
        for head, axes in enumerate(narrow):
            channels = [
                head * head_dim + 2 * (first[axis] + pair) for axis in axes for pair in range(pairs)
            ]
            bias = math.sqrt(energy * head_dim / len(channels))
            block.self_attn.q.bias[channels] = bias
            block.self_attn.k.bias[channels] = bias


def noise_levels(batch: int, device: str, high: float = 12.0) -> Tensor:
    """Half logit-normal around the levels where detail forms, half pressed towards pure noise.

    Position and motion are decided in the first steps of sampling: a clip has 225,280 numbers,
    so even at a level of 0.95 much of it can be told from the noise.
    """
    detail = torch.sigmoid(torch.randn(batch, device=device))
    layout = torch.rand(batch, device=device)
    detail = SHIFT * detail / (1 + (SHIFT - 1) * detail)
    layout = high * layout / (1 + (high - 1) * layout)
    return torch.where(torch.rand(batch, device=device) < 0.5, detail, layout)


def contexts(prompts: Tensor, words: Tensor, drop: float = 0.04) -> Tensor:
    """(B, 3) indices -> (B, 3, 4096); now and then the empty prompt, for guidance."""
    offsets = torch.tensor([0, len(SUBJECTS), len(SUBJECTS) + len(MOTIONS)], device=words.device)
    index = prompts + offsets
    empty = torch.rand(len(index), 1, device=words.device) < drop
    return words[torch.where(empty, len(WORDS) - 1, index)]


def rate(progress: float, step: int) -> float:
    """Warm-up, a flat stretch, then a fall to nothing over the last 60 %."""
    fall = 1.0 if progress < 0.4 else 0.5 + 0.5 * math.cos(math.pi * (progress - 0.4) / 0.6)
    return min(1.0, (step + 1) / 200) * max(fall, 0.005)


def keep_for_resume(state: dict[str, Tensor], args) -> dict[str, Tensor]:
    """What --resume takes over; --reset-text leaves out everything that reads the prompt."""
    text = ("text_embedding.", "cross_attn.")
    return {k: v for k, v in state.items() if not (args.reset_text and any(t in k for t in text))}


def build_optimisers(model: WanTiny, lr: float, muon_lr: float):
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    taken = {id(p) for p in matrices}
    words = model.text_embedding[0].weight
    rest = [p for p in model.parameters() if id(p) not in taken and p is not words]
    # 4,096 inputs of unit variance: at the common rate one step of Adam would move a word's
    # embedding by several units, and words died behind the GELU.
    groups = [{"params": rest}, {"params": [words], "lr": lr / 50}]
    if muon_lr <= 0:
        groups[0]["params"] = rest + matrices
    adam = torch.optim.AdamW(groups, lr, betas=(0.9, 0.98), weight_decay=0.0)
    return [Muon(matrices, muon_lr), adam] if muon_lr > 0 else [adam]


class Trainer:
    def __init__(self, args):
        self.args, self.device = args, args.device
        archive = dict(np.load(args.data))
        self.renderer, self.codec = Renderer(archive, args.device), Codec(archive, args.device)
        self.words = torch.from_numpy(word_vectors()).to(args.device).float()
        torch.manual_seed(args.seed)
        self.model = WanTiny()
        initialise(self.model)
        if args.resume:
            halves = [load_file(p) for p in sorted(Path(args.resume).glob("raw-*.safetensors"))]
            self.model.load_state_dict(keep_for_resume(halves[0] | halves[1], args), strict=False)
        self.model.to(args.device)
        self.ema = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.optimisers = build_optimisers(self.model, args.lr, args.muon_lr)
        self.base_rates = [g["lr"] for o in self.optimisers for g in o.param_groups]
        if args.attention == "cudnn":
            self.model.attention = cudnn_attention
        # Made ahead: a table that appears during the first step would mean compiling twice.
        self.model._table((FRAMES, 16, 22), next(self.model.parameters()).device)
        if args.compile:
            for block in self.model.blocks:
                block.compile(backend=args.backend)  # One graph serves all: they are alike.
        self.graph: torch.cuda.CUDAGraph | None = None
        self.log: list[dict] = []

    def loss(self, latent: Tensor, noise: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
        level = sigma[:, None, None, None, None]
        with torch.autocast(self.device, torch.bfloat16):
            velocity = self.model(level * noise + (1 - level) * latent, sigma, context)
        return (velocity - (noise - latent)).square().mean()

    def batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        size = self.args.batch
        with torch.no_grad():
            prompts = self.renderer.prompts(size)
            latent = self.codec.encode(self.renderer.render(prompts))
            context = contexts(prompts, self.words)
        return latent, torch.randn_like(latent), noise_levels(size, self.device), context

    def gradients(self, *inputs: Tensor) -> Tensor:
        if self.graph is None:
            for parameter in self.model.parameters():
                parameter.grad = None
            loss = self.loss(*inputs)
            loss.backward()
            return loss.detach()
        for held, new in zip(self.held, inputs, strict=True):
            held.copy_(new)
        self.graph.replay()
        return self.held_loss.clone()

    def capture(self) -> None:
        """Record forward and backward once: launching them one by one keeps the GPU waiting."""
        self.held = self.batch()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                before = self.gradients(*self.held).item()
        torch.cuda.current_stream().wait_stream(stream)
        for parameter in self.model.parameters():
            parameter.grad = None
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self.loss(*self.held)
            loss.backward()
            self.held_loss = loss.detach()
        self.graph = graph
        after = self.gradients(*self.held).item()
        print(f"captured: loss {before:.5f}, replayed {after:.5f}", flush=True)
        if not abs(after - before) < 1e-2 * before:
            raise RuntimeError(f"the captured step gives {after}, not {before}")

    def step(self, number: int, progress: float) -> Tensor:
        factor = rate(progress, number)
        groups = [g for o in self.optimisers for g in o.param_groups]
        for group, base in zip(groups, self.base_rates, strict=True):
            group["lr"] = base * factor
        loss = self.gradients(*self.batch())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        decay = min(self.args.ema, (1 + number) / (10 + number))
        with torch.no_grad():
            pairs = list(self.ema.values()), list(self.model.state_dict().values())
            torch._foreach_lerp_(*pairs, 1 - decay)
        return loss

    def run(self) -> None:
        args, window, number = self.args, [], 0
        for _ in range(3):
            self.step(0, 0.0).item()  # Compiles; the clock starts after it.
        if args.graph:
            self.capture()
        start = last = kept = time.monotonic()
        if args.until:
            args.minutes = (args.until - (start - BEGAN)) / 60
            print(f"compiled after {start - BEGAN:.0f} s, training {args.minutes:.2f} minutes")
        while (now := time.monotonic()) - start < args.minutes * 60 and number != args.steps:
            number += 1
            window.append(self.step(number, (now - start) / (args.minutes * 60)))
            if number % 50 == 0:
                window[-1].item()  # Keeps the clock honest: work is queued ahead of it.
            if len(window) == args.report:
                mean, clock = torch.stack(window).mean().item(), time.monotonic()
                speed = len(window) * args.batch / (clock - last)
                self.log.append({"step": number, "loss": mean, "seconds": clock - start})
                print(f"{clock - start:6.1f} s step {number} loss {mean:.5f}", end=" ")
                print(f"{speed:.0f} clips/s", flush=True)
                window, last = [], clock
            if time.monotonic() - kept > args.keep_minutes * 60:
                self.write(sheet=False)
                kept = time.monotonic()
        self.write(sheet=True)

    def write(self, sheet: bool) -> None:
        out = Path(self.args.out)
        out.mkdir(parents=True, exist_ok=True)
        model = WanTiny().to(self.device).eval()
        model.load_state_dict(self.ema)
        save(self.ema, out / MODEL, model.config)
        raw = {k: v.detach().cpu().contiguous() for k, v in self.model.state_dict().items()}
        for i, part in enumerate(split(raw)):
            save_file(part, out / f"raw-{i}.safetensors")
        extras = {f"{k}": v.cpu().contiguous() for k, v in self.codec.arrays.items()}
        extras["words"] = self.words.half().cpu()
        save_file(extras, out / EXTRAS, metadata={"words": json.dumps(WORDS)})
        (out / "log.json").write_text(json.dumps(self.log))
        if sheet and self.args.sheet:
            # Sampled from what the file holds, so that the picture shows what ships.
            model.load_state_dict({k: v.half().float() for k, v in self.ema.items()})
            for shift in self.args.sheet_shifts:
                self.write_sheet(model, out / f"contact_sheet_shift{shift:g}.png", shift)
            self.probe(model)

    @torch.no_grad()
    def probe(self, model: WanTiny, clips: int = 32) -> None:
        """Does the motion word matter? The loss with the right word and with another."""
        prompts = self.renderer.prompts(clips)
        latent = self.codec.encode(self.renderer.render(prompts))
        wrong = prompts.clone()
        wrong[:, 1] = (wrong[:, 1] + 3) % len(MOTIONS)
        noise = torch.randn_like(latent)
        for level in (0.99, 0.96, 0.92, 0.85, 0.7, 0.4):
            x = level * noise + (1 - level) * latent
            sigma = torch.full((clips,), level, device=self.device)
            losses = []
            for p in (prompts, wrong):
                with torch.autocast(self.device, torch.bfloat16):
                    velocity = model(x, sigma, contexts(p, self.words, 0.0))
                losses.append((velocity - noise + latent).square().mean().item())
            print(f"sigma {level}: right word {losses[0]:.5f}, another {losses[1]:.5f}")

    def write_sheet(self, model: WanTiny, path: Path, shift: float) -> None:
        index = torch.stack([prompt_index(p) for p in SHEET_PROMPTS]).to(self.device)
        context = contexts(index, self.words, drop=0.0)
        noise = torch.cat([make_noise(100 + i) for i in range(len(SHEET_PROMPTS))])
        samples = sample(model, noise.to(self.device), context, self.args.sample_steps, shift)
        contact_sheet(path, samples, list(SHEET_PROMPTS), self.renderer, self.codec)


def split(state: dict[str, Tensor]) -> tuple[dict, dict]:
    """Two parts of about equal size, each under 16 MiB."""
    half, total, first = parameter_total(state) / 2, 0, {}
    for key, value in state.items():
        total += value.numel()
        if total > half:
            break
        first[key] = value
    return first, {k: v for k, v in state.items() if k not in first}


def parameter_total(state: dict[str, Tensor]) -> int:
    return sum(v.numel() for v in state.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--until", type=float, help="instead: seconds since the program's start")
    parser.add_argument("--steps", type=int, default=-1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--muon-lr", type=float, default=4e-3, help="0: AdamW for everything")
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", help="folder with raw-*.safetensors")
    parser.add_argument("--reset-text", action="store_true", help="with --resume")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--report", type=int, default=100)
    parser.add_argument("--keep-minutes", type=float, default=3.0)
    parser.add_argument("--sample-steps", type=int, default=20)
    parser.add_argument("--attention", choices=("sdpa", "cudnn"), default="sdpa")
    parser.add_argument("--graph", action="store_true", help="replay the step as a CUDA graph")
    parser.add_argument("--sheet-shifts", type=float, nargs="*", default=[SHIFT])
    parser.add_argument("--backend", default="inductor")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--no-sheet", dest="sheet", action="store_false")
    args = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    trainer = Trainer(args)
    print(f"{parameter_count(trainer.model)} parameters, {FRAMES} frames", flush=True)
    trainer.run()


if __name__ == "__main__":
    main()
