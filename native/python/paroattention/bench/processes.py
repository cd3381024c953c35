"""Benches of several processes: they are started, their rows are collected, an error ends them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import torch
import torch.distributed as dist

from .. import _core


def _serve(rank: int, count: int, port: int, seconds: float, cuda: bool, rows, work, results):
    try:
        limit = timedelta(seconds=seconds)
        store = dist.TCPStore("127.0.0.1", port, count, False, limit)
        if cuda:
            torch.cuda.set_device(rank)
        options = {"store": store, "rank": rank, "world_size": count, "timeout": limit}
        dist.init_process_group("nccl" if cuda else "gloo", **options)
        for row in rows(work, rank, count):
            if rank == 0:
                results.put(row)
        results.put(None)
    except BaseException as error:
        results.put(f"rank {rank}: {type(error).__name__}: {error}")
        raise


def require_gpus(count: int) -> None:
    """Raises Error where there are fewer."""
    there = torch.cuda.device_count()
    if there < count:
        raise _core.Error(f"--gpus must be at most the {there} GPUs here (got {count})")


def rows_of(
    count: int, rows: Callable[..., Iterator[dict]], work, *, cuda: bool, seconds: float, line
) -> list[dict]:
    """What rank 0's rows(work, rank, count) yields, where `count` processes run it at once, each
    with torch.distributed set up (NCCL with cuda, else gloo). line(row): printed as it comes.

    rows and work must be of a module that can be imported. Raises Error where a process fails.
    """
    spawn = torch.multiprocessing.get_context("spawn")
    results = spawn.Queue()
    store = dist.TCPStore("127.0.0.1", 0, count, True, wait_for_workers=False)
    given = count, store.port, seconds, cuda, rows, work, results
    processes = [spawn.Process(target=_serve, args=(rank, *given)) for rank in range(count)]
    for process in processes:
        process.start()
    found, failed, left = [], [], count
    while left:
        told = results.get(timeout=2 * seconds)
        if isinstance(told, dict):
            found.append(told)
            print(line(told), flush=True)
            continue
        left -= 1
        failed += [told] if told else []
    for process in processes:
        process.join()
    if failed:
        raise _core.Error(f"all ranks must come to an end (got {'; '.join(failed)})")
    return found
