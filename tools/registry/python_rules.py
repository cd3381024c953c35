"""What Python code of the plugin must not do, found in its syntax tree.

Names are followed through imports, `as`, and plain assignments of modules. What asks a module for a
name that is not written out is refused, since it may be any name.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator

PROGRAM, NETWORK = "starts programs", "uses the network"
ENVIRONMENT, LIBRARY = "reads or sets the environment", "loads a native library"
CODE, HIDDEN = "runs code that is not in the source", "hides what it does"
INSTALL = "installs packages"

# By the beginning of a dotted name; a `*` at the end stands for the rest of a word.
_WORDS = {
    PROGRAM: "subprocess _posixsubprocess pty multiprocessing posix nt pexpect os.system os.popen* "
    "os.exec* os.spawn* os.posix_spawn* os.fork* os.startfile asyncio.subprocess "
    "asyncio.create_subprocess* concurrent.futures.ProcessPoolExecutor webbrowser "
    "torch.multiprocessing",
    NETWORK: "socket _socket ssl socketserver ftplib smtplib poplib imaplib nntplib telnetlib "
    "xmlrpc http urllib.request urllib3 requests httpx httpcore websocket websockets paramiko "
    "pycurl huggingface_hub torch.hub torch.distributed asyncio.open_* asyncio.start_* aiohttp",
    ENVIRONMENT: "os.environ* os.getenv* os.putenv os.unsetenv",
    LIBRARY: "ctypes _ctypes cffi numpy.ctypeslib torch.ops.load_library "
    "torch.classes.load_library torch.utils.cpp_extension",
    CODE: "builtins runpy code codeop imp marshal pickle "
    "_pickle shelve dill cloudpickle importlib.import_module importlib.__import__ "
    "importlib.machinery importlib.util.module_from_spec importlib.util.spec_from_* torch.load "
    "yaml.load yaml.load_all yaml.unsafe_load* yaml.full_load* types.FunctionType types.CodeType",
    HIDDEN: "base64 binascii codecs zipimport sys.modules sys.meta_path sys.path sys._getframe",
    INSTALL: "pip ensurepip venv setuptools distutils pkg_resources",
}
_FORBIDDEN = [(word, reason) for reason, words in _WORDS.items() for word in words.split()]
_BUILTINS = {"eval", "exec", "compile", "__import__", "__builtins__", "breakpoint"}
# Of what cannot be followed to a module (`[os][0].system`): names that mean little else.
_OF_ANY = dict.fromkeys(
    ("system", "popen", "Popen", "execv", "execve", "startfile", "fork"), PROGRAM
)
_OF_ANY |= dict.fromkeys(("environ", "getenv", "putenv"), ENVIRONMENT)
_OF_ANY |= dict.fromkeys(("urlopen", "ClientSession", "HTTPSConnection"), NETWORK)
_OF_ANY |= dict.fromkeys(("import_module", "b64decode", "fromhex"), HIDDEN)
# Of what is forbidden as a whole: the server's own side of aiohttp, and a module without code.
_ALLOWED = ("aiohttp.web", "http.HTTPStatus")
# `import aiohttp` alone is judged where the name is used.
_JUDGED_LATER = {name.partition(".")[0] for name in _ALLOWED}
# What ComfyUI has, and the library. gguf comes with a node that reads such files.
_KNOWN = {"torch", "numpy", "PIL", "yaml", "aiohttp", "gguf", "paroattention"}
# Another plugin, asked for by a node that is there only beside it.
_KNOWN |= {"raylight"}
_KNOWN |= {"comfy", "comfy_api", "comfy_execution", "folder_paths", "server", "nodes"}
# Ways to the interpreter's inside.
_INSIDE = {"__builtins__", "__globals__", "__subclasses__", "__import__", "__loader__"}
_PACKED = re.compile(rb"[\w+/=-]{200,}")
_MOST_BYTES, _MOST_NUMBERS = 64, 64


def faults(source: str) -> Iterator[tuple[int, str]]:
    """(line, what is wrong), in no order."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        yield getattr(error, "lineno", None) or 1, f"is no Python ({error})"
        return
    names = _Names(tree)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((node.lineno, text) for text in _of_import(node))
        elif isinstance(node, (ast.Name, ast.Attribute)):
            yield from ((node.lineno, text) for text in _of_name(node, names))
        elif isinstance(node, ast.Call):
            yield from ((node.lineno, text) for text in _of_call(node, names))
        elif isinstance(node, ast.Constant):
            yield from ((node.lineno, text) for text in _of_constant(node.value))
        elif isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            numbers = [one for one in node.elts if _is_byte(one)]
            if len(numbers) > _MOST_NUMBERS:
                yield node.lineno, f"holds {len(numbers)} bytes as numbers, which {HIDDEN}"


