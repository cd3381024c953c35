"""`mask dynamic` of the node in the real ComfyUI: the bundled model, random ones with text and odd
sizes, and a server."""

import json

import comfy_server
import families
import family_cases
import harness
import pytest
import torch
from test_panel import states
from test_server import last_run

pytestmark = pytest.mark.usefixtures("folders")

ODD = ["wan t2v odd", "hunyuan video 1.5 odd, byt5, image", "flux odd", "cogvideox 1.5 odd"]


def dynamic(model, **changes):
    return harness.paro(model, mask="dynamic", **changes)


def distance(out, want):
    return float((out - want).norm() / want.norm())


# -- the bundled model -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundled(comfy):
    """(model, conditioning, an empty latent of 352 tokens) by ComfyUI's own nodes."""
    (loaded,) = comfy.call("UNETLoader", unet_name="paro-wan-tiny.safetensors",
                           weight_dtype="default")  # fmt: skip
    (loaded,) = comfy.call("ModelSamplingSD3", model=loaded, shift=3.0)
    (text,) = comfy.call("PARODemoPrompt", prompt="astronaut right cup")
    (empty,) = comfy.call("EmptyHunyuanLatentVideo", width=176, height=128, length=13, batch_size=1)
    return loaded, text, empty


def run_bundled(bundled, wrap=lambda model: model, steps=6):
    import nodes

    loaded, text, empty = bundled
    given = wrap(loaded), 11, steps, 1.0, "euler", "simple", text, text, empty
    return nodes.common_ksampler(*given)[0]["samples"]


def test_the_bundled_model_runs_on_masks_of_its_own(bundled, folders, monkeypatch):
    """Nearer to dense than the same number of blocks for the keys of other tokens."""
    import paroattention

    dense = run_bundled(bundled)
    out = run_bundled(bundled, lambda m: dynamic(m, observe_steps=2, precision="bf16"))
    end = folders.last()
    assert folders.steps() == "oossss" and not end["reasons"]
    assert (end["mask"], end["retained"]) == ("dynamic", None)
    assert 0.6 < end["measured_retained"] < 1 and 0 < end["measured_error"] < 0.2
    # Of 6 x 6 blocks one a row: the heads that look everywhere are dense, and the others pay.
    flagged = sum(
        head.density == 1 for layer in folders.load(folders.names()[-1][:-5]).layers
        for head in layer.heads
    )  # fmt: skip
    dense_heads = min(flagged, 2)  # what density .3 affords
    assert end["density"] == pytest.approx((dense_heads + (16 - dense_heads) / 6) / 16)
    find = paroattention.kernels.cuda_masks.find_masks
    monkeypatch.setattr(
        paroattention.kernels.cuda_masks,
        "find_masks",
        lambda q, k, *given: find(q, k.roll(150, 2), *given),
    )
    wrong = run_bundled(
        bundled, lambda m: dynamic(m, profile="none", observe_steps=2, precision="bf16")
    )
    assert distance(out, dense) < 0.5 * distance(wrong, dense)


def test_a_profile_serves_either_mask(bundled, folders):
    """Orders are saved by a dynamic run as by a static one, and found by both."""
    first = run_bundled(bundled, lambda m: dynamic(m, observe_steps=2))
    run_bundled(bundled, lambda m: harness.paro(m))
    assert folders.steps() == "ssssss" and folders.last()["profile"].endswith("exact grid")
    assert folders.last()["retained"] > 0.5
    again = run_bundled(bundled, lambda m: dynamic(m))
    assert folders.steps() == "ssssss" and folders.last()["retained"] is None
    assert not torch.equal(first, again)


def test_two_runs_of_one_seed_are_equal_and_leave_the_model_alone(bundled):
    dense = run_bundled(bundled, steps=3)
    runs = [run_bundled(bundled, lambda m: dynamic(m, profile="none"), 3) for _ in range(2)]
    assert torch.equal(*runs) and not torch.equal(runs[0], dense)
    assert torch.equal(run_bundled(bundled, steps=3), dense)


# -- other sizes, batches, text --------------------------------------------------------------------


