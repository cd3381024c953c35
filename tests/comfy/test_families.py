"""Every family's real model, tiny and random: where its tokens lie, what a sparse run leaves alone.

Against its own dense output at density 1; the rows of text and references at any density.
"""

import inspect

import families
import harness
import pytest
import torch
from family_cases import CASES

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.usefixtures("folders"),
]


@pytest.fixture(scope="module")
def models():
    """Each built once; a class that this version of ComfyUI lacks skips its tests."""
    built = {}

    def get(name):
        import comfy.model_base
        import comfy.supported_models

        config, needs = CASES[name].config[0], CASES[name].needs
        if needs not in inspect.getsource(comfy.model_base):
            pytest.skip(f"this ComfyUI knows no {needs}")
        if not hasattr(comfy.supported_models, config):
            pytest.skip(f"this ComfyUI has no {config}")
        if name not in built:
            built[name] = families.build(CASES[name])
        return built[name]

    return get


@pytest.fixture
def calls(monkeypatch):
    """What the session is asked: (layer, layout) of each call, and how far rows are from dense."""
    import paroattention

    plain = paroattention.Session.attention_of
    seen = []

    def attention(self, forward, layer, held, layout, dense, **options):
        q, k, v = held.tensors
        out, ours = plain(self, forward, layer, held, layout, dense, **options)
        rows = None
        if ours:
            scale = options.get("sm_scale")
            want = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scale)
            error = (out - want).abs().amax(dim=(0, 1, 3)) / want.abs().max()
            end = layout.prefix + layout.grid_size
            rows = torch.cat([error[: layout.prefix], error[end:]]), error[layout.prefix : end]
        seen.append((layer, layout, rows))
        return out, ours

    monkeypatch.setattr(paroattention.Session, "attention_of", attention)
    return seen


@pytest.mark.parametrize("name", CASES)
def test_layout_and_density_1(models, calls, folders, name):
    """The grid is found in every block; all blocks computed unquantised is the dense result."""
    case, model = CASES[name], models(name)
    want = families.sample(case, model)
    out = families.sample(case, harness.paro(model, density=1.0, precision="bf16"))
    end = folders.last()
    assert not end["reasons"] and end["paths"] == {
        "observe": len(case.layers), "sparse": 2 * len(case.layers)
    }  # fmt: skip
    assert [layer for layer, *_ in calls] == [*case.layers] * 3
    for _, layout, _ in calls:
        assert (layout.grid, layout.prefix, layout.suffix) == (case.grid, case.prefix, case.suffix)
    assert torch.isfinite(want).all() and want.abs().max() > 0
    assert (out - want).abs().max() <= 2e-3 * want.abs().max()


@pytest.mark.parametrize("name", CASES)
def test_text_and_reference_rows_are_exact(models, calls, name):
    """Their queries see every key, whatever the density; the grid's do not."""
    families.sample(CASES[name], harness.paro(models(name), precision="bf16", tail=False))
    ran = [rows for *_, rows in calls if rows is not None]
    assert len(ran) == 2 * len(CASES[name].layers)
    for apart, _ in ran:
        assert len(apart) == CASES[name].prefix + CASES[name].suffix and (apart < 1e-4).all()
    # A layer's heads may all be among those that stay dense, but not every layer's.
    assert any((grid > 1e-3).any() for _, grid in ran)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.batch])
def test_int8_at_30_percent_in_a_batch_with_guidance(models, folders, name):
    """Batch 2, conditionings of two lengths: finite everywhere, and nothing fell back."""
    case = CASES[name]
    negative = families.conditioning(case, seed=5, tokens=case.text[0] - 2)
    options = {"cfg": 3.0, "batch": 2, "negative": negative}
    out = families.sample(case, harness.paro(models(name)), **options)
    assert out.shape[0] == 2 and torch.isfinite(out).all()
    assert set(folders.last()["paths"]) == {"observe", "sparse"}
    # Random heads look everywhere: the meter may find some too far off.
    assert all("output error above" in reason for reason in folders.last()["reasons"])


def test_minimax_at_30_percent(models, folders):
    case = CASES["minimax h3"]
    out = families.sample(case, harness.paro(models("minimax h3")))
    assert torch.isfinite(out).all() and set(folders.last()["paths"]) == {"observe", "sparse"}
