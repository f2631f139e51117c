"""What single ranks do; in a module of its own, so that a spawned process can import it."""

from __future__ import annotations

import datetime
import os
import tempfile
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

__all__ = ["run"]


def _enter(rank: int, work: Callable[..., Any], size: int, folder: str, args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    wait = datetime.timedelta(seconds=20)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size, timeout=wait)
    try:
        torch.save(work(rank, size, *args), f"{folder}/{rank}.pt")
        dist.barrier()  # nobody leaves while another is still at work
    finally:
        dist.destroy_process_group()


def run(work: Callable[..., Any], size: int, *args: Any) -> list[Any]:
    """What ``work(rank, size, *args)`` returns on each of ``size`` gloo ranks."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_enter, (work, size, folder, args), nprocs=size)
        return [torch.load(f"{folder}/{rank}.pt", weights_only=False) for rank in range(size)]
