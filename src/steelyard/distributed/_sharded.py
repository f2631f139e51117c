r"""The softmax formula where each rank holds some of the classes.

For a row with shifted logits ``a``, class weights w and (smoothed) target q, on the classes of this rank and then, by
two collectives over numbers of rows, on all:

    m = max a      T = Σ e^(a − m)      M = Σ A_c      P = Σ A_c·(m − a_c)      W = Σ w_c·q_c, q before smoothing
    loss = v·(M·log T + P)                      A_c = w_c·q_c, or q_c where the row is weighted as its own class
    loss = v·W·(M·log T + P)                    in that case
    ∂loss/∂a_k = v·[W]·(M·e^(a_k − m)/T − A_k)  no rank needs another's logits for it

Every term is of one sign for weights ≥ 0, so nothing cancels. Sums are in the accumulation dtype. A rank sums up
relative to its own maximum, in one pass over its logits, and moves its sums to the common maximum afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from steelyard import ops
from steelyard.distributed import _group
from steelyard.functional._reduce import ordered_row_sum

__all__ = ["Rows", "Sums", "Terms", "blocks", "combine", "gradient", "joined", "local_sums", "losses"]

_ELEMENTS = {"cpu": 1 << 20}
"""Logits that are widened at a time: in a cache on a CPU; elsewhere enough to keep the device busy."""


class Terms(NamedTuple):
    """What the formula takes beside logits ``(N, C_local, d1, ...)``: checked, cast, and this rank's share only."""

    target: Tensor  # ids among all classes, int64, of the rows; or probabilities in the shape of the logits
    weight: Tensor | None  # (C_local,)
    row_weight: Tensor | None  # of the rows
    offset: Tensor | None  # (C_local,), or in the shape of the logits
    smoothing: float
    by_target: bool
    ignore_index: int
    start: int  # the id of the first class here
    classes: int  # on all ranks

    @property
    def soft(self) -> bool:
        """Whether targets are probabilities."""
        return self.target.is_floating_point()

    def rows(self, chosen: slice) -> Terms:
        """The terms of some rows."""
        row_weight = None if self.row_weight is None else self.row_weight[chosen]
        offset = self.offset if self.offset is None or self.offset.dim() == 1 else self.offset[chosen]
        return self._replace(target=self.target[chosen], row_weight=row_weight, offset=offset)

    def kept(self) -> Tensor | None:
        """Rows that are not ignored; None for probabilities, of which all are kept."""
        return None if self.soft else self.target != self.ignore_index

    def outside(self) -> Tensor | None:
        """Rows that are kept but whose label is no class; they come out as NaN."""
        if self.soft:
            return None
        return (self.target != self.ignore_index) & ((self.target < 0) | (self.target >= self.classes))

    def here(self, width: int) -> tuple[Tensor, Tensor]:
        """Rows whose class is on this rank, and where among its classes, 0 for the others."""
        y = self.target - self.start
        here = (y >= 0) & (y < width)
        return here, y.masked_fill(~here, 0)


class Sums(NamedTuple):
    """Of each row, over classes: m, T, P, and those of M and W that are not the same for all rows."""

    maximum: Tensor
    total: Tensor
    pull: Tensor
    mass: Tensor | None
    own: Tensor | None


class Rows(NamedTuple):
    """What is known of each row once the ranks have met: m, log T, P, M and W; None where that is 1."""

    maximum: Tensor
    log_total: Tensor
    pull: Tensor | None  # None once the loss is there: no gradient needs it
    mass: Tensor | None
    own: Tensor | None

    def some(self, chosen: slice) -> Rows:
        """Some rows."""
        maximum, log_total, *rest = (None if values is None else values[chosen] for values in self)
        assert maximum is not None
        assert log_total is not None
        return Rows(maximum, log_total, *rest)


