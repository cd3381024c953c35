"""What the registry holds against a plugin: none of it is in ours, and each of it would be seen."""

import pytest

from tools import registry
from tools.registry import file_rules, python_rules, script_rules
from tools.wheels import archive


@pytest.fixture(scope="module")
def published() -> dict[str, bytes]:
    return {name: (archive.REPO / name).read_bytes() for name in archive.files()}


def test_nothing_of_it_is_published(published):
    assert registry.faults(published) == []


def test_what_is_published_is_what_the_scanner_reads(published):
    kinds = {name.rpartition(".")[2] for name in published}
    assert {"py", "js", "json", "md", "jpg"} <= kinds
    assert sum(map(len, published.values())) < file_rules.MOST_BYTES
    assert set(file_rules.PICTURES) <= set(published)


def test_the_library_takes_its_settings_as_arguments():
    """It reads no environment and starts no program, but for commands and benches. Ranks of one run
    speak to each other, where the host has set torch.distributed up."""
    speak = {"parallel/ranks.py", "parallel/ulysses.py"}
    package, told = archive.REPO / "native" / "python" / "paroattention", []
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package)
        if name.parts[0] not in ("bench", "cli"):
            found = python_rules.faults(path.read_text(encoding="utf-8"))
            told += [f"{name}:{line} {text}" for line, text in found
                     if not (name.as_posix() in speak and "torch.distributed" in text)]  # fmt: skip
    kinds = (python_rules.ENVIRONMENT, python_rules.PROGRAM, python_rules.NETWORK)
    assert [one for one in told if one.endswith(kinds)] == []


def python(code: str) -> list[str]:
    return [f"{line} {text}" for line, text in python_rules.faults(code)]


def script(code: str) -> list[str]:
    return [f"{line} {text}" for line, text in script_rules.faults(code)]


