"""A function run by several processes at once."""

import multiprocessing
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

CONTEXT = multiprocessing.get_context("forkserver")  # what is imported by all, the server imports once
CONTEXT.set_forkserver_preload(["train.training", "sklearn.datasets"])
LIMIT = 250  # seconds, after which something hangs


def exit_codes(count: int, function: Callable[..., None], *arguments: Any) -> list[int | None]:
    """How ``count`` processes end, each of which calls ``function`` with its place among them and ``arguments``."""
    started = [CONTEXT.Process(target=_alone, args=(function, place, arguments), daemon=True) for place in range(count)]
    for process in started:
        process.start()
    for process in started:
        process.join(LIMIT)
    return [process.exitcode for process in started]


def in_a_group(count: int, function: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """What ``function(*arguments)`` returns in each of ``count`` processes that have a group and leave their results in ``folder``."""
    folder.mkdir()
    assert exit_codes(count, _grouped, count, function, folder, arguments) == [0] * count
    return [torch.load(folder / f"{place}.pt", weights_only=False) for place in range(count)]


def _alone(function: Callable[..., None], place: int, arguments: tuple[Any, ...]) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)
    function(place, *arguments)


def _grouped(place: int, count: int, function: Callable[..., Any], folder: Path, arguments: tuple[Any, ...]) -> None:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=place,
        world_size=count,
        timeout=timedelta(seconds=LIMIT),
    )
    torch.save(function(*arguments), folder / f"{place}.pt")
    dist.destroy_process_group()
