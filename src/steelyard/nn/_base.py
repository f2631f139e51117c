"""What all loss modules share: class statistics as buffers, checkpoints with or without them, one ``forward``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from steelyard import weights
from steelyard._errors import NotInvertibleError, refuse
from steelyard._values import numbers, readable
from steelyard.functional._check import check_inplace, positive_counts, refuse_unless_finite
from steelyard.functional._reduce import Denominator, check_reduction
from steelyard.functional.inverse import CALIBRATE

__all__ = ["CountedLoss", "Loss", "WeightedLoss", "weights_from"]


class Loss(nn.Module):
    """A loss function with its settings.

    ``statistics`` names the buffers that describe the classes: copies, never aliases, of what was given. They may be
    None, and a checkpoint may hold them or not: what it holds is loaded, what it lacks stays as it is.
    """

    statistics: ClassVar[tuple[str, ...]] = ()
    elementwise: ClassVar[tuple[str, ...]] = ()
    """Statistics that broadcast against the input instead of holding one number for each class."""
    settings: ClassVar[tuple[str, ...]] = ()
    reduction: str
    denominator: Denominator
    empty: str
    inplace_gradient: bool = False
    """Whether the gradient may take the memory of the logits; only losses on logits of the caller's can be told so."""
    weights_on: bool = True
    """Whether ``weight`` and ``pos_weight`` act; :class:`~steelyard.nn.DeferredReweighting` switches them on late."""

    def _keep(self, reduction: str, denominator: Any, empty: str, inplace_gradient: bool = False) -> None:
        check_reduction(type(self).__name__, reduction, denominator, empty)
        check_inplace(type(self).__name__, None, inplace_gradient)
        self.reduction, self.denominator, self.empty = reduction, denominator, empty
        self.inplace_gradient = inplace_gradient

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
        held = {name: state_dict[prefix + name] for name in self.statistics if prefix + name in state_dict}
        try:  # all of them before any: a checkpoint that is refused leaves the module as it was
            for name, given in held.items():
                self._check_loaded(name, given)
        except (TypeError, ValueError) as error:
            error_msgs.append(str(error))
            return
        device = next((tensor.device for tensor in (*self.parameters(), *self.buffers())), None)
        for name, given in held.items():
            if getattr(self, name) is None:
                setattr(self, name, torch.empty_like(given, device=device))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        for name in self.statistics:
            if prefix + name in missing_keys:
                missing_keys.remove(prefix + name)

    def _check_loaded(self, name: str, given: Tensor) -> None:
        """Refuse a statistic of a checkpoint that the constructor would refuse."""
        function, per_class = f"{type(self).__name__}.load_state_dict", name not in self.elementwise
        statistic(function, name, given, per_class, minus_infinity=name == "logit_offset")
        for other in self.statistics:
            here = getattr(self, other)
            if per_class and here is not None and other not in self.elementwise and here.shape != given.shape:
                refuse(function, name, f"of shape {tuple(here.shape)}, one number for each class",
                       f"shape {tuple(given.shape)}")  # fmt: skip

    def posterior(self, logits: Tensor, prior: Any = None, *, train_prior: Any = None) -> Tensor:
        """The probabilities that this loss has bent the network's output away from, where there is a way back.

        Args:
            logits: What ``forward`` takes as its input.
            prior: Class shares, or counts, where the probabilities are to hold; ``None``: where the network was
                trained.
            train_prior: Class shares, or counts, of the rows as training drew them. Goes with ``prior``.

        Raises:
            NotInvertibleError: here always; the losses of this library have their own.
        """
        name = type(self).__name__
        refuse(f"{name}.posterior", "self", "a loss with a known inverse", name, CALIBRATE, error=NotInvertibleError)

    def extra_repr(self) -> str:
        """The statistics by their shape, then the settings, of those that PyTorch lacks only what is not usual."""
        held = {name: self._buffers[name] for name in self.statistics}
        shapes = [f"{name}=<{tuple(values.shape)}>" for name, values in held.items() if values is not None]
        own = [name for name, usual in (("denominator", "torch"), ("empty", "nan"), ("smooth_weight", "class"))
               if not _is_word(getattr(self, name, usual), usual)]  # fmt: skip
        own += ["inplace_gradient"] * self.inplace_gradient
        return ", ".join(shapes + [f"{name}={getattr(self, name)!r}" for name in (*self.settings, "reduction", *own)])

    def _acting(self, weight: Tensor | None) -> Tensor | None:
        """A weight as it acts on this call."""
        return weight if self.weights_on else None

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
        if "weight" in options:
            refuse(f"{cls.__name__}.from_counts", "weight", "left alone: it is what the counts give", "one")
        chosen = {name: options.pop(name) for name in WEIGHT_OPTIONS if name in options}
        weight = weights_from(counts, partial(weights.class_weights, scheme=scheme, **chosen))
        return cls(weight=weight, **options)


class CountedLoss(Loss):
    """A loss that takes the class counts themselves."""

    counts: Tensor

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
            if "weight" in options:
                refuse(f"{cls.__name__}.from_counts", "weight", "left alone where there is a scheme", "one")
            options["weight"] = weights_from(counts, partial(weights.class_weights, scheme=scheme, **chosen))
        return cls(counts, **options)

    def _count(self, counts: Any) -> None:
        found = positive_counts(type(self).__name__, counts, wait=True)
        place = counts.device if isinstance(counts, Tensor) else torch.get_default_device()
        self.register_buffer("counts", found.to(place, torch.int64, copy=True))

    def _check_loaded(self, name: str, given: Tensor) -> None:
        if name != "counts":
            super()._check_loaded(name, given)
            return
        function = f"{type(self).__name__}.load_state_dict"
        if positive_counts(function, given, wait=True).shape != self.counts.shape:
            refuse(function, name, f"of shape {tuple(self.counts.shape)}", given)


WEIGHT_OPTIONS = ("power", "beta", "normalize", "cap", "missing")


def _is_word(value: Any, word: str) -> bool:
    return isinstance(value, str) and value == word


def statistic(name: str, argument: str, values: Any, per_class: bool, minus_infinity: bool) -> Tensor | None:
    """Numbers for a buffer: a detached copy, floating-point, finite; a device is waited for, once, here."""
    if values is None:
        return None
    tensor = numbers(name, argument, values, "numbers").detach().clone()
    if not isinstance(values, Tensor):
        # As PyTorch makes tensors from Python numbers: where and as what the caller has set as default.
        wide = isinstance(values, np.ndarray) and tensor.is_floating_point()
        tensor = tensor.to(
            torch.get_default_device(), None if wide else torch.promote_types(torch.get_default_dtype(), torch.float32)
        )
    if not tensor.is_floating_point():
        tensor = tensor.to(torch.get_default_dtype())
    if per_class and tensor.dim() != 1:
        refuse(name, argument, "of shape (C,), one number for each class", f"shape {tuple(tensor.shape)}")
    refuse_unless_finite(name, argument, tensor, minus_infinity=minus_infinity, wait=True)
    return tensor


def weights_from(counts: Any, make: Callable[[Any], Tensor]) -> Tensor:
    """``make(counts)`` where the counts are; those on a device are read, so that what is wrong is said in words."""
    if not isinstance(counts, Tensor):
        return make(counts).to(torch.get_default_device())
    return make(counts.cpu()).to(counts.device) if readable(counts, wait=True) else make(counts)
