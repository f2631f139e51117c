"""Modules of the softmax losses; the mathematics is in the function of the same name."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from steelyard import functional
from steelyard._errors import choice, refuse
from steelyard._values import integer, number
from steelyard.functional._check import check_input
from steelyard.functional._family import SMOOTH_WEIGHT
from steelyard.functional._reduce import Denominator, legacy_reduction
from steelyard.functional.inverse import softmax_inverse
from steelyard.functional.softmax import ldam_margins, log_prior
from steelyard.nn._base import CountedLoss, Loss, WeightedLoss

__all__ = [
    "BalancedSoftmaxLoss",
    "CrossEntropyLoss",
    "FocalLoss",
    "LDAMLoss",
    "LogitAdjustedLoss",
    "SoftmaxLoss",
]


class SoftmaxLoss(Loss):
    """Settings that every softmax loss has."""

    statistics: ClassVar[tuple[str, ...]] = ("weight",)
    settings: ClassVar[tuple[str, ...]] = ("ignore_index", "label_smoothing")
    weight: Tensor | None

    def _configure(
        self,
        weight: Any,
        ignore_index: int,
        reduction: str,
        label_smoothing: float,
        smooth_weight: str,
        denominator: Any,
        empty: str,
        inplace_gradient: bool = False,
    ) -> None:
        name = type(self).__name__
        self._statistic("weight", weight)
        self._keep(reduction, denominator, empty, inplace_gradient)
        self.ignore_index: int | None = integer(name, "ignore_index", ignore_index)
        self.label_smoothing = number(name, "label_smoothing", label_smoothing, 0.0, 1.0)
        choice(name, "smooth_weight", smooth_weight, SMOOTH_WEIGHT)
        self.smooth_weight = smooth_weight

    def _options(self, sample_weight: Any, denominator: Any) -> dict[str, Any]:
        return {
            "weight": self._acting(self.weight),
            "ignore_index": self.ignore_index,
            "reduction": self.reduction,
            "label_smoothing": self.label_smoothing,
            "smooth_weight": self.smooth_weight,
            "sample_weight": sample_weight,
            "denominator": self._divisor(denominator),
            "empty": self.empty,
            "inplace_gradient": self.inplace_gradient,
        }

    def posterior(self, logits: Tensor, prior: Any = None, *, train_prior: Any = None) -> Tensor:
        """Class probabilities from the logits of a network that this loss has trained.

        Its weights, offsets, margins, smoothing and focusing taken back out, as
        :func:`steelyard.posterior.softmax_posterior` says, which describes arguments, result and errors.

        Args:
            logits: The network's raw output, float, ``(C,)``, ``(N, C)`` or ``(N, C, d1, ...)``.
            prior: Class shares, or counts, where the probabilities are to hold, ≥ 0, ``(C,)``. ``None``: where the
                network was trained.
            train_prior: Class shares, or counts, of the rows as training drew them, > 0, ``(C,)``. Goes with ``prior``.
                A loss that holds counts takes them for whichever of the two is left out.

        Returns:
            Probabilities along the class axis, shape of ``logits``, float32 or float64.

        Raises:
            NotInvertibleError: settings that leave no way back. TypeError, ValueError: dtypes, shapes.

        Example:
            >>> CrossEntropyLoss(weight=[1.0, 9.0]).posterior(torch.tensor([[0.0, 0.0]]))
            tensor([[0.9000, 0.1000]])
        """
        name = f"{type(self).__name__}.posterior"
        check_input(name, logits, argument="logits")
        return softmax_inverse(
            name,
            logits,
            prior=prior,
            train_prior=train_prior,
            weight=self._acting(self.weight),
            label_smoothing=self.label_smoothing,
            smooth_weight=self.smooth_weight,
            **self._bend(name, logits),
        )

    def _bend(self, name: str, logits: Tensor) -> dict[str, Any]:
        """What else of the formula this loss sets, as :func:`softmax_inverse` takes it."""
        return {}


class CrossEntropyLoss(SoftmaxLoss, WeightedLoss):
    """:func:`steelyard.functional.cross_entropy` as a module, with the constructor of ``torch.nn.CrossEntropyLoss``.

    Args:
        weight: Class weights, finite, ``(C,)``; copied into a buffer.
        size_average, reduce: Deprecated, as in PyTorch.
        ignore_index, reduction, label_smoothing, logit_offset, margin, gamma, smooth_weight: As for the function.
        denominator, empty, inplace_gradient: As for the function, too.

    Raises:
        TypeError, ValueError: a value that the function would refuse.

    Example:
        >>> loss = CrossEntropyLoss(weight=[1.0, 2.0])
        >>> loss(torch.tensor([[1.0, 2.0], [1.0, 3.0], [1.0, 3.0]]), torch.tensor([0, 1, 1]))
        tensor(0.3642)
    """

    statistics = ("weight", "logit_offset", "margin")
    settings = ("ignore_index", "label_smoothing", "gamma")
    logit_offset: Tensor | None
    margin: Tensor | None

    def __init__(
        self,
        weight: Any = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        *,
        logit_offset: Any = None,
        margin: Any = None,
        gamma: float = 0.0,
        smooth_weight: Literal["class", "target"] = "class",
        denominator: Denominator = "torch",
        empty: Literal["nan", "zero", "raise"] = "nan",
        inplace_gradient: bool = False,
    ) -> None:
        super().__init__()
        reduction = legacy_reduction(size_average, reduce, reduction)
        self._configure(
            weight, ignore_index, reduction, label_smoothing, smooth_weight, denominator, empty, inplace_gradient
        )
        self._statistic("logit_offset", logit_offset, minus_infinity=True)
        self._statistic("margin", margin)
        self.gamma = number("CrossEntropyLoss", "gamma", gamma, 0.0, float("inf"))

    def forward(
        self, input: Tensor, target: Tensor, *, sample_weight: Any = None, denominator: Denominator | None = None
    ) -> Tensor:
        """The loss; ``sample_weight`` and ``denominator`` as for the function, the latter before the constructor's."""
        return functional.cross_entropy(
            input,
            target,
            logit_offset=self.logit_offset,
            margin=self.margin,
            gamma=self.gamma,
            **self._options(sample_weight, denominator),
        )

    def _bend(self, name: str, logits: Tensor) -> dict[str, Any]:
        return {"logit_offset": self.logit_offset, "margin": self.margin, "gamma": self.gamma}


