"""Draws from weights, with every number of rows around a block, and the rows that NumPy draws beside them."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable

import numpy as np

from steelyard.ops import cpu
from steelyard.samplers import _random as rng
from steelyard.samplers._table import Table

KINDS = ("even", "skewed", "zeros", "tiny", "huge")


def weights_of(kind: str, n: int, dtype: str, seed: int) -> np.ndarray:
    """An array of its own: what lies around it belongs to the sanitizer."""
    w = np.random.default_rng(seed).random(n)
    if kind == "skewed":
        w = w**40
    elif kind == "zeros":
        w *= np.random.default_rng(seed + 1).random(n) < 0.2
    elif kind == "tiny":
        w *= 1e-318 if dtype == "float64" else 1e-44
    elif kind == "huge":
        w *= 1.7e308 if dtype == "float64" else 3e38
    w = w.astype(dtype)
    if not w.any():
        w[-1] = 1
    return w


def race_against_a_writer() -> int:
    """Races over weights that another thread changes: they may be refused, and write nowhere else."""
    w = np.random.default_rng(0).random(200_000)
    table, stop = Table("sanitize", w), threading.Event()

    def scribble() -> None:
        generator = np.random.default_rng(1)
        while not stop.is_set():
            w[:] = generator.random(len(w)) ** generator.integers(0, 30)

    writer = threading.Thread(target=scribble)
    writer.start()
    for seed in range(40):
        with contextlib.suppress(RuntimeError):
            table.race(seed, 0, 70_000)
        with contextlib.suppress(RuntimeError):
            table.systematic(seed, 0, 10_000).draw(0, 1, 10_000)
        table.independent(seed, 0, 0, 1, 10_000)
    stop.set()
    writer.join()
    return 120


def draw_everything(picks: random.Random, note: Callable[[str], None]) -> int:
    """Calls made. Raises: AssertionError: other rows than NumPy's."""
    calls = race_against_a_writer()
    for n in (*range(1, 41), *range(120, 136), 4099, *range(65530, 65541), 131073, 300001):
        for dtype in ("float64", "float32"):
            kind, seed = picks.choice(KINDS), picks.randrange(2**32)
            w = weights_of(kind, n, dtype, seed)
            note(f"draws from {n} weights, {kind}, {dtype}")

            def rows(table: Table, n: int = n, seed: int = seed) -> list[np.ndarray]:
                total = max(n * 2 // 3, 1)
                found = [table.independent(seed, 7, first, step, n) for first, step in ((0, 1), (5, 3))]
                found += [table.systematic(seed, 7, total).draw(first, 1, total - first) for first in (0, total - 1)]
                found += [table.race(seed, 7, wanted) for wanted in {1, max(table.positive // 2, 1), table.positive}]
                sizes, keys = np.arange(1, n + 1), np.arange(n, dtype=np.uint64)
                return [*found, rng.permute(np.arange(n), n, seed), rng.permute(sizes - 1, sizes, keys)]

            ours = rows(Table("sanitize", w))
            with cpu.using("reference"):
                theirs = rows(Table("sanitize", w))
            assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)), (n, kind, dtype)
            calls += len(ours)
    return calls
