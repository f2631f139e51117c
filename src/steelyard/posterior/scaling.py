r"""Calibration in one step: logits, scaled and shifted so that held-out labels become as likely as they can.

Both scalings minimise the log loss of ``z·scale + bias`` on rows that the network has not learnt from, by LBFGS in
float64. Temperature has one scale for all classes and leaves every ranking as it is; vector scaling has one for each.
A bias corrects how often each class is said, which a scale alone cannot.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from steelyard._errors import refuse
from steelyard._values import numbers
from steelyard.posterior._values import logits_and_labels, real

__all__ = ["TemperatureScaling", "VectorScaling"]

FARTHEST = 10.0
"""A temperature above e to this is none: the logits say nothing about the labels."""
FEWEST = 30
"""Rows of a class below which what is fitted to them is mostly chance."""


class _Scaling:
    """``z·scale + bias``, fitted; softmax over classes, or a sigmoid for each element."""

    has_bias: bool

    def __init__(self) -> None:
        self.scale: Tensor | None = None
        self.bias: Tensor | None = None
        self.elements: bool | None = None

    def fit(self, logits: Any, labels: Any) -> Self:
        """Fit to held-out rows.

        Args:
            logits: Raw output of the network, or the log of its posterior, for rows that it has not learnt from, in the
                mix of classes where the probabilities are to hold: ``(N, C)`` or ``(N, C, d1, ...)``; ``(N,)`` for
                yes/no.
            labels: Class numbers, ``(N,)`` or ``(N, d1, ...)``; or 0 and 1 in the shape of the logits, for yes/no.

        Returns: itself.

        Raises: TypeError, ValueError: dtypes, shapes, a value that is not finite. IndexError: a label out of range.

        Warns: UserWarning: a class with fewer than 30 rows; labels that the logits separate, or that they do not know.
        """
        name = f"{type(self).__name__}.fit"
        z, y = logits_and_labels(name, logits, labels)
        elements = y.shape == z.shape
        _warn_of_few(name, y, z.shape[1], elements)
        scale, bias = self._start(z.shape[1])
        free = [scale, bias] if self.has_bias else [scale]
        for tensor in free:
            tensor.requires_grad_()
        optimizer = torch.optim.LBFGS(
            free, max_iter=1000, tolerance_grad=1e-10, tolerance_change=1e-14, history_size=20,
            line_search_fn="strong_wolfe",
        )  # fmt: skip

        def loss() -> Tensor:
            optimizer.zero_grad()
            scaled = z * self._factor(scale) + bias
            value = binary_cross_entropy_with_logits(scaled, y.double()) if elements else cross_entropy(scaled, y)
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)
            left = float(loss().detach())
        factor, shift = self._factor(scale.detach()), bias.detach()
        steep = max(float(tensor.grad.abs().max()) for tensor in free if tensor.grad is not None)
        if steep > 1e-4:
            text = f"{name}: the log loss still falls (slope {steep:.1e}): the best there is was not reached."
            warnings.warn(text, UserWarning, stacklevel=2)
        if left < 1e-8:
            warnings.warn(f"{name}: the logits separate the labels, so that no scale is the best.", UserWarning, 2)
        self._warn_of_ignorance(name, factor)
        self.scale, self.elements = factor, elements
        self.bias = shift  # over classes it adds up to 0, where it began: a constant has no slope
        return self

    def transform(self, logits: Any) -> Any:
        """Calibrated logits: their softmax (for yes/no, their sigmoid) is what to trust. Shape of ``logits``."""
        name = f"{type(self).__name__}.transform"
        scale, bias = self._fitted(name)
        z = numbers(name, "logits", logits, "logits")
        dtype = torch.promote_types(z.dtype if z.is_floating_point() else torch.float64, torch.float32)
        one_question = self.elements and len(bias) == 1 and z.dim() == 1  # (N,): each row is an answer to it
        axis = 1 if z.dim() > 1 else 0
        if z.dim() == 0 or (not one_question and z.shape[axis] != len(bias)):
            refuse(name, "logits", f"of {len(bias)} classes, as in fit", f"shape {tuple(z.shape)}")
        shape = [1] * z.dim()
        shape[axis] = len(bias)
        z = z.to(dtype)
        factor = scale.to(z) if scale.dim() == 0 else scale.to(z).reshape(shape)
        result = z * factor + bias.to(z).reshape(shape)
        return result if isinstance(logits, Tensor) else result.numpy()

    def predict_proba(self, logits: Any) -> Any:
        """Calibrated probabilities, shape of ``logits``."""
        z = self.transform(logits)
        t = z if isinstance(z, Tensor) else torch.from_numpy(z)
        p = t.sigmoid() if self.elements else t.softmax(1 if t.dim() > 1 else 0)
        return p if isinstance(z, Tensor) else p.numpy()

    def state_dict(self) -> dict[str, Tensor]:
        """What was fitted, for ``torch.save``: ``scale``, ``bias`` and ``elements``."""
        scale, bias = self._fitted(f"{type(self).__name__}.state_dict")
        return {"scale": scale.clone(), "bias": bias.clone(), "elements": torch.tensor(bool(self.elements))}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> Self:
        """Take over what another has fitted; all of it or nothing.

        Raises: ValueError: keys or shapes that ``state_dict`` of this class does not give.
        """
        name = f"{type(self).__name__}.load_state_dict"
        if not isinstance(state, Mapping) or set(state) != {"scale", "bias", "elements"}:
            got = sorted(state) if isinstance(state, Mapping) else state
            refuse(name, "state", "what state_dict gives: scale, bias and elements", got)
        scale, bias = (torch.from_numpy(real(name, "state", state[word], word)).clone() for word in ("scale", "bias"))
        if bias.dim() != 1 or scale.shape != self._start(len(bias))[0].shape:
            refuse(name, "state", f"that of a {type(self).__name__}",
                   f"a scale of shape {tuple(scale.shape)} and a bias of shape {tuple(bias.shape)}")  # fmt: skip
        self.scale, self.bias, self.elements = scale, bias, bool(state["elements"])
        return self

    def __repr__(self) -> str:
        if self.scale is None or self.bias is None:
            return f"{type(self).__name__}(not fitted)"
        return f"{type(self).__name__}(scale={_short(self.scale)}, bias={_short(self.bias)})"

    def _fitted(self, name: str) -> tuple[Tensor, Tensor]:
        if self.scale is None or self.bias is None:
            raise RuntimeError(f"{name}: 'self' must be fitted; got one that is not. Call fit(logits, labels) first.")
        return self.scale, self.bias

    def _start(self, classes: int) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _factor(self, scale: Tensor) -> Tensor:
        raise NotImplementedError

    def _warn_of_ignorance(self, name: str, factor: Tensor) -> None:
        """Say where the logits are of no use at all."""


class TemperatureScaling(_Scaling):
    r"""One temperature for all logits: the usual cure of a network that is too sure of itself.

    Equals ``(logits / T + bias).softmax(1)``, with the T > 0 (and bias) that make the log loss of the labels least.

    Args:
        bias: Whether to fit a bias for each class too (bias-corrected temperature scaling). Without one, how often each
            class is said on average stays wrong where it was wrong.

    Example:
        >>> logits, labels = torch.tensor([[4.0, 0.0]] * 100), torch.tensor([0] * 75 + [1] * 25)
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     calibrated = TemperatureScaling().fit(logits, labels)
        >>> round(calibrated.temperature, 3)  # log 3 is the right logit, and 4 was said
        3.641
        >>> calibrated.predict_proba(logits[:1])
        tensor([[0.7500, 0.2500]])

    Source: Guo et al., ICML 2017, arXiv:1706.04599, §4.2; with a bias: Alexandari et al., ICML 2020, arXiv:1901.06852.
    """

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        if not isinstance(bias, bool):
            refuse("TemperatureScaling", "bias", "True or False", bias, error=TypeError)
        self.has_bias = bias

    @property
    def temperature(self) -> float:
        """T, in units of the logits."""
        return float(1.0 / self._fitted("TemperatureScaling.temperature")[0])

    def _start(self, classes: int) -> tuple[Tensor, Tensor]:
        return torch.zeros((), dtype=torch.float64), torch.zeros(classes, dtype=torch.float64)

    def _factor(self, scale: Tensor) -> Tensor:
        return scale.clamp(-2.0 * FARTHEST, 2.0 * FARTHEST).exp()  # of its logarithm, so that T stays positive

    def _warn_of_ignorance(self, name: str, factor: Tensor) -> None:
        if float(factor.log()) < -FARTHEST:
            text = f"{name}: the best temperature is infinite: the logits know nothing of the labels, or the opposite."
            warnings.warn(text, UserWarning, stacklevel=3)


class VectorScaling(_Scaling):
    r"""A scale and a bias for each class: where some classes are surer of themselves than they should be.

    Twice as many parameters as classes, so it wants more held-out rows than a temperature does; it may change rankings.

    Equals ``(logits * scale + bias).softmax(1)``, with the scale and bias that make the log loss of the labels least.

    Example:
        >>> logits, labels = torch.tensor([[4.0, 0.0]] * 100), torch.tensor([0] * 75 + [1] * 25)
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     calibrated = VectorScaling().fit(logits, labels)
        >>> calibrated.predict_proba(logits[:1])
        tensor([[0.7500, 0.2500]])

    Source: Guo et al., ICML 2017, arXiv:1706.04599, §4.2; Alexandari et al., ICML 2020, arXiv:1901.06852, for the bias.
    """

    has_bias = True

    def _start(self, classes: int) -> tuple[Tensor, Tensor]:
        return torch.ones(classes, dtype=torch.float64), torch.zeros(classes, dtype=torch.float64)

    def _factor(self, scale: Tensor) -> Tensor:
        return scale


def _warn_of_few(name: str, y: Tensor, classes: int, elements: bool) -> None:
    rows = torch.stack([y, 1 - y]).sum(1).amin(0) if elements else torch.bincount(y, minlength=classes)
    fewest = int(rows.min())
    if fewest < FEWEST:
        where = f"class {int(rows.argmin())} has {fewest}"
        warnings.warn(f"{name}: calibration wants {FEWEST} rows of every class; {where}.", UserWarning, stacklevel=3)


def _short(values: Tensor) -> str:
    return f"{float(values):.4g}" if values.dim() == 0 else "[" + ", ".join(f"{v:.4g}" for v in values.tolist()) + "]"
