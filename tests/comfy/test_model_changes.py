"""LoRAs that come by hooks or bypass, and what other nodes put on a model: what a profile knows."""

import asyncio
import hashlib

import harness
import pytest
import torch

pytestmark = pytest.mark.usefixtures("folders")
LAYER = "diffusion_model.blocks.{}.self_attn.{}"


@pytest.fixture(scope="module")
def nodes():
    """ComfyUI's nodes: run(id, **inputs) -> outputs."""
    harness.start()
    import nodes

    asyncio.run(nodes.init_builtin_extra_nodes())

    def run(node, **inputs):
        kind = nodes.NODE_CLASS_MAPPINGS[node]
        if hasattr(kind, "define_schema"):
            return kind.EXECUTE_NORMALIZED(**inputs).result[0]
        return getattr(kind(), kind.FUNCTION)(**inputs)[0]

    return run


@pytest.fixture(scope="module")
def loras(tmp_path_factory):
    """Files a.safetensors and b.safetensors where ComfyUI looks for LoRAs."""
    harness.start()
    import folder_paths
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("loras")
    for seed, name in enumerate("ab"):
        draw = torch.Generator().manual_seed(seed)
        up, down = torch.randn(256, 4, generator=draw), torch.randn(4, 256, generator=draw)
        key = LAYER.format(seed, "q")
        weights = {f"{key}.lora_up.weight": up / 8, f"{key}.lora_down.weight": down / 8}
        save_file(weights, folder / f"{name}.safetensors")
    kept = folder_paths.folder_names_and_paths["loras"]
    folder_paths.folder_names_and_paths["loras"] = ([str(folder)], kept[1])
    folder_paths.filename_list_cache.pop("loras", None)
    yield
    folder_paths.folder_names_and_paths["loras"] = kept
    folder_paths.filename_list_cache.pop("loras", None)


def hook(nodes, name="a", strength=1.0, frames=(), before=None):
    """A hook LoRA; frames: (start_percent, strength)."""
    made = nodes(
        "CreateHookLora", lora_name=f"{name}.safetensors", strength_model=strength,
        strength_clip=0.0, prev_hooks=before,
    )  # fmt: skip
    keys = None
    for start, times in frames:
        keys = nodes(
            "CreateHookKeyframe", strength_mult=times, start_percent=start, prev_hook_kf=keys
        )
    return made if keys is None else nodes("SetHookKeyframes", hooks=made, hook_kf=keys)


def hooked(nodes, hooks, seed=0):
    cond = harness.conditioning(seed=seed)
    return nodes("ConditioningSetProperties", cond_NEW=cond, strength=1.0,
                 set_cond_area="default", hooks=hooks)  # fmt: skip


def both(nodes, hooks) -> dict:
    return {"positive": hooked(nodes, hooks), "negative": hooked(nodes, hooks, 9)}


def run(folders, model, steps="sss", **conds) -> dict:
    harness.sample(harness.paro(model), steps=3, cfg=3.0, **conds)
    assert folders.steps() == steps, folders.last()
    return folders.last()["reasons"]


def saved(folders) -> set[str]:
    """The hashes of all saved profiles."""
    names = [name for name in folders.names() if name.endswith(".json")]
    return {folders.load(name.removesuffix(".json")).model.patches for name in names}


@pytest.mark.parametrize("first", ["plain", "hooked"])
def test_a_hook_lora_is_not_the_plain_model(nodes, loras, model, folders, first):
    """Whichever is run first: neither takes the other's profile."""
    kinds = {"plain": dict, "hooked": lambda: both(nodes, hook(nodes))}
    order = sorted(kinds, key=lambda kind: kind != first)
    for steps in ("oss", "sss"):
        # The hooks are made anew, as in another session.
        for kind in order:
            assert not run(folders, model, steps, **kinds[kind]())
    assert len(saved(folders)) == 2 and "" in saved(folders)


HOOKS = {
    "plain": lambda nodes: None,
    "a": lambda nodes: both(nodes, hook(nodes)),
    "weaker": lambda nodes: both(nodes, hook(nodes, strength=0.5)),
    "b": lambda nodes: both(nodes, hook(nodes, "b")),
    "a and b": lambda nodes: both(nodes, hook(nodes, "b", before=hook(nodes))),
    "fading": lambda nodes: both(nodes, hook(nodes, frames=[(0.0, 1.0), (0.5, 0.2)])),
    "fading later": lambda nodes: both(nodes, hook(nodes, frames=[(0.0, 1.0), (0.7, 0.2)])),
    "positive alone": lambda nodes: {"positive": hooked(nodes, hook(nodes))},
    "negative alone": lambda nodes: {"negative": hooked(nodes, hook(nodes), 9)},
    "a group each": lambda nodes: {
        "positive": hooked(nodes, hook(nodes)),
        "negative": hooked(nodes, hook(nodes, "b"), 9),
    },
}


