"""What a loss is set to, whoever made it: a module or function of ours or of PyTorch, partly applied or not."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from steelyard._errors import describe, refuse
from steelyard.functional._reduce import legacy_reduction
from steelyard.nn import DeferredReweighting
from steelyard.nn._base import Loss
from steelyard.nn.sigmoid import row_by_row
from steelyard.registry import LOSSES, LossEntry

__all__ = ["KNOWN", "Call", "Settings", "call_of", "known", "settings_of"]

KNOWN = "a loss of steelyard or of PyTorch: CrossEntropyLoss, NLLLoss, BCELoss, BCEWithLogitsLoss or their functions"

USUAL: dict[str, Any] = {"reduction": "mean", "denominator": "torch", "empty": "nan"}

WEIGHTS = ("weight", "pos_weight", "sample_weight", "alpha")
"""Arguments that multiply a loss; without them it is what the row itself costs."""


@dataclass(frozen=True)
class Settings:
    """A loss before it has seen a batch.

    Attributes:
        entry: Its row in the registry.
        name: As its user calls it.
        torch: Whether it is PyTorch's own.
        options: Arguments of the entry's function by name, without input and target.
        function: The function itself, where the loss is no module: the call may still change any argument.
        given: What a partial has already given to it, by position and by name.
        layer: Weight and bias of a loss that makes its own logits.
    """

    entry: LossEntry
    name: str
    torch: bool
    options: dict[str, Any]
    function: Callable[..., Any] | None = None
    given: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
    layer: tuple[Tensor, Tensor | None] | None = field(default=None, repr=False)

    @property
    def exclusive(self) -> bool:
        """Whether classes exclude one another: a row has one class, and a weight for each class."""
        return "elements" not in self.entry.targets

    def option(self, name: str, otherwise: Any = None) -> Any:
        """An argument, or what stands for it where the loss has no such argument."""
        value = self.options.get(name, USUAL.get(name))
        return otherwise if value is None else value


@dataclass(frozen=True)
class Call:
    """A loss with its batch: logits (or probabilities), targets, and every argument by name."""

    settings: Settings
    input: Tensor
    target: Tensor
    options: dict[str, Any]

    @property
    def function(self) -> Callable[..., Tensor]:
        """Of these logits; a loss that makes its own has become the one that takes them."""
        entry = self.settings.entry
        return LOSSES["cross_entropy"].function if entry.input == "features" else entry.function

    @property
    def indices(self) -> bool:
        """Whether the targets are class indices."""
        return self.settings.exclusive and not self.target.is_floating_point()

    @property
    def bare(self) -> dict[str, Any]:
        """The arguments without the weights."""
        return {name: value for name, value in self.options.items() if name not in WEIGHTS}


def settings_of(loss: Any) -> Settings | None:
    """What ``loss`` is set to; None where it is neither ours nor PyTorch's."""
    if isinstance(loss, DeferredReweighting):
        found = settings_of(loss.loss)
        return None if found is None else replace(found, name=f"DeferredReweighting({found.name})")
    if isinstance(loss, Loss):
        return _of_module(loss)
    for entry in LOSSES.values():
        theirs = getattr(torch.nn, entry.module.__name__, None) if entry.torch else None
        if theirs is not None and isinstance(loss, theirs) and type(loss).forward is theirs.forward:
            names = ("weight", "pos_weight", "ignore_index", "label_smoothing", "reduction")
            options = {name: getattr(loss, name) for name in names if hasattr(loss, name)}
            return Settings(entry, type(loss).__name__, True, options, layer=_layer(loss))
    return _of_function(loss)


def _of_module(loss: Loss) -> Settings | None:
    entry = next((entry for entry in LOSSES.values() if isinstance(loss, entry.module)), None)
    if entry is None or type(loss).forward is not entry.module.forward:  # a subclass may compute anything
        return None
    names = {*loss.statistics, *loss.settings, "reduction", "denominator", "empty"}
    options = {name: getattr(loss, name) for name in sorted(names)}
    for name in ("weight", "pos_weight"):
        if name in options:
            options[name] = loss._acting(options[name])
    if hasattr(loss, "smooth_weight") and entry.input != "features":
        options["smooth_weight"] = loss.smooth_weight
    return Settings(entry, type(loss).__name__, False, options, layer=_layer(loss))