class FocalLoss(SoftmaxLoss, WeightedLoss):
    """:func:`steelyard.functional.focal_loss` as a module.

    Args:
        weight: Class weights, finite, ``(C,)``; copied into a buffer.
        gamma: Focusing, ≥ 0.
        ignore_index, reduction, label_smoothing, smooth_weight, denominator, empty, inplace_gradient: As for
            :class:`CrossEntropyLoss`.

    Raises:
        TypeError, ValueError: a value that the function would refuse.

    Example:
        >>> FocalLoss(gamma=2.0)(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor(0.0018)
    """

    settings = ("gamma", "ignore_index", "label_smoothing")

    def __init__(
        self,
        weight: Any = None,
        gamma: float = 2.0,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        smooth_weight: Literal["class", "target"] = "class",
        denominator: Denominator = "torch",
        empty: Literal["nan", "zero", "raise"] = "nan",
        inplace_gradient: bool = False,
    ) -> None:
        super().__init__()
        self._configure(
            weight, ignore_index, reduction, label_smoothing, smooth_weight, denominator, empty, inplace_gradient
        )
        self.gamma = number("FocalLoss", "gamma", gamma, 0.0, float("inf"))

    def forward(
        self, input: Tensor, target: Tensor, *, sample_weight: Any = None, denominator: Denominator | None = None
    ) -> Tensor:
        """The loss; ``sample_weight`` and ``denominator`` as for the function, the latter before the constructor's."""
        return functional.focal_loss(input, target, gamma=self.gamma, **self._options(sample_weight, denominator))

    def _bend(self, name: str, logits: Tensor) -> dict[str, Any]:
        return {"gamma": self.gamma}


class _CountedSoftmaxLoss(SoftmaxLoss, CountedLoss):
    statistics = ("counts", "weight")
    counts: Tensor

    def posterior(self, logits: Tensor, prior: Any = None, *, train_prior: Any = None) -> Tensor:
        """As :meth:`CrossEntropyLoss.posterior`; the counts stand in for whichever of the two priors is left out."""
        if (prior is None) != (train_prior is None):
            prior = self.counts if prior is None else prior
            train_prior = self.counts if train_prior is None else train_prior
        return super().posterior(logits, prior, train_prior=train_prior)


class BalancedSoftmaxLoss(_CountedSoftmaxLoss):
    """:func:`steelyard.functional.balanced_softmax_loss` as a module; the counts are a buffer.

    Args:
        counts: Samples of each class, > 0, ``(C,)`` or a :class:`~steelyard.ClassCounts`.
        weight, ignore_index, reduction, label_smoothing, smooth_weight, denominator, empty, inplace_gradient: As for
            :class:`CrossEntropyLoss`.

    Raises:
        TypeError, ValueError: a value that the function would refuse.

    Example:
        >>> BalancedSoftmaxLoss([9, 1])(torch.zeros(1, 2), torch.tensor([1]))
        tensor(2.3026)
    """

    def __init__(
        self,
        counts: Any,
        *,
        weight: Any = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        smooth_weight: Literal["class", "target"] = "class",
        denominator: Denominator = "torch",
        empty: Literal["nan", "zero", "raise"] = "nan",
        inplace_gradient: bool = False,
    ) -> None:
        super().__init__()
        self._count(counts)
        self._configure(
            weight, ignore_index, reduction, label_smoothing, smooth_weight, denominator, empty, inplace_gradient
        )

    def forward(
        self, input: Tensor, target: Tensor, *, sample_weight: Any = None, denominator: Denominator | None = None
    ) -> Tensor:
        """The loss; ``sample_weight`` and ``denominator`` as for the function, the latter before the constructor's."""
        return functional.balanced_softmax_loss(input, target, self.counts, **self._options(sample_weight, denominator))

    def _bend(self, name: str, logits: Tensor) -> dict[str, Any]:
        return {"logit_offset": log_prior(name, self.counts, logits)}