@pytest.fixture
def hash_of(monkeypatch):
    """The hash that a run computes, without the rest of the run."""

    def compute(model, conds=None):
        seen = []
        changes = harness.part("patch").Changes

        class Spy:
            @staticmethod
            def of(*args):
                seen.append(changes.of(*args))
                raise RuntimeError("seen")

        monkeypatch.setattr(harness.part("patch"), "Changes", Spy)
        harness.sample(harness.paro(model), steps=1, grid=(1, 2, 2), cfg=3.0, **(conds or {}))
        monkeypatch.setattr(harness.part("patch"), "Changes", changes)
        return seen[0].hash

    return compute


def test_every_way_of_hooking_is_another_model_and_stays_the_same(nodes, loras, model, hash_of):
    hashes = [[hash_of(model, make(nodes)) for make in HOOKS.values()] for _ in range(2)]
    assert hashes[0] == hashes[1] and len(set(hashes[0])) == len(HOOKS)
    assert hashes[0][0] == ""


NOTHING = {
    "strength 0": lambda nodes: both(nodes, hook(nodes, strength=0.0)),
    "keyframes of 0": lambda nodes: both(nodes, hook(nodes, frames=[(0.0, 0.0), (0.5, 0.0)])),
}


@pytest.mark.parametrize("kind", NOTHING)
def test_hooks_that_change_nothing_are_the_plain_model(nodes, loras, model, hash_of, kind):
    assert hash_of(model, NOTHING[kind](nodes)) == ""


def test_one_keyframe_throughout_is_none(nodes, loras, model, hash_of):
    plain = hash_of(model, both(nodes, hook(nodes)))
    assert hash_of(model, both(nodes, hook(nodes, frames=[(0.0, 1.0)]))) == plain


def lora(nodes, model, name="a", strength=1.0, kind="LoraLoaderModelOnly"):
    return nodes(kind, model=model, lora_name=f"{name}.safetensors", strength_model=strength)


def earlier(patcher) -> str:
    """The hash of a LoRA's patches as profiles of earlier versions hold it."""
    digest = hashlib.sha256()
    for key, patches in sorted(patcher.patches.items()):
        digest.update(key.encode())
        for strength, adapter, model_strength, *_ in patches:
            samples = [w.reshape(-1)[:8].float().tolist() for w in adapter.weights[:2]]
            lists = "".join(str([round(x, 5) for x in values]) for values in samples)
            alpha = "" if adapter.weights[2] is None else str(adapter.weights[2])
            digest.update(f"{strength}{lists}{alpha}{model_strength}".encode())
    return digest.hexdigest()[:16]


def test_a_lora_and_a_hook_lora(nodes, loras, model, hash_of):
    """Each counts, and a LoRA alone has the hash that it always had."""
    patched = lora(nodes, model, "b")
    alone = hash_of(patched)
    assert alone == harness.part("identity.fingerprint").patches_hash(patched) == earlier(patched)
    together = hash_of(patched, both(nodes, hook(nodes)))
    assert len({alone, together, hash_of(model, both(nodes, hook(nodes)))}) == 3


def test_a_bypassed_lora(nodes, loras, model, folders):
    """It leaves the weights alone and adds to the modules' results."""
    for steps in ("oss", "sss"):
        assert not run(folders, model, steps)
        assert not run(folders, lora(nodes, model, kind="LoraLoaderBypassModelOnly"), steps)
    assert len(saved(folders)) == 2


def test_bypassed_loras_are_told_apart(nodes, loras, model, hash_of):
    def bypass(**other):
        return hash_of(lora(nodes, model, kind="LoraLoaderBypassModelOnly", **other))

    first = bypass()
    assert len({"", first, bypass(strength=0.5), bypass(name="b")}) == 4
    assert bypass() == first


def test_a_bypassed_lora_keeps_its_hash_when_comfyui_casts_it(nodes, loras, hash_of):
    """Its weights take the model's type when they are first put in."""
    import comfy.sd

    state = {name: weight.half() for name, weight in harness.wan_state(0).items()}
    half = comfy.sd.load_diffusion_model_state_dict(state)
    bypassed = lora(nodes, half, kind="LoraLoaderBypassModelOnly")
    before = hash_of(bypassed)
    bypassed.inject_model()
    bypassed.eject_model()
    assert hash_of(bypassed) == before != ""


def sampling(nodes, model):
    return nodes("ModelSamplingSD3", model=model, shift=8.0)


def cached(nodes, model):
    return nodes("EasyCache", model=model, reuse_threshold=0.2, start_percent=0.15,
                 end_percent=0.95, verbose=False)  # fmt: skip


