"""The registry is the list of losses, and every loss in it is documented the same way."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import inspect
import pkgutil
import re
import typing
from types import ModuleType
from typing import Any

import pytest
import torch

import steelyard
from steelyard import functional, nn, posterior, registry
from steelyard.registry import LOSSES, LossEntry

DOCUMENTED = [
    "steelyard._errors",
    "steelyard._values",
    "steelyard.functional",
    "steelyard.functional._check",
    "steelyard.functional._chunks",
    "steelyard.functional._calls",
    "steelyard.functional._denominator",
    "steelyard.functional._device",
    "steelyard.functional._direct",
    "steelyard.functional._family",
    "steelyard.functional._prior",
    "steelyard.functional._reduce",
    "steelyard.functional._watchers",
    "steelyard.functional.inverse",
    "steelyard.functional.likelihood",
    "steelyard.functional.linear",
    "steelyard.functional.sigmoid",
    "steelyard.functional.softmax",
    "steelyard.nn",
    "steelyard.nn._base",
    "steelyard.nn.deferred",
    "steelyard.nn.likelihood",
    "steelyard.nn.sigmoid",
    "steelyard.nn.linear",
    "steelyard.nn.softmax",
    "steelyard.ops",
    "steelyard.ops.cpu",
    "steelyard.ops.gpu",
    "steelyard.ops.library",
    "steelyard.ops.reference",
    "steelyard.posterior",
    "steelyard.posterior._score",
    "steelyard.posterior._search",
    "steelyard.posterior._values",
    "steelyard.posterior.decide",
    "steelyard.posterior.isotonic",
    "steelyard.posterior.measure",
    "steelyard.posterior.plot",
    "steelyard.posterior.prior",
    "steelyard.posterior.scaling",
    "steelyard.posterior.thresholds",
    "steelyard.posterior.undo",
    "steelyard.registry",
]

ENTRIES = pytest.mark.parametrize("entry", LOSSES.values(), ids=lambda entry: entry.name)


def test_every_function_and_every_module_is_in_the_registry_and_the_other_way_round() -> None:
    assert set(LOSSES) == set(functional.__all__)
    assert {entry.module.__name__ for entry in LOSSES.values()} == set(nn.__all__) - {"DeferredReweighting"}
    assert len({entry.module for entry in LOSSES.values()}) == len(LOSSES)
    for name, entry in LOSSES.items():
        assert name == entry.name == entry.function.__name__
        assert getattr(functional, name) is entry.function
        assert getattr(nn, entry.module.__name__) is entry.module


def test_public_names_are_there_and_sorted() -> None:
    for module in (steelyard, functional, nn, posterior, registry):
        assert list(module.__all__) == sorted(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)


@ENTRIES
def test_an_entry_says_what_can_be_said(entry: LossEntry) -> None:
    assert entry.formula in ("softmax", "sigmoid", "likelihood")
    assert entry.input in ("logits", "features", "log-probabilities", "probabilities")
    assert entry.targets
    assert set(entry.targets) <= {"indices", "distribution", "elements"}
    for text in (entry.setting, entry.idea, entry.source):
        assert text.strip() == text != ""
    assert entry.counts == ("counts" in inspect.signature(entry.function).parameters)
    assert entry.counts == ("counts" in inspect.signature(entry.module).parameters)
    with pytest.raises(dataclasses.FrozenInstanceError):
        entry.idea = "another"  # type: ignore[misc]


@ENTRIES
def test_an_entry_takes_the_targets_that_it_names_and_no_others(entry: LossEntry) -> None:
    input = torch.full((3, 3), 0.5)
    given: dict[str, Any] = {"counts": [3, 2, 1]} if entry.counts else {}
    if entry.input == "features":
        given["linear_weight"] = torch.ones(3, 3)
    forms = {
        "indices": torch.tensor([0, 1, 2]),
        "distribution": torch.tensor([[0.5, 0.25, 0.25]] * 3),
        "elements": torch.tensor([[0.5, 1.0, 1.0]] * 3),
    }
    for form in entry.targets:
        assert entry.function(input, target=forms[form], **given).isfinite().all()
    # A distribution and elements have one shape, and nothing tells them apart; both are apart from indices.
    refused = {"indices"} if entry.targets == ("elements",) else {"distribution", "elements"} - {*entry.targets}
    if "distribution" not in entry.targets:
        for form in refused:
            with pytest.raises((TypeError, ValueError)):
                entry.function(input, target=forms[form], **given)


@ENTRIES
def test_pytorch_has_the_name_that_an_entry_gives_and_our_arguments_begin_as_its(entry: LossEntry) -> None:
    if entry.torch is None:
        assert not hasattr(torch.nn.functional, entry.name)
        return
    assert entry.torch == entry.name
    theirs = getattr(torch.nn.functional, entry.torch, None)
    if theirs is None:
        assert entry.torch == "linear_cross_entropy"  # since PyTorch 2.13
        assert torch.__version__ < "2.13"
        return
    if (module := getattr(torch.nn, entry.module.__name__, None)) is not None:
        _begins_as(entry.module, module)
    _begins_as(entry.function, theirs)


def _begins_as(ours: Any, theirs: Any) -> None:
    """The same names, order, kinds and defaults; whatever comes after is keyword-only."""
    mine = [p for p in inspect.signature(ours).parameters.values() if p.name != "self"]
    yours = [p for p in inspect.signature(theirs).parameters.values() if p.name != "self"]
    by_position = [p for p in yours if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [(p.name, p.default) for p in mine[: len(by_position)]] == [(p.name, p.default) for p in by_position]
    rest = {p.name: p for p in mine[len(by_position) :]}
    assert all(p.kind is p.KEYWORD_ONLY for p in rest.values())
    for p in yours[len(by_position) :]:
        assert rest[p.name].default == p.default


@ENTRIES
def test_function_and_module_have_the_same_options_with_the_same_defaults(entry: LossEntry) -> None:
    function, module = _options(entry.function), _options(entry.module)
    for name in ("input", "target", "sample_weight", "linear_weight", "linear_bias"):
        function.pop(name, None)
    for name in ("in_features", "num_classes", "out_features", "bias", "device", "dtype"):
        module.pop(name, None)
    assert module.keys() <= function.keys()
    assert function.keys() - module.keys() <= {"gamma"}  # focusing on top of a shift: functions only
    for name, default in module.items():
        expected = function[name]
        if name == "reduction":  # torchvision's function gives the elements, but a module is a loss to minimise
            expected = "mean"
        if expected is not _UNSAID:
            assert default == expected, name


_UNSAID = object()


def _options(function: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for p in inspect.signature(function).parameters.values():
        if p.kind is p.VAR_KEYWORD:
            (options,) = typing.get_args(typing.get_type_hints(function)[p.name])
            found |= dict.fromkeys(typing.get_type_hints(options), _UNSAID)
        elif p.name != "self":
            found[p.name] = p.default
    return found


# ----------------------------------------------------------------------------------------------------------- docstrings


PARTS = ("Args", "Returns", "Raises", "Example", "Source")


def parts_of(text: str) -> dict[str, str]:
    """A docstring by its headings; what comes before the first is ``""``."""
    found, heading = {"": ""}, ""
    for line in inspect.cleandoc(text).splitlines():
        match = re.match(rf"({'|'.join(PARTS)}):(.*)$", line)
        if match:
            heading = match[1]
            assert heading not in found, f"{heading} twice"
            found[heading] = match[2]
        else:
            found[heading] += "\n" + line
    return found


@ENTRIES
def test_docstring_of_a_function_has_its_parts_in_order(entry: LossEntry) -> None:
    text = entry.function.__doc__ or ""
    parts = parts_of(text)
    assert list(parts) == ["", *(part for part in PARTS if part in parts)]
    assert parts.keys() >= {"", "Args", "Returns", "Raises", "Example"}
    assert all(part.strip() for part in parts.values())
    first, blank, *rest = inspect.cleandoc(text).splitlines()
    assert first.endswith(".")
    assert blank == ""
    assert "Equals" in "\n".join(rest)  # the line of PyTorch that it stands for, or the formula
    if not entry.source.startswith("PyTorch"):
        arxiv = re.findall(r"arXiv:[\d.]+\d", entry.source)
        assert arxiv
        assert all(paper in parts["Source"] for paper in arxiv)
        assert re.search(r"eq\. \d|§\d|Algorithm \d", parts["Source"])


@ENTRIES
def test_docstring_mentions_every_argument(entry: LossEntry) -> None:
    """By name in Args, or for what comes behind ``**options``, in those of the function that Args points to."""
    text = parts_of(entry.function.__doc__ or "")["Args"]
    named = {name for line in text.splitlines() for name in re.findall(r"\*{0,2}\b([a-z_]+)\b", line.split(":")[0])}
    for p in inspect.signature(entry.function).parameters.values():
        assert p.name in named, p.name
        if p.kind is p.VAR_KEYWORD:
            (base,) = re.findall(rf"\*\*{p.name}: Keywords of :func:`(?:~steelyard\.functional\.)?(\w+)`", text)
            listed = parts_of(LOSSES[base].function.__doc__ or "")["Args"]
            (options,) = typing.get_args(typing.get_type_hints(entry.function)[p.name])
            for name in typing.get_type_hints(options):
                assert re.search(rf"\b{name}\b[\w, ]*:", listed), name


@ENTRIES
def test_docstring_of_a_module_has_its_parts_and_mentions_every_argument(entry: LossEntry) -> None:
    parts = parts_of(entry.module.__doc__ or "")
    assert list(parts)[:4] == ["", "Args", "Raises", "Example"]
    assert f":func:`steelyard.functional.{entry.name}`" in parts[""]
    for name in inspect.signature(entry.module).parameters:
        assert re.search(rf"\b{name}\b", parts["Args"]), name
    assert entry.module.forward.__doc__


def test_docstring_of_deferred_reweighting_has_its_parts() -> None:
    parts = parts_of(nn.DeferredReweighting.__doc__ or "")
    assert list(parts) == ["", "Args", "Raises", "Example", "Source"]
    for name in inspect.signature(nn.DeferredReweighting).parameters:
        assert re.search(rf"\b{name}\b", parts["Args"]), name


def test_every_module_of_these_rooms_is_listed_here() -> None:
    for room in (steelyard.ops, functional, nn, posterior):
        (folder,) = room.__path__
        files = {f"{room.__name__}.{info.name}" for info in pkgutil.iter_modules([folder])}
        assert files <= set(DOCUMENTED)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_examples_run_and_print_what_they_say(name: str) -> None:
    module: ModuleType = importlib.import_module(name)
    assert (module.__doc__ or "").strip()
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    names = vars(functional) | vars(nn) | {"torch": torch}  # an example uses what stands beside it
    for test in finder.find(module, name, module, globs={**names, **vars(module), "torch": torch}):
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


@ENTRIES
def test_every_loss_has_an_example_with_a_result(entry: LossEntry) -> None:
    for owner in (entry.function, entry.module):
        examples = doctest.DocTestParser().get_examples(owner.__doc__ or "")
        assert any(example.want for example in examples)
