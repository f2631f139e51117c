"""The module of ``linear_cross_entropy``, with the layer inside; the mathematics is in the function."""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from steelyard import functional
from steelyard._errors import describe, refuse
from steelyard._values import integer
from steelyard.functional._reduce import Denominator
from steelyard.functional.linear import check_budget, check_options, linear_logits
from steelyard.nn._base import WEIGHT_OPTIONS, WeightedLoss
from steelyard.nn.softmax import CrossEntropyLoss, SoftmaxLoss

__all__ = ["LayerLoss", "LinearCrossEntropyLoss"]


class LayerLoss(SoftmaxLoss, WeightedLoss):
    """What losses with a linear classifier inside have in common, wherever its classes are."""

    statistics = ("weight", "logit_offset")
    logit_offset: Tensor | None

    def _make(
        self, sizes: list[tuple[str, int]], num_classes: int, bias: Any, memory_budget: int | None, logit_offset: Any,
        *settings: Any,
    ) -> None:  # fmt: skip
        """Check and keep what the constructors are given; ``settings`` as for ``_configure``."""
        name = type(self).__name__
        self.memory_budget = check_budget(name, memory_budget)
        for argument, size in sizes:
            if integer(name, argument, size) < 1:
                refuse(name, argument, "≥ 1", repr(size))
        if not isinstance(bias, bool):
            refuse(name, "bias", "True or False", describe(bias), error=TypeError)
        self._configure(*settings)
        self._statistic("logit_offset", logit_offset, minus_infinity=True)
        for argument in self.statistics:
            values = getattr(self, argument)
            if values is not None and values.shape != (num_classes,):
                refuse(name, argument, f"of shape ({num_classes},), one number for each class",
                       f"shape {tuple(values.shape)}")  # fmt: skip
        self.num_classes = integer(name, "num_classes", num_classes)

    @classmethod
    def from_counts(  # type: ignore[override]  # a layer needs its size
        cls, counts: Any, scheme: Any = "max_ratio", *, in_features: int, **options: Any
    ) -> Self:
        """As :meth:`CrossEntropyLoss.from_counts`; the number of classes is that of the counts."""
        made = CrossEntropyLoss.from_counts(
            counts, scheme, **{name: options.pop(name) for name in list(options) if name in WEIGHT_OPTIONS}
        )
        assert made.weight is not None
        return cls(in_features, len(made.weight), weight=made.weight, **options)


class LinearCrossEntropyLoss(LayerLoss):
    """:func:`steelyard.functional.linear_cross_entropy` with the layer inside, as ``torch.nn.LinearCrossEntropyLoss``.

    Args:
        in_features: Size of a sample.
        num_classes: C.
        out_features: ``(d1, ...)`` for logits ``(N, C, d1, ...)``.
        bias: Whether the layer has one.
        device, dtype: Of the layer.
        reduction, weight, ignore_index, label_smoothing, options: As for the function.
        logit_offset, denominator, empty, memory_budget: As for the function.

    Raises:
        TypeError, ValueError: a value that the function would refuse.

    Example:
        >>> loss = LinearCrossEntropyLoss(4, 3, bias=True)
        >>> loss(torch.zeros(2, 4), torch.tensor([0, 2])).shape
        torch.Size([])
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: Any = None,
        dtype: Any = None,
        reduction: str = "mean",
        weight: Any = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: Any = None,
        logit_offset: Any = None,
        denominator: Denominator = "torch",
        empty: Literal["nan", "zero", "raise"] = "nan",
        memory_budget: int | None = None,
    ) -> None:
        super().__init__()
        name = "LinearCrossEntropyLoss"
        check_options(name, options)
        if not isinstance(out_features, tuple | list):
            refuse(name, "out_features", "a tuple of sizes", describe(out_features), error=TypeError)
        sizes = [("in_features", in_features), ("num_classes", num_classes)]
        sizes += [("out_features", size) for size in out_features]
        ignored = -100 if ignore_index is None else ignore_index
        self._make(sizes, num_classes, bias, memory_budget, logit_offset,
                   weight, ignored, reduction, label_smoothing, "class", denominator, empty)  # fmt: skip
        self.ignore_index = ignore_index
        self.out_features = tuple(out_features)
        self.options = options
        units = num_classes * int(torch.Size(self.out_features).numel())
        self.linear = nn.Linear(in_features, units, bias=bias, device=device, dtype=dtype)

    def forward(
        self, input: Tensor, target: Tensor, *, sample_weight: Any = None, denominator: Denominator | None = None
    ) -> Tensor:
        """The loss; ``sample_weight`` and ``denominator`` as for the function, the latter before the constructor's."""
        weight, bias = self._layer()
        options = self._options(sample_weight, denominator)
        del options["smooth_weight"], options["inplace_gradient"]  # its logits are its own
        return functional.linear_cross_entropy(
            input,
            weight,
            target,
            linear_bias=bias,
            options=self.options,
            logit_offset=self.logit_offset,
            memory_budget=self.memory_budget,
            **options,
        )

    def posterior(self, input: Tensor, prior: Any = None, *, train_prior: Any = None) -> Tensor:
        """Class probabilities from features, by way of the layer inside; else as :meth:`CrossEntropyLoss.posterior`.

        Args:
            input: What ``forward`` takes: features, float, ``(in,)`` or ``(N, in)``.
            prior, train_prior: As for :meth:`CrossEntropyLoss.posterior`.

        Returns:
            Probabilities along the class axis, ``(C,)``, ``(N, C)`` or ``(N, C, d1, ...)``: the logits are made here.

        Raises:
            NotInvertibleError: settings that leave no way back. TypeError, ValueError: dtypes, shapes.
        """
        return super().posterior(linear_logits("LinearCrossEntropyLoss.posterior", input, *self._layer()), prior,
                                 train_prior=train_prior)  # fmt: skip

    def _layer(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the layer, in the shape of its outputs."""
        shape = (self.num_classes, *self.out_features)
        bias = None if self.linear.bias is None else self.linear.bias.reshape(shape)
        return self.linear.weight.reshape(*shape, self.linear.in_features), bias

    def _bend(self, name: str, logits: Tensor) -> dict[str, Any]:
        return {"logit_offset": self.logit_offset}
