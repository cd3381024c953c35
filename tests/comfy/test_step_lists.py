"""Every sampler of ComfyUI on every kind of sigma list: each model call belongs to the right step.

Lists rise where a picture is taken back to noise (FlipSigmas), stay where a step is repeated, and
turn where noise is added again on the way.
"""

import comfy.sample
import comfy.samplers
import harness
import pytest
import torch

pytestmark = [
    pytest.mark.usefixtures("folders"),
    # The samplers' own, of lists that they are not made for.
    pytest.mark.filterwarnings("ignore"),
]

GRID = (1, 4, 4)
LISTS = {
    "falling": [1.0, 0.9, 0.8, 0.65, 0.5, 0.3, 0.0],
    "rising": [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95],
    "repeated": [0.9, 0.8, 0.8, 0.8, 0.5, 0.5, 0.2, 0.0],
    "turning": [0.9, 0.6, 0.3, 0.6, 0.3, 0.6, 0.3, 0.0],
    "rising, then falling": [0.1, 0.4, 0.8, 0.9, 0.8, 0.4, 0.1, 0.0],
    "not to 0": [0.95, 0.8, 0.6, 0.4, 0.2],
}
# They cut the way from the first sigma to the last one into steps of their own.
OWN_STEPS = ("dpm_fast", "dpm_adaptive")


def sample(model, sigmas, sampler="euler", grid=GRID, **options):
    """What a SamplerCustom node does with a sigma list."""
    f, h, w = grid
    latent = torch.zeros(1, 16, f, 2 * h, 2 * w)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(3))
    sigmas = torch.tensor(sigmas) if isinstance(sigmas, list) else sigmas
    return comfy.sample.sample_custom(
        model,
        noise,
        1.0,
        comfy.samplers.sampler_object(sampler),
        sigmas,
        harness.conditioning(),
        harness.conditioning(seed=9),
        latent,
        disable_pbar=True,
        seed=5,
        **options,
    )


@pytest.fixture
def told(monkeypatch):
    """What happens, in order: ("call", step) of model calls, ("step", i) of the sampler's own."""
    import paroattention

    found = []
    enter, came = paroattention.steps.Steps.index, paroattention.steps.Steps.came_to

    def index(self, sigma):
        found.append(("call", enter(self, sigma)))
        return found[-1][1]

    def came_to(self, step):
        found.append(("step", step))
        return came(self, step)

    monkeypatch.setattr(paroattention.steps.Steps, "index", index)
    monkeypatch.setattr(paroattention.steps.Steps, "came_to", came_to)
    return found


@pytest.fixture(scope="module")
def quick():
    """A model whose calls cost nothing: what is tested are the samplers' own calls."""
    model = harness.tiny_wan(dim=128, layers=1)
    model.model.diffusion_model.forward = lambda x, *args, **kwargs: 0.3 * x
    return model


def runs_alone(model, sigmas, sampler) -> bool:
    try:
        sample(model, sigmas, sampler)
    except Exception:
        return False
    return True


@pytest.mark.parametrize("name", LISTS)
def test_model_calls_belong_to_the_samplers_own_steps(quick, told, name):
    sigmas, ran = LISTS[name], []
    wrapped = harness.paro(quick, profile="none")
    for sampler in comfy.samplers.KSampler.SAMPLERS:
        told.clear()
        try:
            sample(wrapped, sigmas, sampler)
        except Exception:
            # Not made for such lists: no fault of ours.
            assert not runs_alone(quick, sigmas, sampler)
            continue
        ran.append(sampler)
        calls = [step for what, step in told if what == "call"]
        if not calls and sampler in OWN_STEPS:
            continue  # first and last sigma are the same
        assert calls[0] == 0 and set(calls) <= set(range(len(sigmas) - 1)), sampler
        if sampler in OWN_STEPS:
            # One way from the first sigma to the last; dpm_adaptive tries again where it was.
            assert sampler == "dpm_adaptive" or "ing" not in name or calls == sorted(calls)
            continue
        reached = 0
        for place, (what, step) in enumerate(told):
            if what == "call":
                # Some look ahead, and meet the next step before they have come to it.
                assert step in (reached, reached + 1), (sampler, told)
            else:
                reached = step
                assert told[place - 1] == ("call", step), (sampler, told)
        assert reached == len(sigmas) - 2, sampler
    assert {"euler", "heun", "dpm_2", "lms", "lcm", "ddim"} <= set(ran)


FLIPPED = LISTS["rising"]


@pytest.mark.parametrize(
    ("percents", "paths"),
    [((0.0, 1.0), "ssssssss"), ((0.5, 1.0), "ddddssss"), ((0.0, 0.5), "ssssdddd")],
    ids=str,
)
def test_unsampling_is_sparse_in_its_own_share_of_the_steps(model, folders, percents, paths):
    sample(harness.calibrate(model), FLIPPED, grid=(3, 6, 8))
    start, end = percents
    node = harness.paro(model, profile="mine", start_percent=start, end_percent=end)
    sample(node, FLIPPED, grid=(3, 6, 8))
    assert folders.steps() == paths and folders.last()["paths"]["sparse"] == 2 * paths.count("s")
    # The higher sigmas are the second half of such a run.
    assert folders.load("mine").timestep_groups == [
        (pytest.approx(0.95), 0.5),
        (0.5, pytest.approx(0.2)),
    ]


@pytest.mark.parametrize("name", LISTS)
def test_every_list_watches_plans_and_saves(model, folders, name):
    steps = len(LISTS[name]) - 1
    sample(harness.paro(model, observe_steps=2, save_as="p"), LISTS[name], grid=(3, 6, 8))
    assert folders.steps() == "oo" + "s" * (steps - 2) and not folders.last()["reasons"]
    groups = folders.load("p").timestep_groups
    assert len(groups) <= 2 and all(high > low >= 0 for high, low in groups)
    sample(harness.paro(model, profile="p"), LISTS[name], grid=(3, 6, 8))
    assert folders.steps() == "s" * steps


def test_sigmas_of_ComfyUIs_own_flip_node(model, folders):
    """Taken back to noise and sampled again: each half is a run of its own."""
    from comfy_extras.nodes_custom_sampler import FlipSigmas, SplitSigmas

    down = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 8)
    node = harness.paro(model, profile="none", observe_steps=2)
    for halves in SplitSigmas.execute(sigmas=FlipSigmas.execute(sigmas=down)[0], step=4).result:
        sample(node, halves, grid=(3, 6, 8))
        assert folders.steps() == "ooss"
    # From the middle upwards and down again, in one list.
    sample(node, torch.cat([down[4:6].flip(0), down[5:]]), grid=(3, 6, 8))
    assert folders.steps() == "oosss"