PYTHON = {
    # Programs.
    "import subprocess": "starts programs",
    "import subprocess as quiet": "starts programs",
    "from subprocess import Popen as P": "starts programs",
    "import os\nos.system('x')": "uses os.system, which starts programs",
    "import os as o\no.popen('x')": "uses os.popen",
    "from os import system": "imports os.system",
    "from os import execvp as go": "imports os.execvp",
    "import os\nos.execv('x', [])": "uses os.execv",
    "import os\nos.spawnlp(0, 'x')": "uses os.spawnlp",
    "import os\nos.posix_spawn('x', [], {})": "uses os.posix_spawn",
    "import os\nos.startfile('x')": "uses os.startfile",
    "import os\nrun = os\nagain = run\nagain.system('x')": "uses os.system",
    "import os\n(go := os).system('x')": "uses .system",
    "import os\n[os][0].system('x')": "uses .system",
    "def f(m):\n    return m.Popen('x')": "uses .Popen",
    "import os\ngetattr(os, 'system')('x')": "uses os.system",
    "import os\ngetattr(os, 'sys' + 'tem')('x')": "asks os by getattr",
    "import os\nvars(os)['system']('x')": "asks os by vars",
    "import os\nos.__dict__['system']('x')": "reaches for __dict__",
    "import asyncio\nasyncio.create_subprocess_shell('x')": "starts programs",
    "from asyncio import subprocess": "starts programs",
    "import multiprocessing": "starts programs",
    "import pty": "starts programs",
    "run('x', shell=True)": "gives `shell`",
    # Code that is not in the source.
    "eval('1')": "uses eval",
    "exec('1')": "uses exec",
    "compile('1', 'x', 'exec')": "uses compile",
    "run = eval": "uses eval",
    "[exec][0]('1')": "uses exec",
    "__import__('os')": "uses __import__",
    "__builtins__['eval']('1')": "uses __builtins__",
    "import builtins": "runs code that is not in the source",
    "f.__globals__['os']": "reaches for __globals__",
    "globals()['__builtins__']": "holds '__builtins__'",
    "().__class__.__base__.__subclasses__()": "reaches for __subclasses__",
    "import importlib\nimportlib.import_module('x')": "uses importlib.import_module",
    "from importlib import import_module": "imports importlib.import_module",
    "import importlib.util\nimportlib.util.spec_from_file_location('x', 'y')": "spec_from_file",
    "import pickle": "runs code",
    "import marshal": "runs code",
    "import runpy": "runs code",
    "import torch\ntorch.load('x')": "uses torch.load",
    "import yaml\nyaml.load('x')": "uses yaml.load",
    "import numpy as np\nnp.load('x', allow_pickle=True)": "gives `allow_pickle`",
    # The environment.
    "import os\nos.environ['X']": "uses os.environ, which reads or sets the environment",
    "import os\nos.environ.get('X')": "uses os.environ",
    "import os\nos.getenv('X')": "uses os.getenv",
    "import os\nos.environb": "uses os.environb",
    "import os\nos.putenv('X', 'y')": "uses os.putenv",
    "from os import environ as e": "imports os.environ",
    "from os import getenv": "imports os.getenv",
    "from os import *": "imports * from os",
    "import os\n(os if 1 else 0).environ": "uses .environ",
    "open('/proc/self/environ')": "holds '/proc/self/environ'",
    # The network.
    "import socket": "uses the network",
    "import urllib.request": "imports urllib.request",
    "from urllib import request": "imports urllib.request",
    "import urllib\nurllib.request.urlopen('x')": "uses urllib.request",
    "from urllib.request import urlopen": "imports urllib.request.urlopen",
    "import requests": "uses the network",
    "import http.client": "uses the network",
    "from http import client": "uses the network",
    "import httpx": "uses the network",
    "import aiohttp\naiohttp.ClientSession()": "uses aiohttp.ClientSession",
    "from aiohttp import ClientSession": "imports aiohttp.ClientSession",
    "from aiohttp import web, request": "imports aiohttp.request",
    "import asyncio\nasyncio.open_connection('x', 1)": "uses the network",
    "import torch\ntorch.hub.load('x', 'y')": "uses torch.hub",
    "import huggingface_hub": "uses the network",
    "import webbrowser": "starts programs",
    # Native libraries.
    "import ctypes": "loads a native library",
    "from ctypes import CDLL": "loads a native library",
    "import cffi": "loads a native library",
    "import torch\ntorch.ops.load_library('x')": "uses torch.ops.load_library",
    "from torch.utils import cpp_extension": "loads a native library",
    # Code from data.
    "import base64": "hides what it does",
    "from base64 import b64decode as d": "hides what it does",
    "import binascii": "hides what it does",
    "x.b64decode('y')": "uses .b64decode",
    f"x = '{'QUJD' * 60}'": "240 characters without a space",
    f"x = b'{'0' * 65}'": "65 bytes of data",
    f"x = {list(range(100))}": "100 bytes as numbers",
    "import sys\nsys.modules['os']": "uses sys.modules",
    # Others' packages, and installing them.
    "import pip": "installs packages",
    "import cv2": "imports cv2, which is no part of Python, ComfyUI or the library",
    "from einops import rearrange": "imports einops",
    "def f(:": "is no Python",
}


@pytest.mark.parametrize("code", PYTHON)
def test_python_that_is_refused(code):
    told = python(code)
    assert any(PYTHON[code] in one for one in told), told
    # With the line on which it stands, and among code that is right.
    moved = python(f"import re\n\n{code}\n")
    assert [one.partition(" ")[2] for one in moved] == [one.partition(" ")[2] for one in told] or (
        "is no Python" in moved[0]
    )
    assert int(moved[-1].split()[0]) == int(told[-1].split()[0]) + 2


PYTHON_THAT_IS_RIGHT = """
'''Of subprocess, os.environ and eval nothing is used: these are words.'''
import ast, os, re, json, platform, hashlib, importlib.util
import torch, numpy as np, yaml, folder_paths, comfy.utils
import paroattention as paro
from aiohttp import web
from http import HTTPStatus
from urllib.parse import quote
from re import compile
from server import PromptServer
from . import store, subprocess
from .native import paro
code, imp = 3, [0.5] * 100  # exec('x')
pattern = re.compile("eval(x)"), compile("os.system('x')")
model.eval()
name = platform.system()
found = importlib.util.find_spec("pip")
value = getattr(folder_paths, "x", None), getattr(value, name)
table = [1, 2, 3], yaml.safe_load("x"), os.path.join("a", "b"), os.stat("x")
text = "a long sentence of words that says what the user is to do " * 20
"""


def test_python_that_is_right():
    assert python(PYTHON_THAT_IS_RIGHT) == []


