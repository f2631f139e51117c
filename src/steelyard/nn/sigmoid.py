"""Modules of the sigmoid losses; the mathematics is in the function of the same name."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal, Self

from torch import Tensor

from steelyard import functional, weights
from steelyard._errors import refuse
from steelyard._values import integer, number
from steelyard.functional._check import as_values, check_input, element_values, refuse_unless_finite
from steelyard.functional._reduce import Denominator, legacy_reduction
from steelyard.functional.inverse import sigmoid_inverse
from steelyard.functional.sigmoid import focal_alpha
from steelyard.nn._base import Loss, weights_from

__all__ = ["AsymmetricLoss", "BCEWithLogitsLoss", "SigmoidFocalLoss"]


class _SigmoidLoss(Loss):
    """Settings that every sigmoid loss has."""

    statistics: ClassVar[tuple[str, ...]] = ("weight", "pos_weight")
    elementwise: ClassVar[tuple[str, ...]] = ("weight", "pos_weight")
    settings: ClassVar[tuple[str, ...]] = ("ignore_index",)
    weight: Tensor | None
    pos_weight: Tensor | None

    def _configure(
        self,
        weight: Any,
        pos_weight: Any,
        reduction: str,
        ignore_index: int | None,
        denominator: Any,
        empty: str,
        inplace_gradient: bool,
    ) -> None:
        self._statistic("weight", weight, per_class=False)
        self._statistic("pos_weight", pos_weight, per_class=False)
        self._keep(reduction, denominator, empty, inplace_gradient)
        self.ignore_index = None if ignore_index is None else integer(type(self).__name__, "ignore_index", ignore_index)
        if self.ignore_index in (0, 1):
            refuse(type(self).__name__, "ignore_index", "other than the targets 0 and 1", repr(ignore_index))

    @classmethod
    def from_counts(
        cls, counts: Any, scheme: None = None, *, positive: Any = None, missing: str = "raise", **options: Any
    ) -> Self:
        """The loss with ``pos_weight`` = negatives / positives, in one line.

        Args:
            counts: Of two classes, or multi-label (:class:`~steelyard.ClassCounts`).
            scheme: None; there is but this one.
            positive, missing: As for :func:`steelyard.pos_weight`.
            **options: The constructor's keywords.

        Returns:
            The loss, its ``pos_weight`` a float32 buffer, ``(1,)`` or ``(C,)``.

        Raises:
            TypeError, ValueError: as :func:`steelyard.pos_weight` and the constructor.

        Example:
            >>> BCEWithLogitsLoss.from_counts([300, 100]).pos_weight
            tensor([3.])
        """
        if scheme is not None:
            refuse(f"{cls.__name__}.from_counts", "scheme", "None: a sigmoid loss weighs negatives / positives", scheme)
        if "pos_weight" in options:
            refuse(f"{cls.__name__}.from_counts", "pos_weight", "left alone: it is what the counts give", "one")
        found = weights_from(counts, partial(weights.pos_weight, positive=positive, missing=missing))
        return cls(pos_weight=found, **options)

    def _options(self, input: Tensor, sample_weight: Any, denominator: Any) -> dict[str, Any]:
        return {
            "weight": row_by_row(type(self).__name__, self._acting(self.weight), sample_weight, input),
            "pos_weight": self._acting(self.pos_weight),
            "reduction": self.reduction,
            "ignore_index": self.ignore_index,
            "denominator": self._divisor(denominator),
            "empty": self.empty,
            "inplace_gradient": self.inplace_gradient,
        }

    def posterior(self, logits: Tensor, prior: Any = None, *, train_prior: Any = None) -> Tensor:
        """Probabilities of each element from the logits of a network that this loss has trained.

        Its weights, focusing and clip taken back out, as :func:`steelyard.posterior.sigmoid_posterior` says, which
        describes arguments, result and errors.

        Args:
            logits: The network's raw output, float, any shape.
            prior: Share of positives where the probabilities are to hold, in (0, 1), a number or one for each class.
                ``None``: where the network was trained.
            train_prior: Share of positives in the rows as training drew them. Goes with ``prior``.

        Returns:
            Probabilities that the answer is yes, shape of ``logits``, float32 or float64.

        Raises:
            NotInvertibleError: settings that leave no way back. TypeError, ValueError: dtypes, shapes.

        Example:
            >>> BCEWithLogitsLoss(pos_weight=[49.0]).posterior(torch.tensor([0.0, 3.0]))
            tensor([0.0200, 0.2907])
        """
        return sigmoid_inverse(
            f"{type(self).__name__}.posterior",
            logits,
            prior=prior,
            train_prior=train_prior,
            weight=self._acting(self.weight),
            pos_weight=self._acting(self.pos_weight),
            **self._bend(),
        )

    def _bend(self) -> dict[str, Any]:
        """What else of the formula this loss sets, as :func:`sigmoid_inverse` takes it."""
        raise NotImplementedError


def row_by_row(name: str, weight: Tensor | None, sample_weight: Any, input: Tensor) -> Any:
    """The element weights of one call: the module's own times one for each row ``(N,)``, or for each element."""
    if sample_weight is None:
        return weight
    check_input(name, input, classes=False)
    rows, elements = _rows_of(name, sample_weight, input), element_values(name, "weight", weight, input)
    return rows if elements is None else rows * elements