class LogitAdjustedLoss(_CountedSoftmaxLoss):
    """:func:`steelyard.functional.logit_adjusted_loss` as a module; the counts are a buffer.

    Args:
        counts: Samples of each class, > 0, ``(C,)`` or a :class:`~steelyard.ClassCounts`.
        tau: Strength of the shift, ≥ 0.
        weight, ignore_index, reduction, label_smoothing, smooth_weight, denominator, empty, inplace_gradient: As for
            :class:`CrossEntropyLoss`.

    Raises:
        TypeError, ValueError: a value that the function would refuse.

    Example:
        >>> LogitAdjustedLoss([9, 1], tau=0.0)(torch.zeros(1, 2), torch.tensor([1]))
        tensor(0.6931)
    """

    settings = ("tau", "ignore_index", "label_smoothing")

    def __init__(
        self,
        counts: Any,
        tau: float = 1.0,
        *,
        weight: Any = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        smooth_weight: Literal["class", "target"] = "class",
        denominator: Denominator = "torch",
        empty: Literal["nan", "zero", "raise"] = "nan",
        inplace_gradient: bool = False,
    ) -> None:
        super().__init__()
        self._count(counts)
        self._configure(
            weight, ignore_index, reduction, label_smoothing, smooth_weight, denominator, empty, inplace_gradient
        )
        self.tau = number("LogitAdjustedLoss", "tau", tau, 0.0, float("inf"))

    def forward(
        self, input: Tensor, target: Tensor, *, sample_weight: Any = None, denominator: Denominator | None = None
    ) -> Tensor:
        """The loss; ``sample_weight`` and ``denominator`` as for the function, the latter before the constructor's."""
        return functional.logit_adjusted_loss(
            input, target, self.counts, self.tau, **self._options(sample_weight, denominator)
        )

    def _bend(self, name: str, logits: Tensor) -> dict[str, Any]:
        return {"logit_offset": log_prior(name, self.counts, logits) * self.tau}


class LDAMLoss(_CountedSoftmaxLoss):
    """:func:`steelyard.functional.ldam_loss` as a module; the counts are a buffer.

    Args:
        counts: Samples of each class, > 0, ``(C,)`` or a :class:`~steelyard.ClassCounts`.
        max_margin: Margin of the rarest class, ≥ 0.
        scale: Factor on the logits, > 0.
        weight, ignore_index, reduction, label_smoothing, smooth_weight, denominator, empty, inplace_gradient: As for
            :class:`CrossEntropyLoss`.

    Raises:
        TypeError, ValueError: a value that the function would refuse.

    Example:
        >>> LDAMLoss([16, 1], scale=1.0)(torch.tensor([[0.5, 0.5]]), torch.tensor([1]))
        tensor(0.9741)
    """

    settings = ("max_margin", "scale", "ignore_index", "label_smoothing")

    def __init__(
        self,
        counts: Any,
        max_margin: float = 0.5,
        scale: float = 30.0,
        *,
        weight: Any = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        smooth_weight: Literal["class", "target"] = "class",
        denominator: Denominator = "torch",
        empty: Literal["nan", "zero", "raise"] = "nan",
        inplace_gradient: bool = False,
    ) -> None:
        super().__init__()
        self._count(counts)
        self._configure(
            weight, ignore_index, reduction, label_smoothing, smooth_weight, denominator, empty, inplace_gradient
        )
        self.max_margin = number("LDAMLoss", "max_margin", max_margin, 0.0, float("inf"))
        self.scale = number("LDAMLoss", "scale", scale, 0.0, float("inf"))
        if self.scale == 0.0:
            refuse("LDAMLoss", "scale", "> 0", repr(scale))

    def forward(
        self, input: Tensor, target: Tensor, *, sample_weight: Any = None, denominator: Denominator | None = None
    ) -> Tensor:
        """The loss; ``sample_weight`` and ``denominator`` as for the function, the latter before the constructor's."""
        return functional.ldam_loss(
            input, target, self.counts, self.max_margin, self.scale, **self._options(sample_weight, denominator)
        )

    def _bend(self, name: str, logits: Tensor) -> dict[str, Any]:
        margins = ldam_margins(name, self.counts, self.max_margin, logits)
        return {"margin": margins * self.scale, "scale": self.scale}
