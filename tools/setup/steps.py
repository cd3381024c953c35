"""Progress lines, logged commands, stamped stages, the lock, and errors a reader can act on."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from .paths import REPO

QUIET_SECONDS = 2.0  # shorter steps print nothing
HEARTBEAT_SECONDS = 20.0  # between lines where the terminal cannot rewrite one


class SetupError(Exception):
    """Something a person has to know about: what failed, what to do, and where the log is."""

    def __init__(self, what: str, todo: str = "", log: Path | None = None, exit_code: int = 1):
        super().__init__(what)
        self.what, self.todo, self.log, self.exit_code = what, todo, log, exit_code

    def __str__(self) -> str:
        lines = [self.what.rstrip(".") + "."]
        if self.log is not None:
            tail = log_tail(self.log)
            if tail:
                lines += ["", "From the log:", *("    " + line for line in tail), ""]
            lines.append(f"Full log: {self.log}")
        if self.todo:
            lines.append(f"What to do: {self.todo.rstrip('.')}.")
        return "\n".join(lines)


def log_tail(log: Path, lines: int = 12) -> list[str]:
    """The end of a log, after the first errors in it: builds go on long after their first one."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    run = text[text.rfind("\n$ ") + 1 :]  # the last command in the file
    kept = [line[:300] for line in run.splitlines() if line.strip()]
    errors = [line for line in kept[:-lines] if re.search(r"\berror:|CMake Error", line)]
    return errors[:6] + (["..."] if errors else []) + kept[-lines:]


def say(text: str) -> None:
    print(text, flush=True)


class Progress:
    """A line with elapsed seconds for every step longer than two seconds.

    On a terminal the line is rewritten every second; elsewhere it is repeated now and then.
    `detail` may be changed while the step runs.
    """

    def __init__(self, name: str):
        self.name, self.detail = name, ""
        self.seconds = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._shown = False
        self._rewrite = sys.stdout.isatty()

    def __enter__(self) -> Progress:
        self._start = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind, value, trace) -> None:
        self._done.set()
        self._thread.join()
        self.seconds = time.monotonic() - self._start
        if self._shown or self.seconds > QUIET_SECONDS:
            self._print("failed after" if kind else "done in", last=True)

    def _print(self, word: str, last: bool = False) -> None:
        seconds = time.monotonic() - self._start
        detail = f" ({self.detail})" if self.detail and not last else ""
        line = f"  {self.name}: {word} {seconds:.0f} s{detail}"
        if not self._rewrite:
            say(line)
            return
        width = shutil.get_terminal_size().columns - 1
        sys.stdout.write("\r" + line[:width].ljust(width) + ("\n" if last else ""))
        sys.stdout.flush()

    def _watch(self) -> None:
        wait = QUIET_SECONDS
        while not self._done.wait(wait):
            self._shown = True
            self._print("running")
            wait = 1.0 if self._rewrite else HEARTBEAT_SECONDS


def run_logged(
    name: str,
    command: list[str],
    log: Path,
    todo: str,
    *,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    timeout: float | None = None,
) -> None:
    """Runs a command with a progress line, all its output in the log. Throws SetupError."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as out, Progress(name):
        out.write(f"\n$ {' '.join(command)}\n".encode())
        out.flush()
        try:
            child = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        except OSError as error:
            raise SetupError(f"{name} failed: {command[0]}: {error.strerror}", todo) from error
        try:
            code = child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise SetupError(f"{name} did not end within {timeout:.0f} s", todo, log) from None
        finally:
            end_process(child)
    if code != 0:
        raise SetupError(f"{name} failed ({describe_exit(code)})", todo, log)


def describe_exit(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"


def end_process(child: subprocess.Popen, patience: float = 10.0) -> None:
    """Asks a child that still runs to end, then makes it; and its children, if it leads a group."""
    if child.poll() is not None:
        return
    send(child, signal.SIGTERM)
    try:
        child.wait(patience)
    except subprocess.TimeoutExpired:
        send(child, signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
        child.wait()


def send(child: subprocess.Popen, which: signal.Signals) -> None:
    # pip leaves its compilers running when it is ended alone: they would build beside the next run.
    if os.name != "nt" and os.getpgid(child.pid) == child.pid:
        os.killpg(child.pid, which)
    else:
        child.send_signal(which)


def commit() -> str:
    """The commit of the sources, where git tells."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def hash_text(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def hash_tree(root: Path, paths: Iterable[str]) -> str:
    """One hash over the files at or below these paths, by name and content."""
    digest = hashlib.sha256()
    for name in sorted(paths):
        top = root / name
        files = [top] if top.is_file() else sorted(p for p in top.rglob("*") if p.is_file())
        for file in files:
            if "__pycache__" in file.parts:
                continue
            digest.update(f"{file.relative_to(root).as_posix()}\0{hash_file(file)}\n".encode())
    return digest.hexdigest()


def stage(stamp: Path, inputs: str, build: Callable[[], None]) -> bool:
    """Builds unless the stamp says that it was built from the same inputs. True when it built.

    The stamp goes away before the work and comes back after it, so half a stage is redone.
    """
    try:
        if json.loads(stamp.read_text(encoding="utf-8")) == {"inputs": inputs}:
            return False
    except (OSError, ValueError):
        pass
    stamp.unlink(missing_ok=True)
    build()
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(json.dumps({"inputs": inputs}), encoding="utf-8")
    return True


class Lock:
    """One run.py at a time in one cache. The system lets go of it when the process ends."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> Lock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a+", encoding="utf-8")
        try:
            self._take()
        except OSError:
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            raise SetupError(
                f"Another run.py (process {owner}) is at work in {self.path.parent}",
                "wait until it has ended, or set PARO_CACHE to another folder",
            ) from None
        self._file.seek(0)
        self._file.truncate()
        self._file.write(str(os.getpid()))
        self._file.flush()
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def _take(self) -> None:
        if os.name == "nt":
            import msvcrt

            # Beyond the text, which stays readable for the one that is refused.
            self._file.seek(1 << 20)
            msvcrt.locking(self._file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
