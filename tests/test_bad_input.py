"""Bad values for every argument of every loss, generated from the registry.

``BAD`` holds them by the name of the argument, since a word means the same throughout the library. Each must be refused
in the house's one sentence, by the name of what the user called; a test says which argument has no bad value yet.
"""

from __future__ import annotations

import inspect
import math
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from steelyard import nn
from steelyard.registry import LOSSES, LossEntry

NAN, INF = math.nan, math.inf
C = 3


# ------------------------------------------------------------------------------------------------- what can be called


@dataclass(frozen=True)
class Site:
    """A function, a constructor or a ``forward``, with arguments that it takes."""

    name: str
    kind: str  # "function", "constructor" or "forward"
    call: Callable[..., Any]
    arguments: tuple[str, ...]
    good: dict[str, Any] = field(hash=False)
    entry: LossEntry | None = None
    answers_as: tuple[str, ...] = ()  # a forward hands on to the function of the same loss, which speaks for itself

    def __str__(self) -> str:
        return self.name

    @property
    def elements(self) -> bool:
        return self.entry is not None and self.entry.targets == ("elements",)


def arguments_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """The arguments by name, those behind ``**options`` as its TypedDict lists them."""
    names: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            names.append(parameter.name)
            continue
        (options,) = typing.get_args(typing.get_type_hints(function)[parameter.name])
        names += list(typing.get_type_hints(options))
    return tuple(name for name in names if name != "self")


def _good(entry: LossEntry) -> dict[str, Any]:
    g = torch.Generator().manual_seed(0)
    values: dict[str, Any] = {"input": torch.randn(3, C, generator=g)}
    if entry.input == "features":
        values["linear_weight"] = torch.randn(C, C, generator=g)
    elif entry.input == "probabilities":
        values["input"] = values["input"].sigmoid()
    elif entry.input == "log-probabilities":
        values["input"] = values["input"].log_softmax(1)
    values["target"] = torch.eye(3) if entry.targets == ("elements",) else torch.tensor([0, 1, 2])
    return values


def _sites() -> list[Site]:
    sites = []
    for entry in LOSSES.values():
        counts = {"counts": [5, 3, 1]} if entry.counts else {}
        sites.append(
            Site(entry.name, "function", entry.function, arguments_of(entry.function), _good(entry) | counts, entry)
        )
        layer = {"in_features": C, "num_classes": C} if entry.input == "features" else {}
        name = entry.module.__name__
        sites.append(Site(name, "constructor", entry.module, arguments_of(entry.module), counts | layer, entry))
        module = entry.module(**counts, **layer)
        good = {key: value for key, value in _good(entry).items() if key != "linear_weight"}
        forward = tuple(argument for argument in arguments_of(entry.module.forward))
        sites.append(Site(f"{name}.forward", "forward", module, forward, good, entry, (name, entry.name)))
    loss = nn.CrossEntropyLoss(weight=[1.0, 2.0, 3.0])
    deferred = nn.DeferredReweighting
    sites.append(
        Site("DeferredReweighting", "constructor", deferred, arguments_of(deferred), {"loss": loss, "start_epoch": 1})
    )
    module = deferred(loss, 1)
    sites.append(
        Site("DeferredReweighting.set_epoch", "forward", module.set_epoch, ("epoch",), {"epoch": 1}, None,
             ("DeferredReweighting.set_epoch",))
    )  # fmt: skip
    sites.append(
        Site("DeferredReweighting.forward", "forward", module, arguments_of(deferred.forward),
             _good(LOSSES["cross_entropy"]), LOSSES["cross_entropy"], ("cross_entropy",))
    )  # fmt: skip
    return sites


SITES = _sites()


# ------------------------------------------------------------------------------------------------------- what is bad


@dataclass(frozen=True)
class Bad:
    """A value that must be refused with ``error``, and a message that has ``says`` in it."""

    value: Any
    error: type[Exception] | tuple[type[Exception], ...]
    says: str = ""
    where: Callable[[Site], bool] = lambda site: True
    also: dict[str, Any] = field(default_factory=dict)
    blames: str | None = None  # the argument that the message names, where it is another one
    own_words: bool = True  # False: the sentence is PyTorch's


