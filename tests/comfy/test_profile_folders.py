"""Profiles in several folders, as extra_model_paths.yaml and other plugins add them."""

import http.client
import json
import os
import shutil

import comfy_server
import harness
import pytest
from comfy_server import small, workflow


@pytest.fixture(scope="module")
def good(model, tmp_path_factory):
    """A valid profile's bytes."""
    with pytest.MonkeyPatch.context() as patch:
        folders = harness.Folders(patch, tmp_path_factory.mktemp("good"))
        harness.sample(harness.calibrate(model, name="good"), steps=2)
        return (folders.profiles / "good.json").read_bytes()


class Configured:
    """ComfyUI's folders after it has read a configuration, before any plugin of ours."""

    def __init__(self, monkeypatch, base):
        harness.plugin()
        import folder_paths

        self.paths, self.patch, self.base = folder_paths, monkeypatch, base
        self.ours = base / "models" / "paro"
        monkeypatch.setattr(folder_paths, "models_dir", str(base / "models"))
        monkeypatch.setattr(folder_paths, "output_directory", str(base / "output"))
        known = dict(folder_paths.folder_names_and_paths)
        known.pop("paro", None)
        known["loras"] = ([str(base / "models" / "loras")], set())
        monkeypatch.setattr(folder_paths, "folder_names_and_paths", known)
        self.config = base / "extra.yaml"

    def read(self, text: str) -> None:
        """The same text says where loras are: those are what we compare with."""
        from comfy.cli_args import args
        from utils.extra_config import load_extra_path_config

        self.config.write_text(text, encoding="utf-8")
        self.patch.setattr(args, "extra_model_paths_config", [[str(self.config)]])
        load_extra_path_config(str(self.config))

    def folders(self) -> list[str]:
        found = harness.part("store").user_folders()
        return [str(path.relative_to(self.base)) for path in found]

    def put(self, folder: str, name: str, content: bytes):
        path = self.base / folder / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def files(self) -> list[str]:
        found = self.base.rglob("*.json")
        return sorted(str(path.relative_to(self.base)) for path in found)


@pytest.fixture
def configured(monkeypatch, tmp_path):
    return Configured(monkeypatch, tmp_path)


CONFIGS = {
    "nothing": "",
    "one folder": "a:\n  base_path: .\n  {kind}: a/{kind}\n",
    "one default": "a:\n  base_path: .\n  is_default: true\n  {kind}: a/{kind}\n",
    "two lines": "a:\n  base_path: .\n  {kind}: |\n    a/{kind}\n    b/{kind}\n",
    "two default lines": "a:\n  is_default: true\n  base_path: .\n  {kind}: |\n    a/{kind}\n"
    "    b/{kind}\n",
    "a default after another": "a:\n  {kind}: a/{kind}\nb:\n  is_default: true\n"
    "  {kind}: b/{kind}\n",
    "another after a default": "a:\n  is_default: true\n  {kind}: a/{kind}\nb:\n"
    "  {kind}: b/{kind}\n",
    "the usual one named": "a:\n  {kind}: |\n    a/{kind}\n    models/{kind}\n",
    "the usual one as default": "a:\n  {kind}: a/{kind}\nb:\n  is_default: true\n"
    "  {kind}: models/{kind}\n",
    "not there": "a:\n  {kind}: gone/{kind}\n",
    "an empty section": "a:\nb:\n  {kind}: b/{kind}\n",
}


@pytest.mark.parametrize("case", CONFIGS)
def test_folders_stand_as_those_of_loras_do(configured, case):
    text = CONFIGS[case].replace("  {kind}", "  loras").replace("{kind}", "loras")
    ours = CONFIGS[case].replace("  {kind}", "  paro").replace("{kind}", "paro")
    if text:
        configured.read(text)
        configured.read(ours)
    loras = configured.paths.get_folder_paths("loras")
    expected = [str(one).replace("loras", "paro") for one in loras]
    assert [str(configured.base / one) for one in configured.folders()] == expected
    assert "models/paro" in configured.folders()


def test_folders_that_a_plugin_adds_later(configured):
    assert configured.folders() == ["models/paro"]
    configured.paths.add_model_folder_path("paro", str(configured.base / "late"))
    assert configured.folders() == ["models/paro", "late"]
    configured.paths.add_model_folder_path("paro", str(configured.base / "first"), is_default=True)
    assert configured.folders() == ["first", "models/paro", "late"]


def test_a_folder_that_is_named_twice_counts_once(configured):
    configured.read("a:\n  paro: |\n    a/paro\n    a/../a/paro\n")
    (configured.base / "link").symlink_to(configured.base / "a" / "paro")
    configured.paths.add_model_folder_path("paro", str(configured.base / "link"))
    assert configured.folders() == ["models/paro", "a/paro"]


@pytest.fixture
def two(configured, good):
    """models/paro, then a/paro and b/paro, with a profile in each."""
    configured.read("a:\n  paro: |\n    a/paro\n    b/paro\n")
    for folder, name in (("models/paro", "mine"), ("a/paro", "shared"), ("b/paro", "rest")):
        configured.put(folder, name, good)
    return configured


