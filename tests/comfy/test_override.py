"""What stays dense, each with its reason; and the override's handling of ComfyUI's call shapes."""

import os
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import harness
import pytest
import torch

pytestmark = pytest.mark.usefixtures("folders")

GRID = (3, 6, 8)
TOKENS = 144


def stays_dense(model, folders, reason, calls, **options):
    want = harness.sample(model, **options)
    out = harness.sample(harness.paro(model), **options)
    assert torch.equal(out, want)
    end = folders.last()
    assert end["paths"] == {} and end["density"] == 1
    assert len(end["reasons"]) == 1 and folders.names() == []
    (told,) = end["reasons"]
    assert reason in told and end["reasons"][told] == calls


def test_a_text_as_long_as_the_grid(model, folders):
    reason = "text and video have equally many tokens (144)"
    text = harness.conditioning(TOKENS)
    stays_dense(model, folders, reason, 24, positive=text, negative=text)


def test_one_long_text_of_two_leaves_the_other_sparse(model, folders):
    texts = {"positive": harness.conditioning(4), "negative": harness.conditioning(TOKENS)}
    harness.sample(harness.paro(model), cfg=4.0, **texts)
    assert folders.steps() == "osssss"
    assert list(folders.last()["reasons"].values()) == [24]


def test_an_attention_mask(model, folders, monkeypatch):
    import comfy.ldm.wan.model as wan

    plain = wan.optimized_attention

    def masked(q, k, v, heads, **kwargs):
        mask = torch.zeros(q.shape[1], k.shape[1]) if q.shape == k.shape else None
        return plain(q, k, v, heads, mask=mask, **kwargs)

    monkeypatch.setattr(wan, "optimized_attention", masked)
    stays_dense(model, folders, "the call has an attention mask", 12)


def test_a_model_family_without_a_layout(model, folders, monkeypatch):
    config = dict(model.model.model_config.unet_config) | {"image_model": "mystery"}
    monkeypatch.setattr(model.model.model_config, "unet_config", config)
    stays_dense(model, folders, "models of family 'mystery' are not supported", 12)


def test_a_model_without_a_config(model, folders, monkeypatch):
    monkeypatch.setattr(model.model.model_config, "unet_config", {})
    stays_dense(model, folders, "models of family 'unknown' are not supported", 12)


def test_reasons_are_shown_on_the_node(model, folders, monkeypatch):
    """The text that ComfyUI sends to the page."""
    texts = []
    progress = harness.part("panel").NodeProgress
    monkeypatch.setattr(progress, "__call__", lambda self, text, step, steps: texts.append(text))
    harness.sample(harness.paro(model, observe_steps=0))
    assert texts[-1].splitlines() == [
        "finished",
        "dense: no saved profile fits, and observe_steps 0 watches no step (12 calls)",
    ]


# -- call shapes -----------------------------------------------------------------------------------


class Probe:
    """An override within a run whose session computes densely, and notes what it was given."""

    def __init__(self, previous=None):
        import paroattention
        from paroattention.steps import Forward

        self.module, layouts = harness.part("override"), harness.part("layouts")
        self.override = self.module.Override(previous)
        self.noted, self.taken = [], []
        family = SimpleNamespace(patch_size=(1, 2, 2))
        inputs = layouts.Inputs(family, {"x": torch.zeros(1, 16, GRID[0], 12, 16)})
        evaluation = harness.part("evaluation").Evaluation(Forward(0, 1.0), "wan2.1", inputs)
        self.session = SimpleNamespace(
            model=paroattention.ModelInfo("wan2.1"),
            settings=paroattention.Settings(),
            note=self.note,
            attention_of=self.ours,
        )
        self.options = {
            "block_type": "double",
            "block_index": 3,
            self.module.RUN: SimpleNamespace(
                session=self.session,
                refusal=lambda *a: None,
                layers=harness.part("layer_functions").LayerFunctions(),
                guard=harness.part("guard").Guard(self.note),
            ),
            self.module.EVALUATION: evaluation,
        }

    def note(self, reason, dense=False):
        assert dense
        self.noted.append(reason)

    def ours(self, forward, layer, held, layout, dense, *, sm_scale=None):
        q, k, v = held.tensors
        self.taken.append((layer, tuple(q.shape), sm_scale))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=sm_scale), True

    def __call__(self, func, *args, **kwargs):
        return self.override(func, *args, transformer_options=self.options, **kwargs)