def classes(site: Site) -> bool:
    return not site.elements


def elements(site: Site) -> bool:
    return site.elements


def called(site: Site) -> bool:
    return site.kind != "constructor"


def both(*conditions: Callable[[Site], bool]) -> Callable[[Site], bool]:
    return lambda site: all(condition(site) for condition in conditions)


def takes(form: str) -> Callable[[Site], bool]:
    return lambda site: site.entry is not None and form in site.entry.targets


def holds(*meanings: str) -> Callable[[Site], bool]:
    return lambda site: site.entry is not None and site.entry.input in meanings


def lacks(*names: str) -> Callable[[Site], bool]:
    return lambda site: site.name not in names


def knows_c(site: Site) -> bool:
    """Whether there is a number of classes to compare with."""
    return site.kind == "function" or site.entry is None or site.entry.counts or site.entry.input == "features"


ROW = torch.tensor([0, 1, 2])
SOFT = torch.full((3, C), 1 / C)
MANY = np.array([1.0, 2.0, 3.0])
LEAF = torch.zeros(3, C, requires_grad=True)
NUMBERS = [["a", "b", "c"], "abc", {"a": 1}, torch.ones(C, dtype=torch.complex64), [True, False, True]]
NO_NUMBER = [True, "1", None, [1.0], 1j, torch.tensor(1.0)]


def positive_number(*, zero: bool = True) -> list[Bad]:
    rows = [Bad(value, TypeError, "a number in") for value in NO_NUMBER]
    rows += [Bad(value, ValueError, "a number in") for value in (-1.0, -1e-9, NAN, INF, -INF)]
    return rows if zero else [*rows, Bad(0.0, ValueError, "> 0"), Bad(0, ValueError, "> 0")]


def whole_number(least: int | None = None) -> list[Bad]:
    rows = [Bad(value, TypeError, "an integer") for value in (1.5, True, "1", [1], torch.tensor(1))]
    return rows if least is None else [*rows, *(Bad(value, ValueError, f"≥ {least}") for value in (least - 1, -7))]


def word(*allowed: str) -> list[Bad]:
    listed = "one of " + ", ".join(repr(one) for one in allowed)
    return [Bad(value, ValueError, listed) for value in (allowed[0].upper(), "", "batchmean")] + [
        Bad(value, TypeError, listed) for value in (None, 1, True, list(allowed))
    ]


def per_class(*, minus_infinity: bool = False) -> list[Bad]:
    rows = [Bad(value, TypeError, "numbers", classes) for value in NUMBERS]
    rows += [
        Bad([1.0, value, 3.0], ValueError, rf"finite.*; got {value} at position \(1,\)", classes)
        for value in ((NAN, INF) if minus_infinity else (NAN, INF, -INF))
    ]
    rows += [Bad(torch.ones(C, C), ValueError, r"of shape \(", classes)]
    rows += [Bad(5.0, ValueError, r"of shape \(", classes)]
    rows += [
        Bad(value, ValueError, r"of shape \(3,\), one number for each class; got shape", both(classes, knows_c))
        for value in ([1.0, 2.0], torch.ones(C + 1), torch.ones(1), [])
    ]
    device = both(classes, lambda site: site.kind == "function")
    return [*rows, Bad(torch.ones(C, device="meta"), ValueError, "on the device of 'input', cpu; got one on", device)]


def per_element() -> list[Bad]:
    rows = [Bad(value, TypeError, "numbers", elements) for value in NUMBERS]
    rows += [
        Bad([1.0, value, 3.0], ValueError, rf"finite; got {value} at position \(1,\)", elements)
        for value in (NAN, INF, -INF)
    ]
    function = both(elements, lambda site: site.kind == "function")
    rows += [
        Bad(torch.ones(shape), ValueError, r"broadcastable to the shape of 'input', \(3, 3\); got shape", function)
        for shape in ((2,), (3, 2), (2, 3), (1, 3, 3))
    ]
    return [*rows, Bad(torch.ones(C, device="meta"), ValueError, "on the device of 'input', cpu; got one on", function)]