def _rows_of(name: str, sample_weight: Any, input: Tensor) -> Tensor:
    """Row weights shaped to broadcast against ``input`` from the left, since rows are counted there."""
    values = as_values(name, "sample_weight", sample_weight, input, "numbers, one for each row")
    refuse_unless_finite(name, "sample_weight", values)
    if values.shape == input.shape:
        return values
    if values.dim() != 1 or values.shape != input.shape[:1]:
        refuse(name, "sample_weight", f"of shape {tuple(input.shape)} or {tuple(input.shape[:1])}",
               f"shape {tuple(values.shape)}")  # fmt: skip
    return values.reshape([-1] + [1] * (input.dim() - 1))


class BCEWithLogitsLoss(_SigmoidLoss):
    """:func:`steelyard.functional.binary_cross_entropy_with_logits` as a module, with PyTorch's constructor.

    Args:
        weight, pos_weight: Finite, broadcast against the input from the right; copied into buffers.
        size_average, reduce: Deprecated, as in PyTorch.
        reduction, ignore_index, gamma_pos, gamma_neg, clip, alpha, denominator, empty, inplace_gradient: As for the
            function.

    Raises:
        TypeError, ValueError: a value that the function would refuse.

    Example:
        >>> BCEWithLogitsLoss(pos_weight=[5.0])(torch.tensor([0.5, 1.5]), torch.tensor([1.0, 0.0]))
        tensor(2.0359)
    """

    settings = ("ignore_index", "gamma_pos", "gamma_neg", "clip", "alpha")

    def __init__(
        self,
        weight: Any = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        pos_weight: Any = None,
        *,
        ignore_index: int | None = None,
        gamma_pos: float = 0.0,
        gamma_neg: float = 0.0,
        clip: float = 0.0,
        alpha: float | None = None,
        denominator: Denominator = "torch",
        empty: Literal["nan", "zero", "raise"] = "nan",
        inplace_gradient: bool = False,
    ) -> None:
        super().__init__()
        reduction = legacy_reduction(size_average, reduce, reduction)
        self._configure(weight, pos_weight, reduction, ignore_index, denominator, empty, inplace_gradient)
        self.gamma_pos = number("BCEWithLogitsLoss", "gamma_pos", gamma_pos, 0.0, float("inf"))
        self.gamma_neg = number("BCEWithLogitsLoss", "gamma_neg", gamma_neg, 0.0, float("inf"))
        self.clip = number("BCEWithLogitsLoss", "clip", clip, 0.0, 1.0, open_end=True)
        self.alpha = None if alpha is None else number("BCEWithLogitsLoss", "alpha", alpha, 0.0, 1.0)

    def forward(
        self, input: Tensor, target: Tensor, *, sample_weight: Any = None, denominator: Denominator | None = None
    ) -> Tensor:
        """The loss; ``sample_weight`` ``(N,)`` or the shape of ``input``, ``denominator`` before the constructor's."""
        return functional.binary_cross_entropy_with_logits(
            input,
            target,
            gamma_pos=self.gamma_pos,
            gamma_neg=self.gamma_neg,
            clip=self.clip,
            alpha=self.alpha,
            **self._options(input, sample_weight, denominator),
        )

    def _bend(self) -> dict[str, Any]:
        return {"gamma_pos": self.gamma_pos, "gamma_neg": self.gamma_neg, "clip": self.clip, "alpha": self.alpha}