def compiled(nodes, model):
    clone = model.clone()
    key = "diffusion_model.blocks.0"
    block = torch.compile(model.get_model_object(key), backend="eager")
    clone.add_object_patch(key, block)
    clone.add_object_patch("diffusion_model.blocks.1.forward", torch.compile(
        model.get_model_object("diffusion_model.blocks.1").forward, backend="eager"
    ))  # fmt: skip
    return clone


def half(nodes, model):
    clone = model.clone()
    clone.set_model_compute_dtype(torch.float16)
    return clone


HARMLESS = {"shift": sampling, "EasyCache": cached, "torch.compile": compiled, "dtype": half}


@pytest.mark.parametrize("kind", HARMLESS)
def test_what_every_workflow_has_leaves_the_plain_model(nodes, model, hash_of, kind):
    """Profiles of the plain model are found with it."""
    assert hash_of(HARMLESS[kind](nodes, model)) == ""


def wrapped(model):
    clone = model.clone()
    clone.set_model_unet_function_wrapper(lambda apply, given: apply(given["input"], given["timestep"], **given["c"]))  # noqa: E501  # fmt: skip
    return clone


def patched_block(model):
    clone = model.clone()
    clone.set_model_patch_replace(lambda given, extra: extra["original_block"](given), "dit",
                                  "double_block", 0)  # fmt: skip
    return clone


def new_forward(model):
    clone = model.clone()
    forward = model.get_model_object("diffusion_model.blocks.0.ffn").forward
    key = "diffusion_model.blocks.0.ffn.forward"
    clone.add_object_patch(key, lambda *args, **kwargs: forward(*args, **kwargs))
    return clone


def outer(model):
    from comfy.patcher_extension import WrappersMP

    clone = model.clone()
    clone.add_wrapper(WrappersMP.DIFFUSION_MODEL, lambda executor, *a, **k: executor(*a, **k))
    return clone


OPAQUE = {"function": wrapped, "block": patched_block, "forward": new_forward, "wrapper": outer}


@pytest.mark.parametrize("kind", OPAQUE)
def test_functions_of_other_nodes_are_known_by_name_and_said(model, folders, kind):
    """Nobody can tell what they hold: a run that takes a profile with them says so."""
    change = OPAQUE[kind]
    run(folders, model, "oss")
    assert not run(folders, change(model), "oss")
    (reason,) = run(folders, change(model), "sss")
    assert reason.startswith("other nodes changed ") and "cannot tell" in reason
    assert not run(folders, model, "sss")


def other_block(model, seed):
    """A module of the same kind with other weights."""
    clone = model.clone()
    key = "diffusion_model.blocks.0.self_attn.q"
    plain = model.get_model_object(key)
    module = torch.nn.Linear(256, 256, bias=False)
    draw = torch.Generator().manual_seed(seed)
    module.weight = torch.nn.Parameter(torch.randn(256, 256, generator=draw))
    assert plain.weight.shape == module.weight.shape
    clone.add_object_patch(key, module)
    return clone


def test_replaced_modules_count_by_their_weights(model, hash_of):
    hashes = [hash_of(other_block(model, seed)) for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] and len({"", *hashes}) == 3


def test_scaled_positions_count_by_their_values(nodes, model, hash_of):
    def scaled(scale):
        shifts = {"shift_x": 0.0, "shift_y": 0.0, "shift_t": 0.0}
        scales = {"scale_x": 1.0, "scale_y": 1.0, "scale_t": scale}
        return hash_of(nodes("ScaleROPE", model=model, **shifts, **scales))

    assert scaled(1.0) == "" and scaled(1.2) == scaled(1.2) and len({scaled(1.2), scaled(1.5)}) == 2


def test_weight_wrappers_count(model, hash_of):
    """By the weights that they hold, or by their names."""

    def adapter(seed):
        clone = model.clone()
        module = torch.nn.Linear(4, 4)
        draw = torch.Generator().manual_seed(seed)
        module.weight = torch.nn.Parameter(torch.randn(4, 4, generator=draw))
        module.bias = None
        clone.add_weight_wrapper(LAYER.format(0, "q") + ".weight", module)
        return clone

    def function():
        clone = model.clone()
        clone.add_weight_wrapper(LAYER.format(0, "q") + ".weight", lambda weight: weight)
        return clone

    hashes = [harness.part("identity.fingerprint").patches_hash(one) for one in (
        adapter(0), adapter(0), adapter(1), function(), function()
    )]  # fmt: skip
    assert hashes[0] == hashes[1] and hashes[3] == hashes[4] and len({"", *hashes}) == 4


def test_injections_of_other_nodes_have_no_address(model):
    from comfy.patcher_extension import PatcherInjection

    def injected():
        clone = model.clone()
        clone.set_injections("motion 0x7f3a", [PatcherInjection(print, print)])
        return harness.part("identity.changes").Changes.of(clone)

    assert injected() == injected() and injected().opaque == ("injection motion *",)