DENOMINATOR = "a number ≥ 0, a 0-d tensor, or one of 'torch', 'weights', 'samples'"
DEPRECATED = r"size_average and reduce args will be deprecated, please use reduction='\w+' instead\."

BAD: dict[str, list[Bad]] = {
    "input": [
        Bad([[0.0, 1.0, 2.0]] * 3, TypeError, "a tensor of|a floating-point tensor"),
        Bad("logits", TypeError, "a tensor of|a floating-point tensor"),
        Bad(None, TypeError, "a tensor of|a floating-point tensor"),
        Bad(np.zeros((3, C)), TypeError, "a tensor of|a floating-point tensor"),
        Bad(torch.zeros(3, C, dtype=torch.long), TypeError, "a floating-point tensor"),
        Bad(torch.zeros(3, C, dtype=torch.bool), TypeError, "a floating-point tensor"),
        Bad(torch.zeros(3, C).to(torch.float8_e4m3fn), TypeError, "of 16 bits or more"),
        Bad(torch.zeros(3, C, dtype=torch.complex64), TypeError, "a floating-point tensor"),
        Bad(torch.tensor(0.5), ValueError, "of shape", classes),
        Bad(torch.zeros(3, 0), ValueError, "of at least one class", both(classes, holds("logits", "log-probabilities")),
            blames="counts|input"),
        Bad(torch.zeros(3, C, 2), ValueError, r"of shape \(in,\) or \(N, in\)", holds("features")),
        Bad(torch.zeros(3, C + 1), ValueError, r"of shape \(C, 4\)", holds("features"), blames="linear_weight"),
        Bad(torch.zeros(3, C, dtype=torch.float64), TypeError, "of the dtype of 'input'", holds("features"),
            blames="linear_weight"),
        Bad(torch.tensor([[0.5, 1.5, 0.1]] * 3), ValueError,
            r"probabilities in \[0, 1\]; got 1\.5 at position \(0, 1\)\. Logits belong in", holds("probabilities")),
        Bad(torch.tensor([[0.5, 0.5, 0.1]] * 2 + [[0.5, 0.5, -0.25]]), ValueError,
            r"probabilities in \[0, 1\]; got -0\.25 at position \(2, 2\)", holds("probabilities")),
        Bad(torch.tensor([[0.5, NAN, 0.1]] * 3), ValueError,
            r"probabilities in \[0, 1\]; got nan at position \(0, 1\)", holds("probabilities")),
    ],
    "target": [
        Bad([0, 1, 2], TypeError, "a tensor"),
        Bad("cat", TypeError, "a tensor"),
        Bad(None, TypeError, "a tensor"),
        Bad(np.array([0, 1, 2]), TypeError, "a tensor"),
        Bad(ROW.to("meta"), ValueError, "on the device of 'input', cpu; got one on meta", classes),
        Bad(SOFT.to("meta"), ValueError, "on the device of 'input', cpu; got one on meta", elements),
        Bad(ROW.bool(), TypeError, r"indices of shape \(3,\).*use target\.long\(\)", classes),
        Bad(SOFT.to(torch.complex64), TypeError, ""),
        # which of the two forms was meant
        Bad(ROW.float(), TypeError, r"These look like indices: use target\.long\(\)",
            both(classes, takes("distribution"))),
        Bad(ROW.float(), TypeError, r"These look like indices: use target\.long\(\)",
            both(classes, lambda site: not takes("distribution")(site))),
        Bad(torch.eye(3).long(), TypeError,
            r"One-hot rows become indices by target\.argmax\(1\), or probabilities by target\.float\(\)\.",
            both(classes, takes("distribution"))),
        Bad(torch.eye(3).long(), TypeError, r"One-hot rows become indices by target\.argmax\(1\)\.",
            both(classes, lambda site: not takes("distribution")(site))),
        Bad(SOFT, TypeError, r"become indices by target\.argmax\(1\)\.",
            both(classes, lambda site: not takes("distribution")(site))),
        Bad(ROW[:, None], ValueError, r"Use target\.squeeze\(1\)", classes),
        Bad(ROW[None], ValueError, r"Use target\.squeeze\(0\)", classes),
        Bad(ROW[:2], ValueError, r"indices of shape \(3,\)", classes),
        Bad(torch.zeros(3, 2, 2, dtype=torch.long), ValueError, r"indices of shape \(3,\)", classes),
        Bad(torch.full((3, 2), 0.5), ValueError, r"probabilities of shape \(3, 3\)",
            both(classes, takes("distribution"))),
        Bad(torch.zeros(3), ValueError, r"of the shape of 'input', \(3, 3\); got shape \(3,\)", elements),
        Bad(torch.zeros(3, 1), ValueError, r"of the shape of 'input', \(3, 3\); got shape \(3, 1\)", elements),
        Bad(torch.zeros(1, 3), ValueError, r"of the shape of 'input', \(3, 3\); got shape \(1, 3\)", elements),
        Bad(torch.zeros(9), ValueError, r"Use input\.squeeze|Use target\.view_as\(input\)", elements),
        Bad(torch.zeros(3, 1), ValueError, r"\(3,\); got shape \(3, 1\)\. Use target\.squeeze\(1\)", elements,
            {"input": torch.full((3,), 0.5)}),
        Bad(torch.zeros(3), ValueError, r"\(3, 1\); got shape \(3,\)\. Use input\.squeeze\(1\)", elements,
            {"input": torch.full((3, 1), 0.5)}),
        # labels that are no classes
        Bad(torch.tensor([0, 3, 2]), IndexError,
            r"in \[0, 3\) or ignore_index=-100; got 3 at position \(1,\)\. Classes are counted from 0", classes),
        Bad(torch.tensor([0, 1, -1]), IndexError, r"got -1 at position \(2,\)\.$", classes),
        Bad(torch.tensor([255, 1, 2]), IndexError, r"got 255 at position \(0,\)\. Pass ignore_index=255", classes),
        Bad(torch.tensor([0, 1, -101]), IndexError, r"got -101 at position \(2,\)\.$", classes),
        Bad(torch.tensor([0, 2**62, 1]), IndexError, r"got 4611686018427387904 at position \(1,\)", classes),
        Bad(torch.tensor([0, 156, 1], dtype=torch.uint8), IndexError, r"got 156 at position \(1,\)", classes),
        Bad(torch.tensor([0, -100, 9], dtype=torch.int8), IndexError, r"got 9 at position \(2,\)", classes),
    ],
    "weight": per_class() + per_element(),
    "pos_weight": per_element(),
    "logit_offset": per_class(minus_infinity=True),
    "margin": [
        *per_class(),
        Bad([0.1, 0.2, 0.3], ValueError, "None with class probabilities", lambda site: site.kind == "function",
            {"target": SOFT}),
    ],
    "sample_weight": [
        *(Bad(value, TypeError, "numbers, one for each row") for value in NUMBERS),
        *(Bad([1.0, 1.0, value], ValueError, rf"finite; got {value} at position \(2,\)") for value in (NAN, INF, -INF)),
        Bad([1.0, 2.0], ValueError, r"of shape .*; got shape \(2,\)"),
        Bad(torch.ones(3, 1), ValueError, r"of shape .*; got shape \(3, 1\)"),
        Bad(torch.ones(1), ValueError, r"of shape .*; got shape \(1,\)"),
        Bad(2.0, ValueError, r"of shape .*; got shape \(\)"),
        Bad(torch.ones(3, device="meta"), ValueError, "on the device of 'input', cpu; got one on meta"),
    ],
    "size_average": [Bad(value, UserWarning, DEPRECATED, own_words=False) for value in (True, False)],
    "reduce": [Bad(value, UserWarning, DEPRECATED, own_words=False) for value in (True, False)],
    "ignore_index": [
        *whole_number(),
        *(Bad(value, ValueError, "an integer of 64 bits") for value in (2**63, -(2**70))),
        Bad(None, TypeError, "an integer", both(classes, lacks("linear_cross_entropy", "LinearCrossEntropyLoss"))),
        Bad(0, ValueError, "with class probabilities", both(takes("distribution"), lambda s: s.kind == "function"),
            {"target": SOFT}),
        *(Bad(value, ValueError, "other than the targets 0 and 1", elements) for value in (0, 1)),
    ],
    "reduction": word("none", "mean", "sum"),
    "empty": word("nan", "zero", "raise"),
    "smooth_weight": word("class", "target"),
    "label_smoothing": [
        *(Bad(value, TypeError, r"a number in \[0, 1\]") for value in NO_NUMBER),
        *(Bad(value, ValueError, r"a number in \[0, 1\]") for value in (1.5, 1 + 1e-9, -0.1, NAN, INF)),
    ],
    "denominator": [
        *(Bad(value, ValueError, DENOMINATOR) for value in ("Torch", "weight", "", -1, -0.5, NAN, INF)),
        *(Bad(torch.tensor(value), ValueError, DENOMINATOR) for value in (-1.0, NAN, INF, [2.0])),
        *(Bad(torch.tensor(value), TypeError, DENOMINATOR) for value in (True, 1j)),
        *(Bad(value, TypeError, DENOMINATOR) for value in (True, [2.0], 1j)),
        Bad(None, TypeError, DENOMINATOR, lambda site: site.kind != "forward"),
        *(
            Bad(value, ValueError, f"left alone with reduction='{reduction}'.* Only a mean divides",
                lambda site: site.kind != "forward", {"reduction": reduction})
            for value in ("samples", "weights", 2.0, torch.tensor(2.0))
            for reduction in ("sum", "none")
        ),
    ],
    "inplace_gradient": [
        *(Bad(value, TypeError, "True or False; got") for value in (1, 0, "yes", None, torch.tensor(True))),
        *(
            Bad(True, ValueError, r"False where 'input' is a leaf or a view of one; got True\. Its values are yours",
                both(lambda site: site.kind == "function", lacks("ldam_loss")),  # which scales, and overwrites a copy
                {"input": leaf})
            for leaf in (LEAF, LEAF.view(3, C), LEAF.T, LEAF.view(9)[:].view(3, C))
        ),
        *(
            Bad(True, ValueError, r"False where elements of 'input' share their memory; got True\. Use input\.contig",
                both(lambda site: site.kind == "function", lacks("ldam_loss")), {"input": logits})
            for logits in ((LEAF[:1] * 2.0).expand(3, C), (LEAF.flatten() * 2.0).unfold(0, C, 1)[:3])
        ),
    ],
    "gamma": positive_number(),
    "gamma_pos": positive_number(),
    "gamma_neg": positive_number(),
    "tau": positive_number(),
    "max_margin": positive_number(),
    "scale": positive_number(zero=False),
    "clip": [
        *(Bad(value, TypeError, r"a number in \[0, 1\)") for value in NO_NUMBER),
        *(Bad(value, ValueError, r"a number in \[0, 1\)") for value in (1.0, 1, 5, -0.1, NAN, INF)),
    ],
    "alpha": [
        *(Bad(value, TypeError, "a number in") for value in NO_NUMBER if value is not None),
        *(Bad(value, ValueError, "a number in") for value in (2, 1 + 1e-9, NAN, INF)),
        # below 0, torchvision's focal loss takes it for none at all, and so does ours
        Bad(-0.25, ValueError, "a number in", lacks("sigmoid_focal_loss", "SigmoidFocalLoss")),
    ],
    "counts": [
        *(Bad(value, ValueError, "") for value in ([5, 0, 1], [5, -3, 1], [5.0, NAN, 1.0], [5.0, INF, 1.0], [])),
        *(Bad(value, ValueError, "") for value in ([0.5, 0.3, 0.2], [[5, 3, 1]], torch.ones(2, 2), torch.tensor(3))),
        *(Bad(value, TypeError, "") for value in (["a", "b", "c"], None, 3, [True, True, False], torch.ones(3) > 0)),
        Bad(torch.ones(3, dtype=torch.complex64), TypeError, ""),
        Bad([5, 0, 0], ValueError, r"> 0 for every class; got 0 for classes 1, 2\. Leave these classes out"),
        *(
            Bad(value, ValueError, r"shape \(3,\)|3 classes", lambda site: site.kind == "function")
            for value in ([5, 3], [5, 3, 1, 1])
        ),
    ],
    "linear_weight": [
        Bad([[0.0] * C] * C, TypeError, "a floating-point tensor"),
        Bad(None, TypeError, "a floating-point tensor"),
        Bad(torch.zeros(C, C, dtype=torch.long), TypeError, "a floating-point tensor"),
        Bad(torch.zeros(C, C, dtype=torch.float64), TypeError, "of the dtype of 'input', torch.float32; got"),
        Bad(torch.zeros(C, C + 1), ValueError, r"of shape \(C, 3\) or \(C, d1, \.\.\., 3\)"),
        Bad(torch.zeros(C), ValueError, r"of shape \(C, 3\)"),
        Bad(torch.zeros(C, C, device="meta"), ValueError, "on the device of 'input', cpu; got one on meta"),
        Bad(torch.zeros(C, 2, C), ValueError, "batched", also={"input": torch.zeros(C), "target": torch.tensor(1)},
            blames="input"),
        Bad(torch.zeros(0, C), ValueError, "", blames="input"),
    ],
    "linear_bias": [
        Bad([0.0] * C, TypeError, "a floating-point tensor"),
        Bad(torch.zeros(C, dtype=torch.long), TypeError, "a floating-point tensor"),
        Bad(torch.zeros(C, dtype=torch.float64), TypeError, "of the dtype of 'input', torch.float32; got"),
        Bad(torch.zeros(C + 1), ValueError, r"of shape \(3,\)"),
        Bad(torch.zeros(1), ValueError, r"of shape \(3,\)"),
        Bad(torch.zeros(C, device="meta"), ValueError, "on the device of 'input', cpu; got one on meta"),
    ],
    "options": [Bad(value, TypeError, "LinearCrossEntropyOptions") for value in (3, "fast", {"chunks": 4})],
    "memory_budget": [
        *(Bad(value, TypeError, "an integer") for value in (2.5, "1 GB", True, [1])),
        *(Bad(value, ValueError, "a number of bytes, 1 or more, or None") for value in (0, -1)),
    ],
    "in_features": whole_number(1),
    "num_classes": whole_number(1),
    "out_features": [
        *(Bad(value, TypeError, "a tuple of sizes") for value in (3, None, "ab")),
        *(Bad(value, TypeError, "an integer") for value in ((2.5,), (True,), (2, "3"))),
        *(Bad(value, ValueError, "≥ 1") for value in ((-1,), (2, 0))),
    ],
    "bias": [Bad(value, TypeError, "True or False") for value in ("yes", None, 1)],
    # handed on to torch.nn.Linear, whose own words are as good as any
    "device": [Bad("abacus", RuntimeError, "device", own_words=False)],
    "dtype": [Bad(value, (RuntimeError, TypeError), "", own_words=False) for value in ("float", torch.int64)],
    "loss": [
        Bad(torch.nn.CrossEntropyLoss(torch.ones(3)), TypeError, "a loss of steelyard.nn"),
        Bad(LOSSES["cross_entropy"].function, TypeError, "a loss of steelyard.nn"),
        Bad(None, TypeError, "a loss of steelyard.nn"),
        Bad(nn.CrossEntropyLoss(), ValueError, "one with a weight; got CrossEntropyLoss without"),
        Bad(nn.BalancedSoftmaxLoss([3, 1]), ValueError, "one with a weight; got BalancedSoftmaxLoss without"),
    ],
    "start_epoch": whole_number(0),
    "epoch": whole_number(0),
}  # fmt: skip