class SigmoidFocalLoss(_SigmoidLoss):
    """:func:`steelyard.functional.sigmoid_focal_loss` as a module; its mean is the default, as for every module.

    Args:
        alpha, gamma: As for the function.
        reduction, weight, pos_weight, ignore_index, denominator, empty, inplace_gradient: As for
            :class:`BCEWithLogitsLoss`.

    Raises:
        TypeError, ValueError: a value that the function would refuse.

    Example:
        >>> SigmoidFocalLoss(reduction="none")(torch.tensor([2.0, -2.0]), torch.tensor([1.0, 1.0]))
        tensor([0.0005, 0.4125])
    """

    settings = ("alpha", "gamma", "ignore_index")

    def __init__(
        self,
        alpha: float | None = 0.25,
        gamma: float = 2.0,
        reduction: str = "mean",
        *,
        weight: Any = None,
        pos_weight: Any = None,
        ignore_index: int | None = None,
        denominator: Denominator = "torch",
        empty: Literal["nan", "zero", "raise"] = "nan",
        inplace_gradient: bool = False,
    ) -> None:
        super().__init__()
        self._configure(weight, pos_weight, reduction, ignore_index, denominator, empty, inplace_gradient)
        self.alpha = focal_alpha("SigmoidFocalLoss", alpha)
        self.gamma = number("SigmoidFocalLoss", "gamma", gamma, 0.0, float("inf"))

    def forward(
        self, input: Tensor, target: Tensor, *, sample_weight: Any = None, denominator: Denominator | None = None
    ) -> Tensor:
        """The loss; ``sample_weight`` ``(N,)`` or the shape of ``input``, ``denominator`` before the constructor's."""
        return functional.sigmoid_focal_loss(
            input, target, self.alpha, self.gamma, **self._options(input, sample_weight, denominator)
        )

    def _bend(self) -> dict[str, Any]:
        return {"gamma_pos": self.gamma, "gamma_neg": self.gamma, "alpha": self.alpha}


class AsymmetricLoss(_SigmoidLoss):
    """:func:`steelyard.functional.asymmetric_loss` as a module.

    Args:
        gamma_neg, gamma_pos, clip: As for the function.
        reduction, weight, pos_weight, ignore_index, denominator, empty, inplace_gradient: As for
            :class:`BCEWithLogitsLoss`.

    Raises:
        TypeError, ValueError: a value that the function would refuse.

    Example:
        >>> AsymmetricLoss()(torch.tensor([2.0, 2.0]), torch.tensor([1, 0]))
        tensor(0.4308)
    """

    settings = ("gamma_neg", "gamma_pos", "clip", "ignore_index")

    def __init__(
        self,
        gamma_neg: float = 4.0,
        gamma_pos: float = 1.0,
        clip: float = 0.05,
        reduction: str = "mean",
        *,
        weight: Any = None,
        pos_weight: Any = None,
        ignore_index: int | None = None,
        denominator: Denominator = "torch",
        empty: Literal["nan", "zero", "raise"] = "nan",
        inplace_gradient: bool = False,
    ) -> None:
        super().__init__()
        self._configure(weight, pos_weight, reduction, ignore_index, denominator, empty, inplace_gradient)
        self.gamma_neg = number("AsymmetricLoss", "gamma_neg", gamma_neg, 0.0, float("inf"))
        self.gamma_pos = number("AsymmetricLoss", "gamma_pos", gamma_pos, 0.0, float("inf"))
        self.clip = number("AsymmetricLoss", "clip", clip, 0.0, 1.0, open_end=True)

    def forward(
        self, input: Tensor, target: Tensor, *, sample_weight: Any = None, denominator: Denominator | None = None
    ) -> Tensor:
        """The loss; ``sample_weight`` ``(N,)`` or the shape of ``input``, ``denominator`` before the constructor's."""
        return functional.asymmetric_loss(
            input,
            target,
            self.gamma_neg,
            self.gamma_pos,
            self.clip,
            **self._options(input, sample_weight, denominator),
        )

    def _bend(self) -> dict[str, Any]:
        return {"gamma_pos": self.gamma_pos, "gamma_neg": self.gamma_neg, "clip": self.clip}
