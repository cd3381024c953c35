"""The list of materials of a wheel: CycloneDX 1.6 as JSON, where PEP 770 wants it.

The same wheel gives the same list: it holds no time and no random number.
"""

from __future__ import annotations

import json
from urllib.parse import quote

from .components import Component


def bill(about: dict, tag: str, components: list[Component]) -> bytes:
    """about: pyproject.toml's [project]. tag: the wheel's."""
    name, version = about["name"], about["version"]
    own = f"pkg:pypi/{name}@{version}"
    parts = [_component(one) for one in sorted(components, key=lambda one: one.name)]
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": own,
                "name": name,
                "version": version,
                "purl": own,
                "licenses": [{"expression": about["license"]}],
                "properties": [{"name": "wheel:tag", "value": tag}],
            }
        },
        "components": parts,
        "dependencies": [{"ref": own, "dependsOn": [one["bom-ref"] for one in parts]}],
    }
    return (json.dumps(document, indent=1) + "\n").encode()


def _component(one: Component) -> dict:
    return {
        "type": "library",
        "bom-ref": one.text[0],
        "name": one.name,
        "version": one.version,
        "description": one.what,
        "licenses": [{"expression": one.license}],
        "purl": f"{one.url}@{quote(one.version)}",
        "properties": [{"name": "wheel:licence", "value": f"licenses/{one.text[0]}"}],
    }