class _Names:
    """What the names of a file stand for, as dotted names from the top of a module."""

    def __init__(self, tree: ast.AST):
        self._of: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for one in node.names:
                    top = one.name.partition(".")[0]
                    self._of[one.asname or top] = one.name if one.asname else top
            elif isinstance(node, ast.ImportFrom) and not node.level:
                for one in node.names:
                    self._of[one.asname or one.name] = f"{node.module}.{one.name}"
        # A module may be given another name, and that one another.
        for _ in range(4):
            for node in ast.walk(tree):
                for target, value in _given(node):
                    found = self.dotted(value)
                    if found and isinstance(target, ast.Name):
                        self._of.setdefault(target.id, found)

    def dotted(self, node: ast.AST) -> str:
        """Of an expression that begins with an imported name; else ""."""
        if isinstance(node, ast.Name):
            return self._of.get(node.id, "")
        if isinstance(node, ast.Attribute):
            before = self.dotted(node.value)
            return f"{before}.{node.attr}" if before else ""
        if isinstance(node, ast.Call) and _is_builtin(node.func, "getattr") and len(node.args) > 1:
            before, name = self.dotted(node.args[0]), _text(node.args[1])
            return f"{before}.{name}" if before and name is not None else ""
        return ""


def _given(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """(target, value) pairs of an assignment of any kind."""
    if isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
        yield node.target, node.value
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            yield target, node.value
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                yield from zip(target.elts, node.value.elts, strict=False)


def _reason(dotted: str) -> str:
    """Why a dotted name is refused, or ""."""
    if any(dotted == one or dotted.startswith(f"{one}.") for one in _ALLOWED):
        return ""
    for word, reason in _FORBIDDEN:
        stem = word.rstrip("*")
        if dotted == stem or dotted.startswith(f"{stem}."):
            return reason
        if word != stem and dotted.startswith(stem):
            return reason
    return ""


def _of_import(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        wanted = [one.name for one in node.names]
    elif node.level:
        wanted = []
    else:
        wanted = [f"{node.module}.{one.name}" for one in node.names]
    if any(one.name == "*" for one in node.names):
        yield f"imports * from {ast.unparse(node).split()[1]}, which {HIDDEN}"
    for dotted in wanted:
        plain = isinstance(node, ast.Import) and dotted in _JUDGED_LATER
        if not plain and (reason := _reason(dotted)):
            yield f"imports {dotted}, which {reason}"
        top = dotted.partition(".")[0]
        if top not in _KNOWN and top not in sys.stdlib_module_names and not _reason(top):
            yield f"imports {top}, which is no part of Python, ComfyUI or the library"


def _of_name(node: ast.Name | ast.Attribute, names: _Names) -> Iterator[str]:
    dotted = names.dotted(node)
    if isinstance(node, ast.Name):
        # What is imported under such a name is told where it is imported.
        if node.id in _BUILTINS and not dotted:
            yield f"uses {node.id}, which {CODE}"
        return
    before = names.dotted(node.value)
    if node.attr in _INSIDE or (node.attr == "__dict__" and before):
        yield f"reaches for {node.attr}, which {HIDDEN}"
    elif not dotted and (reason := _OF_ANY.get(node.attr)):
        yield f"uses .{node.attr}, which {reason}"
    # Only the name itself: `os.environ.get` would be told twice.
    elif (
        dotted and (before in _JUDGED_LATER or not _reason(before)) and (reason := _reason(dotted))
    ):
        yield f"uses {dotted}, which {reason}"


def _of_call(node: ast.Call, names: _Names) -> Iterator[str]:
    for asked in ("getattr", "vars", "dir", "setattr"):
        if not (_is_builtin(node.func, asked) and node.args and names.dotted(node.args[0])):
            continue
        name = _text(node.args[1]) if len(node.args) > 1 else None
        if asked != "getattr" or name is None:
            yield f"asks {names.dotted(node.args[0])} by {asked}, which {HIDDEN}"
        elif reason := _reason(names.dotted(node)):
            yield f"uses {names.dotted(node)}, which {reason}"
    if any(one.arg == "shell" for one in node.keywords):
        yield f"gives `shell`, which {PROGRAM}"
    if any(one.arg == "allow_pickle" for one in node.keywords):
        yield f"gives `allow_pickle`, which {CODE}"


def _of_constant(value) -> Iterator[str]:
    if isinstance(value, str) and value in _INSIDE:
        yield f"holds '{value}', which {HIDDEN}"
    if isinstance(value, str) and value.startswith("/proc/"):
        yield f"holds '{value[:40]}', which {ENVIRONMENT}"
    data = value.encode("utf-8", "replace") if isinstance(value, str) else value
    if isinstance(value, bytes) and len(value) > _MOST_BYTES:
        yield f"holds {len(value)} bytes of data, which {HIDDEN}"
    elif isinstance(data, bytes) and _PACKED.search(data):
        yield f"holds a text of {len(value)} characters without a space, which {HIDDEN}"


def _is_builtin(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _text(node: ast.AST) -> str | None:
    """A text as it is written out; None for what is put together."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _is_byte(node: ast.AST) -> bool:
    if not isinstance(node, ast.Constant) or isinstance(node.value, bool):
        return False
    return isinstance(node.value, int) and 0 <= node.value < 256