@pytest.fixture
def rows_apart(monkeypatch):
    """How far each call of ours is from dense: rows of text and references, rows of the grid."""
    import paroattention

    plain, seen = paroattention.Session.attention_of, []

    def attention(self, forward, layer, held, layout, dense, **options):
        q, k, v = held.tensors
        out, ours = plain(self, forward, layer, held, layout, dense, **options)
        if ours:
            scale = options.get("sm_scale")
            want = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scale)
            error = (out - want).abs().amax(dim=(0, 1, 3)) / want.abs().max()
            end = layout.prefix + layout.grid_size
            apart = torch.cat([error[: layout.prefix], error[end:]])
            seen.append((apart, error[layout.prefix : end]))
        return out, ours

    monkeypatch.setattr(paroattention.Session, "attention_of", attention)
    return seen


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ODD)
def test_text_and_references_see_every_key(name, rows_apart, folders):
    case = family_cases.CASES[name]
    built = families.build(case)
    want = families.sample(case, built)
    out = families.sample(case, dynamic(built, density=1.0, precision="bf16"))
    assert harness.close(out, want)
    rows_apart.clear()
    out = families.sample(case, dynamic(built, precision="bf16", tail=False, profile="none"))
    assert torch.isfinite(out).all() and len(rows_apart) == 2 * len(case.layers)
    assert all(len(apart) == case.prefix + case.suffix for apart, _ in rows_apart)
    assert all((apart < 1e-4).all() for apart, _ in rows_apart)
    assert any((grid > 1e-3).any() for _, grid in rows_apart)
    assert folders.last()["mask"] == "dynamic"


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "two calls"])
def test_a_batch_of_two_with_guidance(model, folders, together):
    """Conditionings of two lengths come in calls of their own, with masks of their own."""
    negative = harness.conditioning(4 if together else 6, seed=9)
    out = harness.sample(dynamic(model), batch=2, cfg=3.0, negative=negative)
    assert out.shape[0] == 2 and torch.isfinite(out).all()
    assert folders.steps() == "osssss"
    calls = 1 if together else 2
    assert folders.last()["paths"] == {"observe": 2 * calls, "sparse": 10 * calls}


# -- with the other widgets ------------------------------------------------------------------------


def test_a_target_error_takes_the_densitys_place(model, folders):
    densities = []
    for target in (0.3, 0.02):
        harness.sample(dynamic(model, profile="none", target_error=target))
        assert folders.last()["budgets"] and not folders.last()["reasons"]
        densities.append(folders.last()["density"])
    assert densities[0] < densities[1]


def test_percents(model, folders):
    harness.sample(dynamic(model, save_as="p"))
    harness.sample(dynamic(model, profile="p", start_percent=0.5, end_percent=0.9))
    assert folders.steps() == "dddsss"


def test_the_panel_tells_what_was_measured(model, sent, folders):
    harness.sample(dynamic(model, observe_steps=2, save_as="seen"))
    seen = states(sent)
    # In the first sparse step nothing has been measured yet, and nothing is made up.
    assert seen[2]["sparse"] is False and seen[3]["sparse"]
    kept = [state["retained"] for state in seen]
    assert kept[2] is None and kept[3] is not None and seen[-1]["renewed"] == 0
    end = folders.last()
    assert (kept[-1], seen[-1]["density"]) == (end["measured_retained"], end["density"])


def test_no_memory_for_masks_ends_in_the_dense_result(model, folders, monkeypatch):
    import paroattention

    def full(*given):
        raise torch.OutOfMemoryError("no memory for scratch and output")

    dense = harness.sample(model)
    monkeypatch.setattr(paroattention.kernels.cuda_masks, "find_masks", full)
    assert torch.equal(harness.sample(dynamic(model)), dense)
    end = folders.last()
    assert end["paths"] == {"observe": 2, "fallback": 2, "dense": 8}
    assert end["reasons"]["OutOfMemoryError: no memory for scratch and output"] == 2


def test_a_server_runs_it_and_the_log_is_json(comfy_live):
    built = comfy_server.small(
        comfy_server.workflow("demo_sparse", mask="dynamic", profile="none", observe_steps=1)
    )
    comfy_live.run(built)
    lines = last_run(comfy_live)
    assert json.dumps(lines, allow_nan=False)
    assert lines[-1]["mask"] == "dynamic" and lines[-1]["paths"] == {"observe": 8, "sparse": 16}
