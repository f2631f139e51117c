"""Rules on one batch: what the input is, and whether the targets fit it."""

from __future__ import annotations

import torch
from torch import Tensor

from steelyard.counts import ClassCounts
from steelyard.explain._rule import Said, rule
from steelyard.explain._setup import Setup
from steelyard.explain._signs import are_log_probabilities, are_probabilities, perfect_row
from steelyard.explain._words import number, plural
from steelyard.ops import class_dim

SIGNLESS = 32
"""So many logits without one below 0 or above 1 are no accident."""


@rule(
    "SY103",
    "error",
    "A softmax before the loss that takes one",
    symptom="The loss falls to a value well above 0 and stays there; training is slow.",
    reason="cross_entropy applies log_softmax itself. Of probabilities, all between 0 and 1, it makes a nearly flat "
    "distribution, however sure the network is. nll_loss is the other way round: it applies nothing, and takes "
    "log-probabilities.",
    fine="A log_softmax before cross_entropy: it is its own log_softmax, and the loss is the same.",
    example="""
rows = torch.tensor([[2.0, -1.0, 0.0], [0.0, 3.0, 1.0]]).softmax(1)
print(check(loss=nn.CrossEntropyLoss(), input=rows))
""",
)
def softmax_twice(setup: Setup) -> Said:
    """Probabilities for logits; anything but log-probabilities for nll_loss."""
    input = setup.input_values
    if setup.settings is None or input is None or not input.is_floating_point() or not input.numel():
        return None
    name, takes = setup.settings.name, setup.option_input
    if takes == "logits" and setup.exclusive and are_probabilities(input):
        return (
            f"All rows of the input lie in [0, 1] and add up to 1: they are probabilities, and {name} takes logits. "
            f"A row that is certain and right would still cost {number(perfect_row(input.shape[class_dim(input)]))}.",
            "Remove the softmax from the end of the network; apply it where probabilities are read.",
        )
    if takes == "logits" and setup.elementwise and input.numel() >= SIGNLESS and _within_one(input):
        return (
            f"All {input.numel():,} inputs lie in (0, 1], from {number(float(input.min()))} to "
            f"{number(float(input.max()))}: they look like probabilities, and {name} takes logits.",
            "Remove the sigmoid from the end of the network, or use BCELoss with it.",
        )
    if takes == "log-probabilities" and not are_log_probabilities(input):
        above = int((input > 0).sum())
        why = f"{above:,} of {input.numel():,} are above 0" if above else "their exponentials do not add up to 1"
        return (
            f"{name} takes log-probabilities, and the input is none: {why}. It only picks −input[target], so the loss "
            "can fall without end.",
            "Apply log_softmax first, or use cross_entropy on the logits.",
        )
    return None


def _within_one(input: Tensor) -> bool:
    """As sigmoids are: above 0, at most 1, and not all the same, as they would be before any training."""
    low, high = float(input.min()), float(input.max())
    return 0 < low < high <= 1


@rule(
    "SY113",
    "error",
    "pos_weight on the wrong axis",
    symptom="On images or sequences pos_weight acts on columns of pixels instead of classes, or does not fit.",
    reason="pos_weight broadcasts from the right, so (C,) lies along the last axis of (N, C, H, W), which is W.",
    fine="(C, 1, 1) or (C, H, W) for (N, C, H, W); (C,) where the classes are the last axis.",
    example="""
loss = nn.BCEWithLogitsLoss(pos_weight=[1.0, 10.0, 100.0])
print(check(loss=loss, input=torch.zeros(2, 3, 4, 3)))
""",
)
def pos_weight_axis(setup: Setup) -> Said:
    """(C,) beside (N, C, ...)."""
    given, input = setup.pos_weight, setup.input
    if given is None or input is None or given.dim() != 1 or len(given) == 1 or input.dim() < 3:
        return None
    classes = input.shape[1]
    if len(given) != classes:
        return None
    shape = f"({classes}{', 1' * (input.dim() - 2)})"
    fits = input.shape[-1] == classes
    what = "which is as long, so nothing fails" if fits else f"which has {input.shape[-1]}"
    return (
        f"pos_weight has shape ({classes},) and the input {tuple(input.shape)}: it lies along the last axis, {what}, "
        "and not along the classes in axis 1.",
        f"Use pos_weight.reshape{shape}.",
    )