def host(q, k, v, heads, mask=None, attn_precision=None, skip_reshape=False,
         skip_output_reshape=False, **kwargs):  # fmt: skip
    """ComfyUI's own PyTorch attention."""
    from comfy.ldm.modules.attention import attention_pytorch

    return attention_pytorch(
        q, k, v, heads, mask, attn_precision, skip_reshape, skip_output_reshape, **kwargs
    )


def qkv(skip_reshape=False, tokens=TOKENS):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, tokens, 64, generator=generator) for _ in range(3))
    if skip_reshape:
        return q, k, v
    return tuple(x.permute(0, 2, 1, 3).reshape(2, tokens, 192) for x in (q, k, v))


@pytest.mark.parametrize("skip_output_reshape", [False, True])
@pytest.mark.parametrize("skip_reshape", [False, True])
@pytest.mark.parametrize("keyword", [False, True], ids=["heads by place", "heads by name"])
def test_shapes_are_those_of_the_hosts_function(skip_reshape, skip_output_reshape, keyword):
    probe, tensors = Probe(), qkv(skip_reshape)
    flags = {"skip_reshape": skip_reshape, "skip_output_reshape": skip_output_reshape}
    heads = ((), {"heads": 3}) if keyword else ((3,), {})
    out = probe(host, *tensors, *heads[0], **heads[1], **flags)
    want = host(*tensors, 3, **flags)
    assert out.shape == want.shape and torch.allclose(out, want, atol=1e-5)
    assert probe.taken == [("double.3.0", (2, 3, TOKENS, 64), None)] and not probe.noted


def test_scale_is_handed_on():
    probe, tensors = Probe(), qkv()
    out = probe(host, *tensors, 3, scale=0.5)
    assert probe.taken[0][2] == 0.5
    assert torch.allclose(out, host(*tensors, 3, scale=0.5), atol=1e-5)