def rows_of(site: Site, argument: str) -> list[Bad]:
    return [bad for bad in BAD.get(argument, []) if bad.where(site)]


GRID = [
    pytest.param(site, argument, bad, id=f"{site}-{argument}-{i}")
    for site in SITES
    for argument in site.arguments
    for i, bad in enumerate(rows_of(site, argument))
]


@pytest.mark.parametrize("site", SITES, ids=str)
def test_good_values_are_good(site: Site) -> None:
    """Else a refusal below would show nothing."""
    site.call(**site.good)


@pytest.mark.parametrize("site", SITES, ids=str)
def test_every_argument_has_a_bad_value(site: Site) -> None:
    assert set(site.good) <= set(site.arguments)
    assert [argument for argument in site.arguments if not rows_of(site, argument)] == []


def test_every_bad_value_is_for_an_argument_that_exists() -> None:
    assert set(BAD) == {argument for site in SITES for argument in site.arguments}
    used = {id(bad) for site in SITES for argument in site.arguments for bad in rows_of(site, argument)}
    assert [(argument, bad) for argument, rows in BAD.items() for bad in rows if id(bad) not in used] == []


@pytest.mark.parametrize(("site", "argument", "bad"), GRID)
def test_bad_value_is_refused_in_one_sentence(site: Site, argument: str, bad: Bad) -> None:
    given = site.good | bad.also | {argument: bad.value}
    before = {name: value.detach().clone() for name, value in given.items() if isinstance(value, torch.Tensor)}
    with pytest.raises(bad.error) as caught:
        site.call(**given)
    message = str(caught.value)
    assert re.search(bad.says, message), message
    if bad.own_words:
        names = "|".join(map(re.escape, site.answers_as or (site.name,)))
        sentence = rf"({names}): '({bad.blames or argument})' must be .+; got .+\.( .+)?"
        assert re.fullmatch(sentence, message), message
    for name, value in before.items():  # nothing was written
        if not value.is_meta:
            assert torch.equal(value, given[name]) or value.isnan().any() or value.is_complex()


