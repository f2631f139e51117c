"""What all loss modules share: class statistics as buffers, checkpoints with or without them, one ``forward``."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from steelyard import weights
from steelyard._errors import describe, refuse
from steelyard.counts import as_class_counts
from steelyard.functional._reduce import Denominator, check_reduction

__all__ = ["CountedLoss", "Loss", "WeightedLoss"]


class Loss(nn.Module):
    """A loss function with its settings.

    ``statistics`` names the buffers that describe the classes: copies, never aliases, of what was given. They may be
    None, and a checkpoint may hold them or not: what it holds is loaded, what it lacks stays as it is.
    """

    statistics: ClassVar[tuple[str, ...]] = ()
    settings: ClassVar[tuple[str, ...]] = ()
    reduction: str
    denominator: Denominator
    empty: str
    weights_on: bool = True
    """Whether ``weight`` and ``pos_weight`` act; :class:`~steelyard.nn.DeferredReweighting` switches them on late."""

    def _keep(self, reduction: str, denominator: Any, empty: str) -> None:
        check_reduction(type(self).__name__, reduction, denominator, empty)
        self.reduction, self.denominator, self.empty = reduction, denominator, empty

    def _statistic(self, name: str, values: Any, *, per_class: bool = True, minus_infinity: bool = False) -> None:
        tensor = statistic(type(self).__name__, name, values, per_class, minus_infinity)
        for other in self.buffers(recurse=False):
            if per_class and tensor is not None and tensor.shape != other.shape:
                refuse(type(self).__name__, name, f"of shape {tuple(other.shape)}, one number for each class",
                       f"shape {tuple(tensor.shape)}")  # fmt: skip
        self.register_buffer(name, tensor)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        for name in self.statistics:
            given = state_dict.get(prefix + name)
            if given is not None and getattr(self, name) is None:
                setattr(self, name, torch.empty_like(given))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        for name in self.statistics:
            if prefix + name in missing_keys:
                missing_keys.remove(prefix + name)

    def extra_repr(self) -> str:
        """The settings that differ from nothing at all, and the statistics by their number of classes."""
        words = [f"{name}=<{getattr(self, name).numel()} classes>" for name in self.statistics if self._has(name)]
        return ", ".join(words + [f"{name}={getattr(self, name)!r}" for name in (*self.settings, "reduction")])

    def _acting(self, weight: Tensor | None) -> Tensor | None:
        """A weight as it acts on this call."""
        return weight if self.weights_on else None

    def _has(self, name: str) -> bool:
        return getattr(self, name) is not None

    def _divisor(self, denominator: Any) -> Any:
        """The denominator of this call: one given to ``forward`` goes before the constructor's."""
        return self.denominator if denominator is None else denominator


class WeightedLoss(Loss):
    """A loss whose remedy is a class weight."""

    @classmethod
    def from_counts(cls, counts: Any, scheme: Any = "max_ratio", **options: Any) -> Self:
        """The loss with class weights from counts, in one line.

        Args:
            counts: Samples of each class, ``(C,)`` or a :class:`~steelyard.ClassCounts`.
            scheme: As for :func:`steelyard.class_weights`, as are its ``power``, ``beta``, ``normalize``, ``cap``
                and ``missing``.
            **options: Those, and the constructor's keywords.

        Returns:
            The loss, its ``weight`` a float32 buffer ``(C,)``.

        Raises:
            TypeError, ValueError: as :func:`steelyard.class_weights` and the constructor.

        Example:
            >>> CrossEntropyLoss.from_counts([90, 10], "balanced", label_smoothing=0.1).weight
            tensor([0.5556, 5.0000])
        """
        chosen = {name: options.pop(name) for name in WEIGHT_OPTIONS if name in options}
        return cls(weight=weights.class_weights(counts, scheme, **chosen), **options)


class CountedLoss(Loss):
    """A loss that takes the class counts themselves."""

    @classmethod
    def from_counts(cls, counts: Any, scheme: Any = None, **options: Any) -> Self:
        """The loss for these counts; with a ``scheme``, class weights on top.

        Args:
            counts: Samples of each class, ``(C,)`` or a :class:`~steelyard.ClassCounts`.
            scheme: ``None``, or as for :func:`steelyard.class_weights`. Counts and weights together correct twice,
                which is right only where a paper says so (LDAM with deferred weights).
            **options: Options of :func:`steelyard.class_weights`, and the constructor's keywords.

        Returns:
            The loss.

        Raises:
            TypeError, ValueError: as :func:`steelyard.class_weights` and the constructor.

        Example:
            >>> BalancedSoftmaxLoss.from_counts([90, 10]).counts
            tensor([90, 10])
        """
        chosen = {name: options.pop(name) for name in WEIGHT_OPTIONS if name in options}
        if scheme is None and chosen:
            refuse(f"{cls.__name__}.from_counts", "scheme", f"given with {next(iter(chosen))!r}", None)
        if scheme is not None:
            options["weight"] = weights.class_weights(counts, scheme, **chosen)
        return cls(counts, **options)

    def _count(self, counts: Any) -> None:
        values = as_class_counts(counts, function=type(self).__name__).counts.clone()
        if bool((values == 0).any()):
            empty = (values == 0).nonzero().flatten().tolist()
            refuse(type(self).__name__, "counts", "> 0 for every class", f"0 for classes {empty}",
                   "Leave these classes out of the model, or give them a count of 1.")  # fmt: skip
        self.register_buffer("counts", values)


WEIGHT_OPTIONS = ("power", "beta", "normalize", "cap", "missing")


def statistic(name: str, argument: str, values: Any, per_class: bool, minus_infinity: bool) -> Tensor | None:
    """Numbers for a buffer: a detached copy, floating-point, finite."""
    if values is None:
        return None
    try:
        tensor = torch.as_tensor(values).detach().clone()
    except (TypeError, ValueError, RuntimeError):
        refuse(name, argument, "numbers", describe(values), error=TypeError)
    if tensor.is_complex() or tensor.dtype == torch.bool:
        refuse(name, argument, "real numbers", tensor, error=TypeError)
    if not tensor.is_floating_point():
        tensor = tensor.to(torch.get_default_dtype())
    if per_class and tensor.dim() != 1:
        refuse(name, argument, "of shape (C,), one number for each class", f"shape {tuple(tensor.shape)}")
    bad = tensor.isnan() | (tensor.isposinf() if minus_infinity else tensor.isinf())
    if not bad.is_meta and bool(bad.any()):
        position = tuple(bad.nonzero()[0].tolist())
        refuse(name, argument, "finite" + (" or -inf" if minus_infinity else ""),
               f"{float(tensor[position])} at position {position}")  # fmt: skip
    return tensor
