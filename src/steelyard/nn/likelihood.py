"""Modules of the losses on log-probabilities and probabilities."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from steelyard import functional
from steelyard._values import integer
from steelyard.functional._reduce import Denominator, legacy_reduction
from steelyard.functional.inverse import bce_inverse, softmax_inverse
from steelyard.nn._base import Loss, WeightedLoss
from steelyard.nn.sigmoid import row_by_row

__all__ = ["BCELoss", "NLLLoss"]


class NLLLoss(WeightedLoss):
    """:func:`steelyard.functional.nll_loss` as a module, with the constructor of ``torch.nn.NLLLoss``.

    Args:
        weight: Class weights, finite, ``(C,)``; copied into a buffer.
        size_average, reduce: Deprecated, as in PyTorch.
        ignore_index, reduction, denominator, empty: As for the function.

    Raises:
        TypeError, ValueError: a value that the function would refuse.

    Example:
        >>> NLLLoss()(torch.tensor([[-0.1, -2.4]]), torch.tensor([1]))
        tensor(2.4000)
    """

    statistics = ("weight",)
    settings = ("ignore_index",)
    weight: Tensor | None

    def __init__(
        self,
        weight: Any = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        *,
        denominator: Denominator = "torch",
        empty: Literal["nan", "zero", "raise"] = "nan",
    ) -> None:
        super().__init__()
        self._statistic("weight", weight)
        self._keep(legacy_reduction(size_average, reduce, reduction), denominator, empty)
        self.ignore_index = integer("NLLLoss", "ignore_index", ignore_index)

    def forward(
        self, input: Tensor, target: Tensor, *, sample_weight: Any = None, denominator: Denominator | None = None
    ) -> Tensor:
        """The loss; ``sample_weight`` and ``denominator`` as for the function, the latter before the constructor's."""
        return functional.nll_loss(
            input,
            target,
            self._acting(self.weight),
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            sample_weight=sample_weight,
            denominator=self._divisor(denominator),
            empty=self.empty,  # type: ignore[arg-type]  # checked by the constructor
        )

    def posterior(self, input: Tensor, prior: Any = None, *, train_prior: Any = None) -> Tensor:
        """Class probabilities from the log-probabilities of a network that this loss has trained.

        ``exp(input)/weight``, renormalised: a log-softmax at the network's end makes this loss cross entropy.

        Args:
            input: What ``forward`` takes: log-probabilities, float, ``(C,)``, ``(N, C)`` or ``(N, C, d1, ...)``. Logits
                give the same.
            prior, train_prior: As for :meth:`CrossEntropyLoss.posterior`.

        Returns:
            Probabilities along the class axis, shape of ``input``, float32 or float64.

        Raises:
            NotInvertibleError: a weight ≤ 0. TypeError, ValueError: dtypes, shapes.

        Example:
            >>> NLLLoss(weight=[1.0, 9.0]).posterior(torch.tensor([[0.5, 0.5]]).log())
            tensor([[0.9000, 0.1000]])
        """
        return softmax_inverse(
            "NLLLoss.posterior", input, argument="input", meaning="log-probabilities",
            prior=prior, train_prior=train_prior, weight=self._acting(self.weight),
        )  # fmt: skip


class BCELoss(Loss):
    """:func:`steelyard.functional.binary_cross_entropy` as a module, with the constructor of ``torch.nn.BCELoss``.

    Args:
        weight: Finite, broadcast against the input from the right; copied into a buffer.
        size_average, reduce: Deprecated, as in PyTorch.
        reduction, denominator, empty: As for the function.

    Raises:
        TypeError, ValueError: a value that the function would refuse.

    Example:
        >>> BCELoss()(torch.tensor([0.8, 0.2, 0.4]), torch.tensor([1.0, 0.0, 0.0]))
        tensor(0.3190)
    """

    statistics = ("weight",)
    elementwise = ("weight",)
    weight: Tensor | None

    def __init__(
        self,
        weight: Any = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        *,
        denominator: Denominator = "torch",
        empty: Literal["nan", "zero", "raise"] = "nan",
    ) -> None:
        super().__init__()
        self._statistic("weight", weight, per_class=False)
        self._keep(legacy_reduction(size_average, reduce, reduction), denominator, empty)

    def forward(
        self, input: Tensor, target: Tensor, *, sample_weight: Any = None, denominator: Denominator | None = None
    ) -> Tensor:
        """The loss; ``sample_weight`` ``(N,)`` or the shape of ``input``, ``denominator`` before the constructor's."""
        return functional.binary_cross_entropy(
            input,
            target,
            row_by_row("BCELoss", self._acting(self.weight), sample_weight, input),
            reduction=self.reduction,
            denominator=self._divisor(denominator),
            empty=self.empty,  # type: ignore[arg-type]  # checked by the constructor
        )

    def posterior(self, input: Tensor, prior: Any = None, *, train_prior: Any = None) -> Tensor:
        """The probabilities themselves, which this loss leaves as they are; with ``prior``, shifted to it.

        ``weight`` weighs both answers alike and moves nothing.

        Args:
            input: What ``forward`` takes: probabilities in [0, 1], float, any shape.
            prior, train_prior: As for :meth:`BCEWithLogitsLoss.posterior`.

        Returns:
            Probabilities that the answer is yes, shape of ``input``, float32 or float64.

        Raises:
            NotInvertibleError: a weight ≤ 0. ValueError: a probability outside [0, 1]. TypeError, ValueError: dtypes,
            shapes.

        Example:
            >>> BCELoss().posterior(torch.tensor([0.5]), prior=0.02, train_prior=0.5)
            tensor([0.0200])
        """
        return bce_inverse("BCELoss.posterior", input, prior, train_prior, self._acting(self.weight))