@pytest.mark.parametrize("site", [site for site in SITES if site.kind != "forward"], ids=str)
def test_losses_on_logits_of_the_callers_take_inplace_gradient(site: Site) -> None:
    on_logits = site.entry is not None and site.entry.formula != "likelihood" and site.entry.input == "logits"
    assert ("inplace_gradient" in site.arguments) == on_logits
    if not on_logits:
        with pytest.raises(TypeError, match="inplace_gradient"):
            site.call(**site.good, inplace_gradient=False)


@pytest.mark.parametrize("site", [site for site in SITES if "epoch" not in site.arguments], ids=str)
def test_unknown_keyword_names_the_caller(site: Site) -> None:
    name = site.name if site.kind == "function" else rf"{site.name.split('.')[0]}\.(__init__|forward)"
    with pytest.raises(TypeError, match=rf"^{name}\(\) got an unexpected keyword argument 'nonsense'"):
        site.call(**site.good, nonsense=1)


@pytest.mark.parametrize(
    ("name", "keyword"),
    [
        ("balanced_softmax_loss", "logit_offset"),
        ("logit_adjusted_loss", "logit_offset"),
        ("ldam_loss", "margin"),
        ("sigmoid_focal_loss", "gamma_pos"),
        ("sigmoid_focal_loss", "gamma_neg"),
    ],
)
def test_keyword_that_makes_the_loss_is_not_to_be_given(name: str, keyword: str) -> None:
    (site,) = (site for site in SITES if site.name == name)
    with pytest.raises(TypeError, match=rf"^{name}\(\) got an unexpected keyword argument '{keyword}'"):
        site.call(**site.good, **{keyword: [1.0, 2.0, 3.0]})