def _layer(loss: torch.nn.Module) -> tuple[Tensor, Tensor | None] | None:
    linear = getattr(loss, "linear", None)
    if not isinstance(linear, torch.nn.Linear):
        return None
    shape = (int(loss.num_classes), *loss.out_features)  # type: ignore[misc,arg-type]  # of a module with a layer inside
    bias = None if linear.bias is None else linear.bias.detach().reshape(shape)
    return linear.weight.detach().reshape(*shape, linear.in_features), bias


def _of_function(loss: Any) -> Settings | None:
    before: tuple[Any, ...] = ()
    named: dict[str, Any] = {}
    while isinstance(loss, functools.partial):
        before, named = (*loss.args, *before), {**loss.keywords, **named}
        loss = loss.func
    for entry in LOSSES.values():
        theirs = getattr(torch.nn.functional, entry.torch, None) if entry.torch else None
        if loss is entry.function or (theirs is not None and loss is theirs):
            given = inspect.signature(loss).bind_partial(*before, **named)
            given.apply_defaults()
            options = _flat(given)
            for name in ("input", "target", "linear_weight", "linear_bias"):
                options.pop(name, None)
            return Settings(entry, entry.name, loss is not entry.function, options, loss, (before, named))
    return None


def _flat(bound: inspect.BoundArguments) -> dict[str, Any]:
    """The arguments by name, those behind ``**options`` too, PyTorch's deprecated ones as what they mean."""
    found: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        found.update(value if kind is inspect.Parameter.VAR_KEYWORD else {name: value})
    average, reduce = found.pop("size_average", None), found.pop("reduce", None)
    if average is not None or reduce is not None:
        found["reduction"] = legacy_reduction(average, reduce, found["reduction"])
    for memory_only in ("options", "memory_budget"):  # of linear losses; no number depends on them
        found.pop(memory_only, None)
    return found


def known(name: str, loss: Any) -> Settings:
    """What ``loss`` is set to, or a refusal by ``name``."""
    settings = settings_of(loss)
    if settings is None:
        refuse(name, "loss", KNOWN, describe(loss), "Of another loss, explain the one that it calls.", error=TypeError)
    return settings


def call_of(name: str, loss: Any, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Call:
    """``loss(*inputs, **keywords)`` taken apart, once the loss itself has accepted it; ``name`` is who asks."""
    settings = known(name, loss)
    if settings.function is not None:
        before, named = settings.given
        bound = inspect.signature(settings.function).bind(*before, *inputs, **{**named, **keywords})
        bound.apply_defaults()
        options = _flat(bound)
        input, target = options.pop("input"), options.pop("target")
        layer = (options.pop("linear_weight"), options.pop("linear_bias")) if "linear_weight" in options else None
    else:
        options = dict(settings.options)
        given = inspect.signature(type(loss).forward).bind(None, *inputs, **keywords).arguments
        input, target = given["input"], given["target"]
        layer = settings.layer
        rows, divisor = given.get("sample_weight"), given.get("denominator")
        if divisor is not None:
            options["denominator"] = divisor
        if rows is not None and settings.exclusive:
            options["sample_weight"] = rows
        elif rows is not None:
            options["weight"] = row_by_row(settings.name, options.get("weight"), rows, input)
    if layer is not None:
        input = _logits(input, *layer)
    for argument, value in (("input", input), ("target", target)):
        if not isinstance(value, Tensor):
            refuse(name, argument, "a tensor", describe(value), error=TypeError)
    options = {**USUAL, **options}
    options.pop("inplace_gradient", None)
    if settings.exclusive and options.get("ignore_index") is None:
        options["ignore_index"] = -100
    return Call(settings, input.detach(), target.detach(), options)


def _logits(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    with torch.no_grad():
        flat = weight.reshape(-1, weight.shape[-1])
        made = torch.nn.functional.linear(features, flat, None if bias is None else bias.reshape(-1))
    return made.reshape(*features.shape[:-1], *weight.shape[:-1])
