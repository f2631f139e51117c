"""A classifier and its loss, with the classes spread over ranks: for more of them than one device holds."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from steelyard import ops
from steelyard._errors import refuse
from steelyard._values import integer
from steelyard.distributed import _agreement, _group
from steelyard.distributed._call import checked, placed, reduced
from steelyard.distributed._classifier import ShardedClassifier
from steelyard.distributed._linear_rows import chunked_rows, chunks, dense_rows
from steelyard.distributed._sharded import finite
from steelyard.distributed._shards import is_dtensor
from steelyard.functional._check import as_tensor, autocasting, check_input, class_values
from steelyard.functional._reduce import Denominator
from steelyard.nn.linear import LayerLoss

__all__ = ["ClassParallelLinearCrossEntropy", "TopClasses"]

_BUDGET = 128 << 20  # bytes of logits at a time where nobody says how many


class TopClasses(NamedTuple):
    """The k most probable classes of each row, most probable first: ``(N, k)`` each."""

    probabilities: Tensor
    classes: Tensor


class ClassParallelLinearCrossEntropy(LayerLoss):
    """A linear classifier with its loss, each rank of a group holding some of the classes.

    For classifiers of millions of classes. No rank holds the logits either: rows come in chunks, and what ranks send
    each other is numbers of rows, and in the backward pass the gradient of the features.

    Equals :class:`steelyard.nn.LinearCrossEntropyLoss` with the same parameters, and its gradients.

    Args:
        in_features: Size of a sample, H.
        num_classes: C, of all ranks. They have equal shares, as ``torch.chunk`` makes them, consecutive in the order of
            their numbers; the last ones may have fewer.
        bias: Whether there is one.
        group: The ranks that share the classes. None is the default process group, or this process alone, with all
            classes, if none has been started. Every rank of it constructs the module, and calls it with the same rows.
        device, dtype: Of the parameters.
        weight, logit_offset: Class weights and offsets ``(C,)``, whole on every rank: 4·C bytes.
        reduction, ignore_index, label_smoothing, smooth_weight, denominator, empty: As for
            :func:`class_parallel_cross_entropy`.
        memory_budget: Bytes of logits at a time, ≥ 1; one row at least is. ``None`` takes 128 MiB.

    Attributes:
        linear: The classifier. In a group its ``weight`` ``(C, H)`` and ``bias`` ``(C,)`` are ``DTensor``s with
            ``Shard(0)``: optimizers take them as they are, and ``torch.distributed.checkpoint`` loads them into any
            number of ranks. They start as ``nn.Linear``'s, with the same numbers on any number of ranks.

    Raises:
        TypeError, ValueError: a value that the function would refuse.

    Example:
        >>> loss = ClassParallelLinearCrossEntropy(4, 3, bias=True)
        >>> loss(torch.zeros(2, 4), torch.tensor([0, 2])).shape, loss.shard
        (torch.Size([]), range(0, 3))
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        bias: bool = False,
        group: Any = None,
        device: Any = None,
        dtype: Any = None,
        reduction: str = "mean",
        weight: Any = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        logit_offset: Any = None,
        smooth_weight: Literal["class", "target"] = "class",
        denominator: Denominator = "torch",
        empty: Literal["nan", "zero", "raise"] = "nan",
        memory_budget: int | None = None,
    ) -> None:
        super().__init__()
        name = "ClassParallelLinearCrossEntropy"
        sizes = [("in_features", in_features), ("num_classes", num_classes)]
        self._make(sizes, num_classes, bias, memory_budget, logit_offset,
                   weight, ignore_index, reduction, label_smoothing, smooth_weight, denominator, empty)  # fmt: skip
        members = _group.resolve(name, group)
        self.linear = ShardedClassifier(in_features, num_classes, bias, members, device, dtype)

    @property
    def group(self) -> Any:
        """The ranks that share the classes; None where this process is alone."""
        return self.linear.group

    @property
    def shard(self) -> range:
        """The classes on this rank."""
        return self.linear.shard

    @property
    def shards(self) -> list[int]:
        """How many classes each rank has."""
        return list(self.linear.shards)

    @_group.uncompiled
    def forward(
        self, input: Tensor, target: Tensor, *, sample_weight: Any = None, denominator: Denominator | None = None
    ) -> Tensor:
        """The loss, the same on every rank.

        Args:
            input: Features, float, ``(N, H)`` or ``(H,)``, the same on every rank; dtype of the layer (under autocast
                cast to it). Their gradient is that of all classes.
            target: As for :func:`class_parallel_cross_entropy`.
            sample_weight, denominator: As there; the latter before the constructor's.
        """
        name = "ClassParallelLinearCrossEntropy"
        weight, bias = self.linear.local()
        features, call, failure = input, None, None
        try:
            features = self._features(name, input)
            stand_in = features.new_zeros(()).expand(*features.shape[:-1], len(weight))  # checks read shape and dtype
            options = self._options(as_tensor(sample_weight), denominator)
            del options["inplace_gradient"]
            call = checked(
                name, stand_in, target, logit_offset=self.logit_offset, **options, argument="input",
                made_from=(features, weight, bias),
            )  # fmt: skip
        except Exception as error:  # the other ranks are waiting
            failure = error
        call, terms, marks = placed(name, call, failure, self.group, self.shards, weight.device)
        if call.single:
            features = features.unsqueeze(0)
        # Under autocast a product made twice would be made in two dtypes.
        with torch.autocast(weight.device.type, enabled=False):
            if call.differentiated:
                loss, rows = dense_rows(features, weight, bias, terms, self.group, marks)
            else:
                loss, rows = chunked_rows(features, weight, bias, terms, self.group, marks, self._budget())
        return reduced(name, call, terms, loss, rows)

    @torch.no_grad()
    def predict(self, input: Tensor, k: int = 1, *, logit_offset: Any = None) -> TopClasses:
        """The k most probable of all classes, with their probabilities, on every rank.

        Ranks send each other their own best k of each row, and sums of rows.

        Args:
            input: Features, as for ``forward``.
            k: From 1 to C.
            logit_offset: Added to the logits, finite or −inf, ``(C,)``. None leaves the softmax of the layer's output.
                For a classifier trained with class weights w, ``-log(w)`` takes them out again; for one trained with a
                ``logit_offset``, the same gives the probabilities under the classes' shares in training.

        Returns:
            Probabilities (float32 or float64) and class ids (int64), ``(N, k)`` each, or ``(k,)``.

        Raises:
            TypeError, ValueError: dtypes, shapes, options; ranks that differ in rows or k.

        Example:
            >>> loss = ClassParallelLinearCrossEntropy(1, 3)
            >>> loss.linear.weight.data[:] = torch.tensor([[0.0], [2.0], [1.0]])
            >>> loss.predict(torch.ones(1), 2)
            TopClasses(probabilities=tensor([0.6652, 0.2447]), classes=tensor([1, 2]))
        """
        name = "ClassParallelLinearCrossEntropy.predict"
        weight, bias = self.linear.local()
        wide, failure, facts = ops.accumulation_dtype(weight.dtype), None, []
        try:
            features = self._features(name, input)
            if not 1 <= integer(name, "k", k) <= self.num_classes:
                refuse(name, "k", f"from 1 to {self.num_classes}", repr(k))
            whole = features.new_zeros(()).expand(1, self.num_classes)
            offset = class_values(name, "logit_offset", as_tensor(logit_offset), whole, minus_infinity=True)
            count = features.shape[:-1].numel()
            facts = [_agreement.integer_fact("input", count, "{} rows"), _agreement.integer_fact("k", k)]
        except Exception as error:  # the other ranks are waiting
            failure = error
        _agreement.exchange(name, self.group, facts, [0], failure, weight.device, count=2)
        flat = features.reshape(-1, features.shape[-1])
        own = min(k, len(weight))
        best = flat.new_full((len(flat), k), -torch.inf, dtype=wide)
        ids = torch.zeros(len(flat), k, dtype=torch.int64, device=flat.device)
        totals = flat.new_zeros(len(flat), dtype=wide)
        tops = flat.new_full((len(flat),), -torch.inf, dtype=wide)
        for rows in chunks(flat, len(weight), self._budget()) if own else ():
            logits = linear(flat[rows], weight, bias).to(wide)
            if offset is not None:
                logits = logits + offset[self.shard.start : self.shard.stop]
            values, places = logits.topk(own, 1)
            tops[rows] = values[:, 0]
            # Even a class that is ruled out goes before room that a rank with fewer than k classes could not fill.
            best[rows, :own], ids[rows, :own] = values.clamp(min=torch.finfo(wide).min), places + self.shard.start
            totals[rows] = (logits - finite(tops[rows]).unsqueeze(1)).exp_().sum(1)
        highest = _group.maximum(self.group, tops.clone())
        totals = _group.summed(self.group, totals * (tops - highest).exp())
        everyone = torch.cat(_group.parts(self.group, best), 1), torch.cat(_group.parts(self.group, ids), 1)
        found, places = everyone[0].topk(k, 1)
        shape = (*features.shape[:-1], k)
        probabilities = (found - highest.unsqueeze(1)).exp() / totals.unsqueeze(1)
        return TopClasses(probabilities.reshape(shape), everyone[1].gather(1, places).reshape(shape))

    def posterior(self, input: Tensor, prior: Any = None, *, train_prior: Any = None) -> Tensor:
        """Refused: it would be a number for each row and class. :meth:`predict` gives the largest."""
        hint = "Use predict(input, k, logit_offset=...), which takes weights and offsets out again."
        refuse("ClassParallelLinearCrossEntropy.posterior", "self", "a loss with all classes here", "shards", hint)

    def _features(self, name: str, input: Any) -> Tensor:
        """Features that fit the layer."""
        layer = self.linear.local()[0]
        if is_dtensor(input):
            refuse(name, "input", "a plain tensor, the same on every rank", "a DTensor", "Use input.full_tensor().")
        check_input(name, input, "features", classes=False)
        if input.dim() not in (1, 2) or input.shape[-1] != self.linear.in_features:
            size = self.linear.in_features
            refuse(name, "input", f"of shape ({size},) or (N, {size})", input)
        if input.device != layer.device:
            refuse(name, "input", f"on the device of the layer, {layer.device}", f"one on {input.device}")
        if input.dtype != layer.dtype:
            if not autocasting(input):
                refuse(name, "input", f"of the dtype of the layer, {layer.dtype}", input, error=TypeError)
            input = input.to(layer.dtype)
        result: Tensor = input
        return result

    def _budget(self) -> int:
        return _BUDGET if self.memory_budget is None else self.memory_budget
