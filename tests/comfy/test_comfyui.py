"""The real ComfyUI is there, and takes our plugin as a user would install it."""

import comfy_server


def test_comfyui_is_there(comfyui_dir):
    assert (comfyui_dir / "main.py").is_file()


def test_plugin_and_demo_nodes_register(comfy):
    expected = {"PAROAttention", "PAROCalibrate", "PAROCompare", "PARODemoPrompt", "PARODemoDecode"}
    assert expected <= set(comfy.NODES)


def test_workflows_use_known_nodes_and_inputs(comfy):
    for path in sorted((comfy_server.REPO / "tools" / "demo" / "workflows").glob("*.json")):
        for node in comfy_server.workflow(path.stem).values():
            found = comfy.NODES[node["class_type"]].INPUT_TYPES()
            required = set(found.get("required", {}))
            known = required | set(found.get("optional", {}))
            assert required <= set(node["inputs"]) <= known, f"{path.name}: {node['class_type']}"