def test_all_folders_are_read_and_the_first_hit_wins(two, good):
    store = harness.part("store")
    shipped = [path.stem for path in store.SHIPPED.glob("*.json") if path.stem != "schema"]
    assert store.names() == ["mine", "shared", "rest", *sorted(shipped)]
    assert store.find("rest") == two.base / "b/paro/rest.json"
    two.put("b/paro", "shared", good)
    assert store.find("shared") == two.base / "a/paro/shared.json"
    assert store.names().count("shared") == 1
    options = harness.part("nodes")._profile_options()
    assert options[:5] == ["auto", "none", "mine", "shared", "rest"]


def test_a_run_finds_and_names_profiles_of_every_folder(model, two, good):
    for path in two.base.rglob("*.json"):
        path.unlink()
    two.put("b/paro", "rest", good)
    for profile in ("auto", "rest"):
        harness.sample(harness.paro(model, profile=profile), steps=2)
    assert two.files() == ["b/paro/rest.json"]


def test_new_profiles_go_to_the_default_folder(model, two):
    harness.sample(harness.paro(model, profile="none", save_as="new"), steps=2)
    assert (two.ours / "new.json").is_file() and (two.ours / "new.capture.safetensors").is_file()


def test_a_profile_is_extended_and_deleted_where_it_lies(model, two):
    store, folder = harness.part("store"), two.base / "b" / "paro"
    before = two.files()
    harness.sample(harness.calibrate(model, name="rest"), steps=2)
    assert two.files() == before and store.load("rest").calibration.prompts == 2
    assert store.capture("rest") == folder / "rest.capture.safetensors"
    assert store.delete("rest") and list(folder.iterdir()) == []
    assert store.find("rest") is None and not store.delete("rest")


def test_deleting_uncovers_the_next_one(two, good):
    store = harness.part("store")
    two.put("b/paro", "shared", good)
    assert store.delete("shared") and store.find("shared") == two.base / "b/paro/shared.json"


def test_a_folder_that_cannot_be_written_to_keeps_its_profile(model, two, monkeypatch):
    """Models on a server, for one: the new profile comes first, the old one stays."""
    store, error = harness.part("store"), harness.part("native").paro.Error
    shared = two.base / "a/paro/shared.json"
    before, write = shared.read_bytes(), store._write

    def read_only(path, profile):
        if path.parent == shared.parent:
            raise error(f"{path} must be in a folder that can be written to (got Read-only)")
        return write(path, profile)

    monkeypatch.setattr(store, "_write", read_only)
    harness.sample(harness.calibrate(model, name="shared"), steps=2)
    assert shared.read_bytes() == before and store.find("shared") == two.ours / "shared.json"
    assert store.load("shared").calibration.prompts == 2
    assert store.capture("shared") == two.ours / "shared.capture.safetensors"


def test_files_that_cannot_be_looked_at_are_no_profiles(two, monkeypatch):
    """A folder that may be listed and not entered, or a network drive that has gone."""
    store, stat = harness.part("store"), os.stat

    def refused(path, *args, **kwargs):
        if str(path).endswith("rest.json"):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", refused)
    assert {"mine", "shared"} <= set(store.names()) and "rest" not in store.names()
    assert "rest" not in harness.part("nodes")._profile_options()


def test_shipped_profiles_come_last(two, good, monkeypatch):
    store = harness.part("store")
    shipped = two.base / "plugin" / "profiles"
    monkeypatch.setattr(store, "SHIPPED", shipped)
    two.put("plugin/profiles", "given", good)
    two.put("plugin/profiles", "rest", good)
    two.put("plugin/profiles", "schema", b"{}")
    assert store.names() == ["mine", "shared", "rest", "given"] and store.not_offered() == []
    assert store.find("rest").parent.parent.name == "b" and not store.delete("given")
    # Saving over a shipped one leaves it, and yours counts from then on.
    profile = store.load("given")
    assert store.save("given", profile) == two.ours / "given.json"
    assert store.names() == ["given", "mine", "shared", "rest"]
    assert (shipped / "given.json").read_bytes() == good


@pytest.mark.slow
def test_a_server_with_extra_model_paths(comfyui_dir, tmp_path, good):
    """The whole way: ComfyUI's own reading of the file, the routes, the list of the node."""
    base = comfy_server.make_base(tmp_path / "base")
    one, other = tmp_path / "net drive" / "paro", tmp_path / "more"
    for folder, name in ((one, "shared (1)"), (other, "配置")):
        folder.mkdir(parents=True)
        (folder / f"{name}.json").write_bytes(good)
    config = tmp_path / "extra.yaml"
    config.write_text(
        json.dumps({"net": {"base_path": str(one.parent), "paro": f"paro\n{other}\n/not/there\n"}})
    )
    with comfy_server.ComfyServer(
        comfyui_dir, base, tmp_path / "log", ("--extra-model-paths-config", str(config))
    ) as server:
        listed = server.get("/object_info/PAROAttention")["PAROAttention"]["input"]["required"]
        names = listed["profile"][1]["options"]
        assert {"shared (1)", "配置"} <= set(names)
        graph = small(workflow("demo_sparse", profile="none", observe_steps=1, save_as="new"))
        server.run(graph)
        assert (base / "models" / "paro" / "new.json").is_file()
        link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        link.request("DELETE", "/paro/profiles/%E9%85%8D%E7%BD%AE")
        assert link.getresponse().status == 200 and list(other.iterdir()) == []
        link.close()
    shutil.rmtree(base)