@rule(
    "SY114",
    "error",
    "Labels out of range",
    symptom="IndexError: Target 3 is out of bounds; on a GPU, a device-side assert; with BCE, a loss below 0.",
    reason="Class indices run from 0 to C − 1. Labels counted from 1, a 255 for 'no label', or a −1 do not fit. Binary "
    "targets lie in [0, 1], which no BCE of PyTorch checks on logits.",
    fine="A label that equals ignore_index.",
    example="""
print(check(loss=nn.CrossEntropyLoss(), input=torch.zeros(3, 3), target=torch.tensor([1, 2, 3])))
""",
)
def labels_out_of_range(setup: Setup) -> Said:
    """Targets outside [0, C), or [0, 1]."""
    target, ignored = setup.target_values, setup.option("ignore_index")
    if target is None and setup.counts is not None:
        return _no_label_among(setup.counts)
    if target is None or not target.numel() or target.is_complex():
        return None
    if setup.elementwise:
        t = target.cpu()
        bad = ~((t >= 0) & (t <= 1))
        if ignored is not None:
            bad &= t != ignored
        if not bool(bad.any()):
            return None
        at = tuple(bad.nonzero()[0].tolist())
        return (
            f"{int(bad.sum()):,} of {plural(bad.numel(), 'target')} lie outside [0, 1], the first is "
            f"{number(float(t[at]))} at position {_position(at)}: the loss has no lower bound there.",
            "Targets are probabilities; mark missing ones by a value of their own and name it as ignore_index.",
        )
    classes = setup.classes
    if not setup.exclusive or classes is None or target.is_floating_point() or target.dtype == torch.bool:
        return None
    if setup.input is not None and target.shape == setup.input.shape:
        return None  # one-hot rows, which SY124 tells
    y = target.cpu().long()
    bad = (y < 0) | (y >= classes)
    if ignored is not None:
        bad &= y != ignored
    if not bool(bad.any()):
        return None
    at = tuple(bad.nonzero()[0].tolist())
    kept = y if ignored is None else y[y != ignored]
    said = (
        f"{int(bad.sum()):,} of {plural(y.numel(), 'label')} lie outside 0 to {classes - 1}, the first is {int(y[at])} "
        f"at position {_position(at)}."
    )
    wrong = sorted({int(label) for label in y[bad].unique()[:100]})
    if int(kept.min()) == 1 and int(kept.max()) == classes:
        return said + f" They run from 1 to {classes}: counted from 1.", "Subtract 1: target - 1."
    if wrong in ([255], [-1]):
        return said + f" All of them are {wrong[0]}, which often marks 'no label'.", f"Say so: ignore_index={wrong[0]}."
    return said, "Map the labels to 0 .. C − 1, or give the network more outputs; name a label to skip as ignore_index."


def _no_label_among(counts: ClassCounts) -> Said:
    """A mark for 'no label' that was counted as a class."""
    labels = sorted(label for label in counts.classes if type(label) is int)
    if counts.is_multilabel or len(labels) < 3 or len(labels) < counts.num_classes:
        return None
    mark, rest = (labels[0], labels[1:]) if labels[0] == -1 else (labels[-1], labels[:-1])
    if mark not in (-1, 255) or rest != list(range(len(rest))) or len(rest) >= 255:
        return None
    rows = int(counts.counts[counts.classes.index(mark)])
    return (
        f"Label {mark} is counted as a class of {plural(rows, 'row')}, beside classes 0 to {len(rest) - 1}: it often "
        "marks 'no label', and no loss has an output for it.",
        f"If it does, leave it out: count_classes(labels, ignore_index={mark}), and ignore_index={mark} for the loss.",
    )


def _position(at: tuple[int, ...]) -> str:
    return str(at[0]) if len(at) == 1 else str(at)


