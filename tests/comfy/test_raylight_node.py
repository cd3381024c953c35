"""The node for Raylight, with a stand-in of Raylight's decorator: what workers are sent."""

import asyncio
import sys
import types

import harness
import pytest

pytestmark = pytest.mark.usefixtures("folders")


@pytest.fixture
def there(tmp_path, monkeypatch):
    """Raylight lies among ComfyUI's plugins."""
    import folder_paths

    package = tmp_path / "custom_nodes" / "raylight" / "src" / "raylight"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    known = folder_paths.get_folder_paths

    def paths(kind):
        return [str(tmp_path / "custom_nodes")] if kind == "custom_nodes" else known(kind)

    monkeypatch.setattr(folder_paths, "get_folder_paths", paths)


@pytest.fixture
def sent(monkeypatch):
    """What ray_patch was asked to run in the workers."""
    calls = []

    def ray_patch(function):
        def wrapper(self, actors, *arguments):
            calls.append((function, self, actors, arguments))
            return (actors,)

        return wrapper

    modules = ["raylight", "raylight.comfy_extra_dist"]
    for name in modules:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    last = types.ModuleType("raylight.comfy_extra_dist.ray_patch_decorator")
    last.ray_patch = ray_patch
    monkeypatch.setitem(sys.modules, last.__name__, last)
    return calls


def node_ids() -> list[str]:
    extension = asyncio.run(harness.plugin().comfy_entrypoint())
    return [one.define_schema().node_id for one in asyncio.run(extension.get_node_list())]


def run(**changes):
    given = {"ray_actors": "workers", "profile": "none", "density": 0.2, "precision": "int8"}
    given |= {"mask": "static", "tail": True, "observe_steps": 3, "save_as": "", "move_heads": True}
    return harness.run_node(harness.part("ray").PAROAttentionRaylight, **(given | changes))


def test_the_node_is_there_beside_raylight_alone(there):
    assert "PAROAttentionRaylight" in node_ids()


def test_without_raylight_there_is_none():
    assert "PAROAttentionRaylight" not in node_ids()


def test_workers_get_a_file_and_a_function_that_they_can_import(sent):
    from paroattention import raylight

    assert run(save_as="mine") == ("workers",)
    ((function, _, actors, (file,)),) = sent
    assert actors == "workers" and function is raylight.patch_worker
    assert function.__module__ == "paroattention.raylight"
    given = raylight.read(file)
    assert (given.settings.density, given.settings.observe_steps) == (0.2, 3)
    assert given.move_heads and given.save_as == "mine" and given.profile == "none"
    assert given.folders[0] == str(harness.part("folders").user_folders()[0])


def test_a_worker_patches_its_model_by_that_file(sent, monkeypatch, model):
    """A real patcher of ComfyUI; the registry is Raylight's part."""
    import torch.distributed as dist
    from comfy.patcher_extension import WrappersMP
    from paroattention import raylight

    made = {}

    class Registry:
        def register_inner_attention(self, name):
            return lambda processor: made.setdefault(name, processor)

        def create_inner_attention(self, name, **options):
            return made[name](**options)

        def set_inner_attention(self, patcher, processor):
            clone = patcher.clone()
            clone.model_options["transformer_options"]["raylight_inner_attention"] = processor
            return clone

    run()
    patched = raylight.apply(model, sent[0][3][0], registry=Registry(), group=dist)
    options = patched.model_options["transformer_options"]
    assert isinstance(options["raylight_inner_attention"], raylight.Processor)
    for kind in (WrappersMP.OUTER_SAMPLE, WrappersMP.DIFFUSION_MODEL):
        assert patched.wrappers[kind][raylight.KEY]
    assert "raylight_inner_attention" not in model.model_options.get("transformer_options", {})


def test_what_is_wrong_is_told_before_anything_is_sent(sent):
    from paroattention import Error

    for change, told in (
        ({"density": 7}, "density must be from 0.05 to 1"),
        ({"profile": "nobody"}, "nobody"),
        ({"save_as": "a/b"}, "save_as|name"),
    ):
        with pytest.raises(Error, match=told):
            run(**change)
    assert sent == []


def test_a_missing_raylight_is_told():
    from paroattention import Error

    with pytest.raises(Error, match="Raylight is not loaded"):
        run()
