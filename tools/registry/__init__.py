"""What ComfyUI's registry holds against a plugin, looked for in what would be published.

The registry's own scanner is not public in all parts. These rules are stricter than what is known
of it. Python is judged by its syntax tree, scripts of the page by their tokens, and other files by
what they are.
"""

from __future__ import annotations

from collections.abc import Mapping

from . import file_rules, python_rules, script_rules


def faults(files: Mapping[str, bytes]) -> list[str]:
    """`NAME:LINE what is wrong` of every fault. files: contents by their paths in the archive."""
    found = file_rules.of_all(files)
    for name, content in sorted(files.items()):
        wrong = file_rules.of_one(name, content)
        found += wrong
        # What is no text cannot be read as code.
        if wrong or not name.endswith((".py", ".js")):
            continue
        rules = python_rules if name.endswith(".py") else script_rules
        found += [f"{name}:{line} {text}" for line, text in rules.faults(content.decode("utf-8"))]
    return found