SCRIPTS = {
    "eval('x')": "uses eval, which runs text as code",
    "window.eval('x')": "uses eval",
    "(0, eval)('x')": "uses eval",
    "new Function('x')()": "uses Function",
    "Function('x')()": "uses Function",
    "(() => {}).constructor('x')()": "uses .constructor",
    "[]['constructor']": "uses 'constructor'",
    "setTimeout('x()', 1)": "gives setTimeout a text",
    "setTimeout(`x()`, 1)": "gives setTimeout a text",
    "window['ev' + 'al']('x')": "asks window[...] for a name",
    "globalThis[name]('x')": "asks globalThis[...] for a name",
    "\\u0065val('x')": "writes a name with \\",
    "const x = `${eval('x')}`": "uses eval",
    "const x = `a ${ {a: `b ${fetch(y)}`}.a } c`": "uses fetch",
    "fetch('/x')": "uses fetch, which may reach another host",
    "new XMLHttpRequest()": "uses XMLHttpRequest",
    "new WebSocket(x)": "uses WebSocket",
    "new EventSource(x)": "uses EventSource",
    "navigator.sendBeacon(x)": "uses sendBeacon",
    "new Worker(x)": "uses Worker",
    "api.fetchApi('https://evil.example/x')": "holds the address 'https://evil.example/x'",
    "link.href = '//evil.example'": "holds the address '//evil.example'",
    "link.href = 'javascript:x()'": "holds the address 'javascript:x()'",
    "style = `a{background:url(http://evil.example)}`": "holds the address 'http://evil.example",
    "import x from 'https://cdn.example/x.js'": "is neither the plugin's nor ComfyUI's",
    "import 'lodash'": "imports 'lodash', which is neither",
    "export * from '/other/x.js'": "is neither the plugin's nor ComfyUI's",
    "import { x } from '../../extensions/other/x.js'": "is neither the plugin's nor ComfyUI's",
    "await import('/other/x.js')": "is neither the plugin's nor ComfyUI's",
    "await import(name)": "imports what is not written out",
    "element.innerHTML = x": "uses innerHTML, which takes text as markup",
    "element['outerHTML'] = x": "uses outerHTML",
    "element.insertAdjacentHTML('x', y)": "uses insertAdjacentHTML",
    "document.write(x)": "uses .write",
    "document.createElement('script')": "names the element script",
    "document.createElement('embed')": "names the element embed",
    "document.createElement('iframe').srcdoc = x": "uses srcdoc",
    "iframe.src = 'https://evil.example'": "holds the address 'https://evil.example'",
    "atob(x)": "uses atob",
    "String.fromCharCode(1, 2)": "uses fromCharCode",
    "new WebAssembly.Module(x)": "uses WebAssembly",
    f"const x = '{'QUJD' * 60}'": "240 characters that nobody can read",
    r"const x = '\x41\x42\x43\x44\x41\x42\x43\x44'": "that nobody can read",
    "const x = a / b; /* ' */ eval(y) / 2": "uses eval",
    "const x = /'/.test(y), z = eval(w)": "uses eval",
    "const x = f(y) / 2; eval(z) // '": "uses eval",
    "const x = 'not closed": "is no script",
    "const x = `not closed": "is no script",
}


@pytest.mark.parametrize("code", SCRIPTS)
def test_scripts_that_are_refused(code):
    told = script(code)
    assert any(SCRIPTS[code] in one for one in told), told
    moved = script(f'const a = "words" // words\n\n{code}\n')
    assert any(SCRIPTS[code] in one for one in moved), moved
    assert "is no script" in told[0] or moved[0].startswith("3 ")


SCRIPT_THAT_IS_RIGHT = r"""
// eval(x), fetch("https://evil.example"), new Function("x")
import { app } from "../../scripts/app.js"
import { say } from './words.js' /* atob */
const words = { a: "eval is a word of this text", b: 'it`s' }
const list = Array.from([1, 2]), half = list[0] / 2 / 1
const pattern = /[/"'`]eval\(/giu, other = /=\/\/x/.test(`a ${list.map((x) => `b ${x}`)} c`)
class Panel { constructor(node) { this.node = node; setTimeout(() => this.go(), 0) } }
const evaluate = async () => { await api.fetchApi(`/paro/profiles/${encodeURIComponent(words.a)}`) }
document.createElement("dialog").textContent = words[list[0]] ?? window.paro.panels
"""


