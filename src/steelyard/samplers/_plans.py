"""An epoch of rows by their weights: three ways to draw it, on the host or on an accelerator."""

from __future__ import annotations

from typing import Any

from steelyard.samplers import _random as rng
from steelyard.samplers._device import DeviceTable
from steelyard.samplers._draws import Rows
from steelyard.samplers._random import Stream
from steelyard.samplers._table import Table

__all__ = ["Independent", "Quotas", "Race"]

AnyTable = Table | DeviceTable


class Independent:
    """Each draw by itself, with replacement."""

    def __init__(self, table: AnyTable, seed: int, epoch: int) -> None:
        self.table, self.seed, self.epoch = table, seed, epoch

    def draw(self, first: int, step: int, count: int) -> Rows:
        return self.table.independent(self.seed, self.epoch, first, step, count)

    extra = draw


class Quotas:
    """Exact counts; what ranks need on top comes from beyond all quotas."""

    def __init__(self, table: AnyTable, seed: int, epoch: int, total: int) -> None:
        self.systematic = table.systematic(seed, epoch, total)
        self.extra = Independent(table, seed, epoch).draw

    def draw(self, first: int, step: int, count: int) -> Rows:
        return self.systematic.draw(first, step, count)


class Race:
    """The winners, in an order of chance; the few that ranks need on top are those that came in next."""

    def __init__(self, table: AnyTable, seed: int, epoch: int, wanted: int, drawn: int) -> None:
        self.table, self.wanted, self.key = table, wanted, rng.number(seed, epoch, Stream.PERMUTATION, 0)
        rows: Any = table.race(seed, epoch, wanted)
        others: Rows = rows[:0]
        if drawn > wanted:
            more: Any = table.race(seed, epoch, drawn)
            others = table.without(more, rows)
        self.rows, self.others = rows, others

    def draw(self, first: int, step: int, count: int) -> Rows:
        return self.rows[self.table.permuted(first, step, count, self.wanted, self.key)]

    def extra(self, first: int, step: int, count: int) -> Rows:
        begin = first - self.wanted
        return self.others[begin : begin + step * count : step]