def blocks(logits: Tensor) -> Iterator[slice]:
    """Some rows at a time, so that a copy of them in another dtype is small."""
    row = max(logits[:1].numel(), 1)
    size = max(_ELEMENTS.get(logits.device.type, 1 << 26) // row, 1)
    return (slice(start, start + size) for start in range(0, max(len(logits), 1), size))


def local_sums(logits: Tensor, terms: Terms) -> Sums:
    """The sums of this rank, P and T relative to its own maximum."""
    return joined([_sums_of(logits[rows], terms.rows(rows)) for rows in blocks(logits)])


def joined(parts: list[Sums]) -> Sums:
    """The sums of blocks of rows as those of all."""
    if len(parts) == 1:
        return parts[0]
    fields = (None if field[0] is None else torch.cat(field) for field in zip(*parts, strict=True))
    return Sums(*fields)  # type: ignore[arg-type]


def _sums_of(logits: Tensor, terms: Terms) -> Sums:
    width, wide = logits.shape[1], ops.accumulation_dtype(logits.dtype)
    a = shifted(logits, terms)
    maximum = a.amax(1) if width else a.new_full((len(a), *a.shape[2:]), -torch.inf)
    least = finite(maximum)
    below = a - least.unsqueeze(1)
    pull: Tensor
    mass: Tensor | None = None
    own: Tensor | None = None
    weight = None if terms.weight is None else ops.per_class(terms.weight, logits)
    if terms.soft:
        q = terms.target.to(wide)
        smoothed = q if terms.smoothing == 0.0 else q * (1.0 - terms.smoothing) + terms.smoothing / terms.classes
        share = smoothed if weight is None or terms.by_target else smoothed * weight
        # A share of nothing costs nothing, on a class that −inf rules out too: 0·∞ is 0 here.
        pull = ordered_row_sum((share * -below).masked_fill_(share == 0, 0.0), 1)
        mass = ordered_row_sum(share, 1)
        if weight is not None and terms.by_target:
            own = ordered_row_sum(q * weight, 1)
    else:
        here, y = terms.here(width)
        if width:
            gap = least - a.gather(1, y.unsqueeze(1)).squeeze(1)
        else:
            gap = torch.zeros_like(least)
        if terms.weight is not None:
            own = ops.of_class(terms.weight, y) if width else torch.zeros_like(least)
            own = own.masked_fill(~here, 0.0)
        certain = own if own is not None and not terms.by_target else here.to(wide)
        certain = certain * (1.0 - terms.smoothing)
        # 0·∞ of the row's own class is NaN without smoothing, and 0 with it: so ``cross_entropy`` has them.
        pull = (certain * gap).masked_fill(~here if terms.smoothing == 0.0 else certain == 0, 0.0)
        if terms.smoothing == 0.0:
            mass = certain
        else:
            spread = terms.smoothing / terms.classes
            if weight is None or terms.by_target:
                pull = pull - spread * ordered_row_sum(below, 1)
                mass = certain + spread * width
            else:
                pull = pull + spread * ordered_row_sum((weight * -below).masked_fill_(weight == 0, 0.0), 1)
                assert terms.weight is not None
                mass = certain + spread * ordered_row_sum(terms.weight, 0)
    return Sums(maximum, ordered_row_sum(below.exp_(), 1), pull, mass, own)


def shifted(logits: Tensor, terms: Terms) -> Tensor:
    """``a``, in the accumulation dtype; the logits themselves where there is nothing to do."""
    a = logits.to(ops.accumulation_dtype(logits.dtype))
    if terms.offset is None:
        return a
    return a + (ops.per_class(terms.offset, logits) if terms.offset.dim() == 1 else terms.offset)


def finite(maximum: Tensor) -> Tensor:
    """A number to take off that leaves −inf at −inf where a row has no finite logit here."""
    return maximum.masked_fill(~maximum.isfinite(), 0.0)


def combine(sums: Sums, terms: Terms, group: Any, marks: Tensor | None = None) -> Rows:
    """The sums of all ranks: one collective for the maximum, and one for everything else.

    ``marks`` are numbers that all ranks must have in common, for where they have not been compared before: every row
    is NaN if they differ.
    """
    shape, count = sums.maximum.shape, sums.maximum.numel()
    differ: Tensor | None = None
    # NaN is not an order that backends agree on. It stays in T, which is a sum.
    own = sums.maximum.masked_fill(sums.maximum.isnan(), -torch.inf).reshape(-1)
    if marks is not None:
        own = torch.cat([own, marks.to(own.dtype), -marks.to(own.dtype)])
    elif group is None:
        own = own.clone()
    packed = _group.maximum(group, own)
    if marks is not None:
        highest, lowest = packed[count:].chunk(2)
        differ = (highest != -lowest).any()
    maximum = packed[:count].reshape(shape)
    total = sums.total * (sums.maximum - maximum).exp()
    assert sums.mass is not None
    pull = sums.pull + ((maximum - finite(sums.maximum)) * sums.mass).masked_fill(sums.mass == 0, 0.0)
    weighted = terms.weight is not None
    known = not terms.soft and (not weighted or terms.by_target)  # M is 1
    same = weighted and not terms.soft and terms.smoothing == 0.0 and not terms.by_target  # M is W
    carried = [total, pull]
    if not known:
        carried.append(sums.mass)
    if sums.own is not None and not same:
        carried.append(sums.own)
    found = list(_group.summed(group, torch.stack(carried)).unbind(0))
    total, pull, rest = found[0], found[1], found[2:]
    mass = None if known else rest.pop(0)
    if same:
        whole = mass
    else:
        whole = rest.pop(0) if rest else None
    if differ is not None:
        total = total.masked_fill(differ, torch.nan)
    return Rows(maximum, total.log(), pull, mass, whole)


def losses(rows: Rows, terms: Terms) -> Tensor:
    """The loss of each row, 0 where ignored, NaN where the label is no class."""
    assert rows.pull is not None
    loss = rows.pull + (rows.log_total if rows.mass is None else rows.log_total * rows.mass)
    if terms.by_target and rows.own is not None:
        weighted = loss * rows.own
        # Where every class has a share, a row of no weight costs nothing: 0·∞ is 0 then, as in the reference.
        nothing = (rows.own == 0) & ~loss.isnan()
        loss = weighted.masked_fill(nothing, 0.0) if terms.soft or terms.smoothing != 0.0 else weighted
    if terms.row_weight is not None:
        loss = loss * terms.row_weight
    kept, outside = terms.kept(), terms.outside()
    if kept is None or outside is None:
        return loss
    return loss.masked_fill(~kept, 0.0).masked_fill(outside, torch.nan)


def gradient(grad: Tensor, logits: Tensor, terms: Terms, rows: Rows, result: Tensor) -> Tensor:
    """The gradient of some rows into ``result``, which may be the logits; the target's coefficients are made anew."""
    upstream = grad if terms.row_weight is None else grad * terms.row_weight
    if terms.by_target and rows.own is not None:
        upstream = upstream * rows.own
    a = shifted(logits, terms)
    # Two steps: m + log T, in one number, would lose the low bits of log T beside large logits.
    x = (
        torch.sub(a, rows.maximum.unsqueeze(1), out=result)
        if result.dtype == a.dtype
        else a - rows.maximum.unsqueeze(1)
    )
    x.sub_(rows.log_total.unsqueeze(1)).exp_()
    x.mul_((upstream if rows.mass is None else upstream * rows.mass).unsqueeze(1))
    weight = None if terms.weight is None or terms.by_target else ops.per_class(terms.weight, logits)
    if terms.soft:
        share = terms.target.to(x.dtype)
        if terms.smoothing != 0.0:
            share = share * (1.0 - terms.smoothing) + terms.smoothing / terms.classes
        if weight is not None:
            share = share * weight
        x.addcmul_(share, upstream.unsqueeze(1), value=-1.0)
    else:
        if terms.smoothing != 0.0:
            everyone = x.new_ones(()) if weight is None else weight
            x.addcmul_(everyone, upstream.unsqueeze(1), value=-terms.smoothing / terms.classes)
        here, y = terms.here(x.shape[1])
        if x.shape[1]:
            own = upstream * (1.0 - terms.smoothing)
            if weight is not None:
                assert terms.weight is not None
                own = own * ops.of_class(terms.weight, y)
            x.scatter_add_(1, y.unsqueeze(1), -own.masked_fill(~here, 0.0).unsqueeze(1))
        kept, outside = terms.kept(), terms.outside()
        assert kept is not None
        assert outside is not None
        x.masked_fill_(~kept.unsqueeze(1), 0.0).masked_fill_(outside.unsqueeze(1), torch.nan)
    return x if x is result else result.copy_(x)