@pytest.mark.parametrize("entry", LOSSES.values(), ids=lambda entry: entry.name)
def test_a_bad_label_leaves_no_trace(entry: LossEntry) -> None:
    """The refusal comes before any write: no gradient, no graph, and the next call is as if nothing had been."""
    if entry.targets == ("elements",):
        pytest.skip("its targets are no labels")
    counts = {"counts": [5, 3, 1]} if entry.counts else {}
    good = _good(entry)
    input = good["input"].requires_grad_()
    expected = entry.function(**good, **counts)
    for reduction in ("none", "mean", "sum"):
        with pytest.raises(IndexError, match=r"got 7 at position \(2,\)"):
            entry.function(**{**good, "target": torch.tensor([0, 1, 7])}, **counts, reduction=reduction)
    assert input.grad is None
    assert torch.equal(entry.function(**good, **counts), expected)


def test_a_bad_label_in_an_image_is_found_by_its_position() -> None:
    target = torch.zeros(2, 4, 5, dtype=torch.long)
    target[1, 2, 3] = 21
    with pytest.raises(IndexError, match=r"got 21 at position \(1, 2, 3\)\. Classes are counted from 0"):
        LOSSES["cross_entropy"].function(torch.zeros(2, 21, 4, 5), target)
    with pytest.raises(IndexError, match=r"got 3 at position \(\)"):
        LOSSES["cross_entropy"].function(torch.zeros(3), torch.tensor(3))