def test_a_script_that_is_right():
    assert script(SCRIPT_THAT_IS_RIGHT) == []


def test_tokens_of_a_script():
    code = "a = b / c; d = /e'\\/[/]/g\n`f${g({h: `i`})}j` // k\n'l' /* m\n*/ n"
    found = [(one.kind, one.text, one.line) for one in script_rules.tokens(code)]
    assert [(kind, text) for kind, text, _ in found if kind != "sign"] == [
        ("name", "a"), ("name", "b"), ("name", "c"), ("name", "d"), ("pattern", "/e'\\/[/]/g"),
        ("text", "f"), ("name", "g"), ("name", "h"), ("text", "i"), ("text", "j"), ("text", "l"),
        ("name", "n"),
    ]  # fmt: skip
    assert [text for _, text, line in found if line == 4] == ["n"]


WORDS = b"words\n"
FILES = {
    "a library": ("comfy_nodes/x.so", b"\x7fELF", "is of no kind that is published"),
    "a wheel": ("x.whl", b"PK", "is of no kind that is published"),
    "compiled Python": ("comfy_nodes/x.pyc", b"x", "is of no kind that is published"),
    "a page": ("comfy_nodes/web/x.html", WORDS, "is of no kind that is published"),
    "without an end": ("comfy_nodes/program", WORDS, "is of no kind that is published"),
    "a picture": (
        "example_workflows/other.jpg",
        b"\xff\xd8\xff",
        "is of no kind that is published",
    ),
    "another picture": ("example_workflows/PARO Flux.jpg", b"GIF89a", "is no JPEG picture"),
    "no text": ("comfy_nodes/x.py", b"x = '\xff'", "is no text in UTF-8"),
    "a zero": ("comfy_nodes/x.json", b'{"x": "\x00"}', "holds the invisible character U+0000"),
    "turned around": ("x.py", "x = 1  # \u202e".encode(), "holds the invisible character U+202E"),
    "packed Python": ("x.py", b"x = 1;" * 40, "x.py:1 has 240 characters, at most 200"),
    "a packed script": ("x.js", b"\n" + b"f();" * 60, "x.js:2 has 240 characters, at most 200"),
    "a packed text": ("x.json", b"[" + b"1," * 600 + b"1]", "has 1203 characters, at most 1000"),
    "packed by name": ("comfy_nodes/web/x.min.js", b"f()", "is packed"),
    "vendored": ("comfy_nodes/vendor/x.py", b"x = 1", "lies in vendor/"),
    "third party": ("third_party/x.py", b"x = 1", "lies in third_party/"),
    "node's": ("comfy_nodes/web/node_modules/x/x.js", b"f()", "lies in node_modules/"),
    "installed": ("x-1.0.dist-info/METADATA.txt", WORDS, "lies in x-1.0.dist-info/"),
    "a licence": ("comfy_nodes/LICENSE.txt", WORDS, "is the licence of another project"),
    "a notice": ("comfy_nodes/notice.txt", WORDS, "is the licence of another project"),
    "a banner": ("x.py", b"x = 1  # Copyright 2020 Others", "x.py:1 holds 'Copyright': code of"),
    "a script's": ("x.js", b"/*! @license MIT */", "x.js:1 holds '@license': code of another"),
    "elsewhere": ("requirements.txt", b"x @ https://evil.example/x.whl", "installs from elsewhere"),
    "an index": ("requirements.txt", b"--index-url x", "installs from elsewhere"),
    "Python": ("comfy_nodes/x.py", b"\nimport socket", "comfy_nodes/x.py:2 imports socket"),
    "a script": ("comfy_nodes/web/x.js", b"eval(x)", "comfy_nodes/web/x.js:1 uses eval"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_refused(case):
    name, content, words = FILES[case]
    (told,) = registry.faults({"README.md": b"words", name: content})
    assert told.startswith(name) and words in told


def test_all_together_are_not_too_large(monkeypatch):
    files = {f"{number}.md": b"words\n" * 400_000 for number in range(14)}
    (told,) = registry.faults(files)
    assert told == "all files together must have at most 30 MiB (got 32 MiB)"
    assert registry.faults(dict(list(files.items())[:13])) == []