@rule(
    "SY123",
    "error",
    "(N, 1) against (N)",
    symptom="The loss hardly falls, and every prediction drifts to the same value; or an error about sizes.",
    reason="Broadcast against each other, (N, 1) and (N) make (N, N): every row meets every other row's target.",
    fine="Two tensors of one shape.",
    example="""
print(check(loss=nn.BCEWithLogitsLoss(), input=torch.zeros(8, 1), target=torch.zeros(8)))
""",
)
def column_against_row(setup: Setup) -> Said:
    """Shapes that differ by an axis of 1."""
    input, target = setup.input, setup.target
    if input is not None and target is not None and not setup.exclusive and input.shape != target.shape:
        squeezed = [s for s in input.shape if s != 1], [s for s in target.shape if s != 1]
        if squeezed[0] == squeezed[1] and abs(input.dim() - target.dim()) == 1 and input.numel() > 1:
            long, name = (input, "input") if input.dim() > target.dim() else (target, "target")
            axis = next(i for i in reversed(range(long.dim())) if long.shape[i] == 1)
            try:
                size = torch.broadcast_shapes(input.shape, target.shape).numel()
            except RuntimeError:
                size = 0
            grown = (
                f": broadcast, they make {size:,} pairs of {input.numel():,} elements" if size > input.numel() else ""
            )
            return (
                f"The input has shape {tuple(input.shape)}, the target {tuple(target.shape)}{grown}.",
                f"Use {name}.squeeze({axis}).",
            )
    if not setup.exclusive or input is None or target is None or input.dim() != 2 or input.shape[1] == 1:
        return None
    if target.shape != (input.shape[0], 1):
        return None
    return (
        f"The target has shape {tuple(target.shape)}, and the input {tuple(input.shape)} wants ({input.shape[0]},).",
        "Use target.squeeze(1).",
    )


@rule(
    "SY124",
    "error",
    "Targets of the wrong kind",
    symptom="RuntimeError: expected scalar type Long but found Float; result type Float can't be cast to Long.",
    reason="cross_entropy takes integers for labels and floats for probabilities; PyTorch's BCE takes floats only. And "
    "rows with several ones are no distribution: they belong in a sigmoid loss.",
    fine="Float rows that add up to 1; integers in steelyard's sigmoid losses, which convert them.",
    example="""
print(check(loss=nn.CrossEntropyLoss(), input=torch.zeros(2, 3), target=torch.tensor([0.0, 2.0])))
""",
)
def wrong_kind(setup: Setup) -> Said:
    """Float labels, integer rows, integer BCE targets, several ones in a row."""
    input, target = setup.input, setup.target
    if setup.settings is None or target is None:
        return None
    floating = target.is_floating_point()
    if setup.elementwise:
        if setup.settings.torch and not floating:
            dtype = str(target.dtype).removeprefix("torch.")
            return f"The targets are {dtype}, and PyTorch's {setup.settings.name} takes floats.", "Use target.float()."
        return None
    if input is None or input.dim() == 0 or setup.option_input == "features":
        return None
    dim = class_dim(input)
    rows = input.shape[:dim] + input.shape[dim + 1 :]
    if target.shape == rows and (floating or target.dtype == torch.bool):
        dtype = str(target.dtype).removeprefix("torch.")
        return (
            f"The targets have the shape of labels, {tuple(target.shape)}, but are {dtype}: floats stand for "
            f"probabilities of shape {tuple(input.shape)}.",
            "Use target.long().",
        )
    if target.shape != input.shape or not target.numel():
        return None
    if not floating:
        return (
            f"The targets are integers in the shape of the input, {tuple(target.shape)}: one-hot rows, where integers "
            "stand for labels.",
            f"Use target.argmax({dim}), or target.float() for probabilities.",
        )
    return None if target.is_meta else _no_distribution(target, dim)


def _no_distribution(target: Tensor, dim: int) -> Said:
    sums = target.double().cpu().sum(dim)
    off = (sums - 1).abs() > 0.01
    if not bool(off.any()):
        return None
    several = bool(((target == 0) | (target == 1)).all()) and bool((sums > 1).any())
    what = "several classes at once" if several else "no distribution"
    return (
        f"{int(off.sum()):,} of {plural(off.numel(), 'row')} of targets do not add up to 1 (they add up to "
        f"{number(float(sums.min()))} to {number(float(sums.max()))}): {what}, where the classes of a softmax exclude "
        "one another.",
        "For several labels per row use BCEWithLogitsLoss; else divide each row by its sum.",
    )