REFUSED = {
    "mask": (
        lambda q, k, v: ((q, k, v), {"mask": torch.zeros(TOKENS, TOKENS)}),
        "the call has an attention mask",
    ),
    "enable_gqa": (
        lambda q, k, v: ((q, k, v), {"enable_gqa": True}),
        "q, k and v must have one shape",
    ),
    "wider v": (
        lambda q, k, v: ((q, k, torch.cat([v, v], -1)), {}),
        "q, k and v must have one shape",
    ),
    "container": (lambda q, k, v: (([q], k, v), {}), "not plain tensors"),
    "gradients": (lambda q, k, v: ((q.requires_grad_(), k, v), {}), "gradients are asked for"),
    "full precision": (
        lambda q, k, v: ((q, k, v), {"low_precision_attention": False}),
        "the model asks for full precision here",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_calls_go_to_the_host_with_every_argument(case):
    change, reason = REFUSED[case]
    args, kwargs = change(*qkv())
    seen = []

    def func(*args, **kwargs):
        seen.append((args, kwargs))
        return "host"

    probe = Probe()
    with torch.enable_grad():
        assert probe(func, *args, 3, _inside_attn_wrapper=True, **kwargs) == "host"
    ((got, named),) = seen
    assert all(a is b for a, b in zip(got, (*args, 3), strict=True))
    assert named == kwargs | {"transformer_options": probe.options, "_inside_attn_wrapper": True}
    assert not probe.taken and len(probe.noted) == 1 and reason in probe.noted[0]


def test_cross_attention_is_no_problem_worth_telling():
    probe = Probe()
    q, k, _ = qkv()
    assert probe(lambda *a, **kw: "host", q, k[:, :77], k[:, :77], 3) == "host"
    assert not probe.noted and not probe.taken


def test_occurrences_of_a_block_are_layers_of_their_own():
    probe = Probe()
    for _ in range(2):
        probe(host, *qkv(), 3)
    assert [layer for layer, *_ in probe.taken] == ["double.3.0", "double.3.1"]


def test_outside_of_a_run_everything_goes_to_the_host():
    override = harness.part("override").Override(lambda func, *a, **kw: ("previous", func))
    assert override(host, *qkv(), 3, transformer_options={"grid_sizes": GRID}) == ("previous", host)
    assert override(host, *qkv(), 3) == ("previous", host)


# -- without the native library --------------------------------------------------------------------

WITHOUT_NATIVE = """
    import asyncio, json, sys
    sys.path.insert(0, sys.argv[1])
    import harness, torch
    model = harness.tiny_wan()
    dense = harness.sample(model)
    nodes = harness.part("nodes")
    found = asyncio.run(asyncio.run(harness.plugin().comfy_entrypoint()).get_node_list())
    inputs = dict(profile="mine", density=0.3, precision="int4", mask="static", tail=True,
                  start_percent=0.0, end_percent=1.0, observe_steps=1, save_as="")
    out = nodes.PAROAttention.execute(model=model, **inputs)
    calibrated = nodes.PAROCalibrate.execute(
        model=model, name="../x", queries=1, every_n_steps=1, exact=False)
    images = torch.zeros(1, 8, 8, 3)
    compared = nodes.PAROCompare.execute(images_a=images, images_b=images)
    print("RESULT" + json.dumps({
        "nodes": [node.define_schema().node_id for node in found],
        "same model": out.result[0] is model and calibrated.result[0] is model,
        "equal": torch.equal(harness.sample(out.result[0]), dense),
        "valid": nodes.PAROAttention.validate_inputs(**inputs),
        "shown": [str(x.ui.as_dict()) for x in (out, calibrated, compared)],
    }))
"""


def test_without_the_native_library_nodes_register_run_dense_and_say_what_to_install(tmp_path):
    package = tmp_path / "paroattention"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('no binary for this Python')")
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(WITHOUT_NATIVE))
    done = subprocess.run(
        [sys.executable, str(script), str(harness.REPOSITORY / "tests" / "comfy")],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    result = harness.json.loads(done.stdout.split("RESULT")[1])
    assert result["nodes"] == ["PAROAttention", "PAROCalibrate", "PAROCompare", "PAROInspect"]
    assert result["same model"] and result["equal"] and result["valid"] is True
    for shown in result["shown"]:
        assert "no binary for this Python" in shown and "pip install paroattention==" in shown
    assert "pip install paroattention==" in done.stderr


def test_a_library_of_another_version_is_refused():
    native = harness.part("native")
    assert native.plugin_version() == native.paro.__version__
    assert not native._problem(native.plugin_version())
    problem = native._problem("0.0.9")
    assert "0.0.9" in problem and native.plugin_version() in problem and "pip install" in problem


COMMANDS = {
    r"D:\Comfy UI\python_embeded\python.exe": r"python_embeded\python.exe -m pip install",
    r"C:\Users\me\c\.venv\Scripts\python.exe":
        r"%USERPROFILE%\c\.venv\Scripts\python.exe -m pip install",
    r"C:\Users\me\my c\python.exe": r'"%USERPROFILE%\my c\python.exe" -m pip install',
    r"E:\my c\python.exe": r'"E:\my c\python.exe" -m pip install',
    "/home/me/my c/bin/python": r"~/my\ c/bin/python -m pip install",
    "/opt/venv/bin/python3": "/opt/venv/bin/python3 -m pip install",
}  # fmt: skip


@pytest.mark.parametrize("python", COMMANDS)
def test_the_command_that_installs_is_this_pythons_and_does_not_name_the_user(python):
    home = r"C:\Users\me" if "\\" in python else "/home/me"
    pip = harness.part("native").pip
    assert pip(python, home, has_pip=True) == COMMANDS[python]
    told = COMMANDS[python].removesuffix(" -m pip install")
    assert pip(python, home, has_pip=False) == f"uv pip install --python {told}"


@pytest.mark.parametrize(
    ("system", "machine", "version", "told"),
    [
        ("linux", "x86_64", (3, 14), "pip install paroattention=="),
        ("win32", "AMD64", (3, 13), "pip install paroattention=="),
        ("win32", "AMD64", (3, 14), "There is no wheel for Python 3.14"),
        ("darwin", "arm64", (3, 12), "There is no wheel for Python 3.12"),
    ],
)
def test_what_to_install_is_known_for_each_system(monkeypatch, system, machine, version, told):
    native = harness.part("native")
    monkeypatch.setattr(native.sys, "platform", system)
    monkeypatch.setattr(native.platform, "machine", lambda: machine)
    monkeypatch.setattr(native.sys, "version_info", (*version, 0))
    assert told in native.how_to_install()
    assert ("pip install ." in native.how_to_install()) == ("no wheel" in told)


def test_a_library_that_is_not_there_is_told_apart_from_one_that_does_not_load():
    native = harness.part("native")
    absent = ModuleNotFoundError("No module named 'paroattention'", name="paroattention")
    assert "is not installed. Run `" in native._failed(absent)
    assert "does not load (OSError: broken)" in native._failed(OSError("broken"))
    old = ImportError("paroattention needs torch 2.9 or newer, and this is 2.7", name="torch")
    assert native._failed(old) == (
        "PAROAttention does not run here: paroattention needs torch 2.9 or newer, and this is 2.7."
        " Until then everything runs dense."
    )
