"""Processes that stay, one a rank: each runs the same function at the same time."""

from __future__ import annotations

import contextlib
import multiprocessing
import traceback
from datetime import timedelta

import torch
import torch.distributed as dist

# A rank that hangs must not hang the tests.
LIMIT = 60


def _serve(rank: int, size: int, port: int, pipe) -> None:
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, size, False, timedelta(seconds=LIMIT))
    timeout = timedelta(seconds=LIMIT)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timeout)
    pipe.send("ready")
    while True:
        try:
            work, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((work(rank, size, *arguments), None))
        except Exception as error:
            pipe.send((None, (type(error).__name__, str(error), traceback.format_exc())))


class Failed(Exception):
    """What the ranks raised: (type, message, traceback) by rank, None where one returned."""

    def __init__(self, errors: list):
        super().__init__("\n".join(error[2] for error in errors if error))
        self.errors = errors

    def message(self, rank: int) -> str:
        return self.errors[rank][1] if self.errors[rank] else ""


class Team:
    """size processes on gloo. run(work, *arguments) -> what work(rank, size, *arguments) returned,
    by rank; work is a function of a module that they can import."""

    def __init__(self, size: int = 2):
        spawn = multiprocessing.get_context("spawn")
        self.store = dist.TCPStore("127.0.0.1", 0, size, True, wait_for_workers=False)
        self.pipes, self.processes = [], []
        for rank in range(size):
            ours, theirs = spawn.Pipe()
            given = rank, size, self.store.port, theirs
            process = spawn.Process(target=_serve, args=given, daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)
        for pipe in self.pipes:
            assert pipe.poll(LIMIT) and pipe.recv() == "ready"

    def run(self, work, *arguments) -> list:
        for pipe in self.pipes:
            pipe.send((work, arguments))
        found, errors = [], []
        for pipe in self.pipes:
            if not pipe.poll(LIMIT):
                raise AssertionError(f"a rank did not answer within {LIMIT} s")
            try:
                result, error = pipe.recv()
            except EOFError:
                result, error = None, ("Gone", "the process ended", "the process ended")
            found.append(result)
            errors.append(error)
        if any(errors):
            raise Failed(errors)
        return found

    def end(self) -> None:
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(5)
            with contextlib.suppress(Exception):
                process.kill()