# ---------------------------------------------------------------------------------------------- what is not bad at all


@pytest.mark.parametrize("site", [s for s in SITES if "weight" in s.arguments and s.kind == "function"], ids=str)
def test_weights_of_any_kind_are_the_same_weights(site: Site) -> None:
    """Lists, arrays, integers, float64 beside float32 logits: PyTorch refuses some of them, for no reason."""
    expected = site.call(**site.good, weight=torch.tensor([1.0, 2.0, 3.0]))
    for weight in (
        [1, 2, 3],
        (1.0, 2.0, 3.0),
        MANY,
        MANY.astype(np.float32),
        np.array([1, 2, 3], dtype=np.uint8),
        torch.tensor([1, 2, 3]),
        torch.tensor([1, 2, 3], dtype=torch.int8),
        torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64),
        torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16),
    ):
        loss = site.call(**site.good, weight=weight)
        assert loss.dtype == torch.float32
        assert torch.equal(loss, expected)


@pytest.mark.parametrize("site", [s for s in SITES if "weight" in s.arguments and s.kind == "constructor"], ids=str)
def test_modules_take_weights_of_any_kind(site: Site) -> None:
    for weight in ([1, 2, 3], MANY, torch.tensor([1, 2, 3]), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)):
        buffer = site.call(**site.good, weight=weight).weight
        assert buffer.is_floating_point()
        assert buffer.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("site", [s for s in SITES if "weight" in s.arguments and s.kind == "function"], ids=str)
