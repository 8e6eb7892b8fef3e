"""A function run by several processes at once, which have a group of torch.distributed."""

import multiprocessing
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

CONTEXT = multiprocessing.get_context("forkserver")  # torch is imported once, by the server
CONTEXT.set_forkserver_preload(["train.trainer"])
LIMIT = 120  # seconds, after which something hangs


def in_processes(count: int, function: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """What ``function(*arguments)`` returns in each of ``count`` processes that leave their results in ``folder``."""
    folder.mkdir()
    started = [
        CONTEXT.Process(target=_run, args=(place, count, function, folder, arguments), daemon=True)
        for place in range(count)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(LIMIT)
    codes = [process.exitcode for process in started]
    assert codes == [0] * count, codes
    return [torch.load(folder / f"{place}.pt", weights_only=False) for place in range(count)]


def _run(place: int, count: int, function: Callable[..., Any], folder: Path, arguments: tuple[Any, ...]) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=place,
        world_size=count,
        timeout=timedelta(seconds=LIMIT),
    )
    torch.save(function(*arguments), folder / f"{place}.pt")
    dist.destroy_process_group()