def test_negative_and_zero_weights_are_computed(site: Site) -> None:
    """The formulas are linear in the weights, and PyTorch's own samples use negative ones."""
    loss = site.call(**site.good, weight=[-1.0, 0.0, 2.0], reduction="none")
    plain = site.call(**site.good, reduction="none")
    torch.testing.assert_close(loss, plain * torch.tensor([-1.0, 0.0, 2.0]))


def test_counts_of_any_kind_are_the_same_counts() -> None:
    site = next(site for site in SITES if site.name == "balanced_softmax_loss")
    expected = site.call(**site.good)
    for counts in (
        (5, 3, 1),
        np.array([5, 3, 1]),
        torch.tensor([5, 3, 1]),
        torch.tensor([5.0, 3.0, 1.0]),
        [5.0, 3.0, 1.0],
    ):
        assert torch.equal(site.call(**{**site.good, "counts": counts}), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint32])
@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_labels_of_any_integer_dtype_are_the_same_labels(name: str, dtype: torch.dtype) -> None:
    """Also where the number of classes, or ignore_index, has no room in that dtype."""
    loss = LOSSES[name].function
    input = torch.randn(4, 300)
    for labels, ignored in (([0, 7, 99, 127], -100), ([1, 100, 28, 127], 255), ([0, 126, 1, 3], 1000)):
        target = torch.tensor(labels)
        assert torch.equal(
            loss(input, target.to(dtype), ignore_index=ignored, reduction="none"),
            loss(input, target, ignore_index=ignored, reduction="none"),
        )
    if dtype == torch.uint8:
        assert (loss(input, torch.tensor([156] * 4, dtype=dtype), reduction="none") != 0).all()


def test_elements_of_any_integer_dtype_are_the_same_targets() -> None:
    loss = LOSSES["binary_cross_entropy_with_logits"].function
    input, target = torch.randn(4), torch.tensor([0.0, 1.0, 1.0, 0.0])
    for dtype in (torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64, torch.float64, torch.bfloat16):
        torch.testing.assert_close(loss(input, target.to(dtype)), loss(input, target))
        torch.testing.assert_close(loss(input, target.to(dtype), ignore_index=-1), loss(input, target))
    ignored = torch.tensor([0, 255, 1, 255], dtype=torch.uint8)
    assert (loss(input, ignored, ignore_index=255, reduction="none") == 0).tolist() == [False, True, False, True]
    assert (loss(input, ignored, ignore_index=-1, reduction="none") != 0).all()
