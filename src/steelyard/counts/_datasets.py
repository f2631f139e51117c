"""Reads the labels of a torch data set without its samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from steelyard._errors import describe, refuse
from steelyard.counts._labels import as_array
from steelyard.counts._tally import Progress, Tally

__all__ = ["Labels", "dataset_labels", "is_dataset", "tally_lists"]

_ATTRIBUTES = ("targets", "labels", "samples", "imgs")


@dataclass(frozen=True)
class Labels:
    """The labels of a data set: one per sample in ``values``, or a list of them per sample from ``lists``."""

    values: Any = None
    lists: Callable[[int], Any] | None = None
    size: int = 0
    names: tuple[str, ...] | None = None
    """What the data set calls its classes, where labels are positions among them."""
    parts: tuple[Labels, ...] = ()
    """Of a ConcatDataset; then the others are empty."""
    chosen: np.ndarray | None = None
    """Positions that a Subset keeps, of ``lists``."""

    def take(self, indices: Any, length: int) -> Labels:
        """The labels of those samples; negative positions count from the end, as in a Subset."""
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        outside = np.flatnonzero((wanted < -length) | (wanted >= length))
        if outside.size:
            what = f"{wanted[outside[0]]} at position {outside[0]}"
            refuse("count_classes", "source", f"a Subset with indices below {length}", what, error=IndexError)
        wanted = np.where(wanted < 0, wanted + length, wanted)
        if self.parts:
            return self._take_parts(wanted)
        if self.lists is not None:
            return replace(self, chosen=wanted if self.chosen is None else self.chosen[wanted], size=len(wanted))
        return replace(self, values=as_array(self.values)[wanted], size=len(wanted))

    def _take_parts(self, wanted: np.ndarray) -> Labels:
        """Sorted by part: which label goes where changes no count."""
        ends = np.cumsum([part.size for part in self.parts])
        owner = np.searchsorted(ends, wanted, side="right")
        kept = []
        for number, part in enumerate(self.parts):
            own = wanted[owner == number] - (ends[number] - part.size)
            if own.size:
                kept.append(part.take(own, part.size))
        return replace(self, parts=tuple(kept), size=len(wanted))


def is_dataset(source: Any) -> bool:
    """Whether ``source`` is a data set with labels: one of torch's, or something that looks like one with labels."""
    if isinstance(source, Dataset):
        return True
    known = hasattr(source, "__getitem__") and hasattr(source, "__len__")
    return (
        known
        and not isinstance(source, Mapping)
        and any(hasattr(source, name) for name in (*_ATTRIBUTES, "get_cat_ids"))
    )


def has_labels(dataset: Any) -> bool:
    """Whether :func:`dataset_labels` finds some."""
    try:
        dataset_labels(dataset)
    except Exception:  # whatever a data set of somebody else's does: this only decides on a piece of advice
        return False
    return True


def dataset_labels(dataset: Any, target: Any = None) -> Labels:
    """The labels of ``dataset``; refuses one where only its samples have them."""
    if isinstance(dataset, Subset):
        return dataset_labels(dataset.dataset, target).take(dataset.indices, len(dataset.dataset))  # type: ignore[arg-type]
    if isinstance(dataset, ConcatDataset):
        parts = tuple(dataset_labels(part, target) for part in dataset.datasets)
        return Labels(parts=parts, size=sum(part.size for part in parts))
    if isinstance(dataset, TensorDataset):
        return Labels(dataset.tensors[_tensor_number(dataset, target)], size=len(dataset))
    if target is not None:
        hint = "Other data sets are counted by their labels."
        rule = "None, or the number of a tensor in a TensorDataset"
        refuse("count_classes", "target", rule, describe(target), hint, error=TypeError)
    for name in ("targets", "labels"):
        values = getattr(dataset, name, None)
        if values is not None and not callable(values):
            return _of_each_sample(dataset, name, values)
    for name in ("samples", "imgs"):
        pairs = getattr(dataset, name, None)
        if isinstance(pairs, Sequence) and pairs and all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
            return _of_each_sample(dataset, name, [label for _, label in pairs])
    lists = getattr(dataset, "get_cat_ids", None)
    if not callable(lists):
        _no_labels(dataset)
    return Labels(lists=lists, size=len(dataset), names=_names(dataset))


def _no_labels(dataset: Any) -> NoReturn:
    rule = f"a data set with its labels in {', '.join(map(repr, _ATTRIBUTES))} or get_cat_ids(i)"
    hint = "Count the labels themselves, or a DataLoader of it, which reads every sample."
    refuse("count_classes", "source", rule, type(dataset).__name__, hint, error=TypeError)


def _tensor_number(dataset: TensorDataset, target: Any) -> int:
    """Which tensor holds the labels: the last one, unless another could as well."""
    tensors = dataset.tensors
    if target is not None:
        if isinstance(target, bool) or not isinstance(target, int) or not -len(tensors) <= target < len(tensors):
            rule = f"the number of one of {len(tensors)} tensors, or None"
            refuse("count_classes", "target", rule, describe(target), error=TypeError)
        return target % len(tensors)
    like_labels = [n for n, t in enumerate(tensors) if t.ndim == 1 and not t.is_floating_point() and not t.is_complex()]
    last = len(tensors) - 1
    if len(tensors) == 1 or (len(tensors) > 2 and any(number != last for number in like_labels)):
        shapes = ", ".join(f"{n}: {describe(t)}" for n, t in enumerate(tensors))
        hint = "Say which one: target=-1 is the last."
        refuse("count_classes", "target", "the number of the tensor with the labels", f"None for {shapes}", hint)
    return last


def _of_each_sample(dataset: Any, name: str, values: Any) -> Labels:
    """The labels in an attribute, as the loss will see them.

    What a ``target_transform`` makes of a label is asked once for each distinct one.
    """
    array = as_array(values)
    size = len(array) if array.ndim else 0
    if hasattr(dataset, "__len__") and size != len(dataset):
        what = f"{size} in '{name}' for {len(dataset)} samples"
        refuse(
            "count_classes", "source", "a data set with a label for each sample", what, "Count its labels themselves."
        )
    change = getattr(dataset, "target_transform", None)
    if change is None:
        return Labels(array, size=size, names=_names(dataset))
    if array.ndim != 1:
        hint = "A DataLoader gives what it makes of every sample."
        rule = "a data set without target_transform, where it has several labels per sample"
        refuse("count_classes", "source", rule, f"'{name}' of shape {array.shape}", hint)
    keys = array.tolist()
    new = {key: _plain(change(key)) for key in dict.fromkeys(keys)}
    return Labels([new[key] for key in keys], size=size)


def _plain(label: Any) -> Any:
    return label.item() if hasattr(label, "item") and getattr(label, "ndim", 1) == 0 else label


def _names(dataset: Any) -> tuple[str, ...] | None:
    """Names of the classes in the order of their indices, if there is one for each and no two are alike."""
    names = getattr(dataset, "classes", None)
    places = getattr(dataset, "class_to_idx", None)
    if names is None and isinstance(places, Mapping) and sorted(places.values()) == list(range(len(places))):
        names = sorted(places, key=places.__getitem__)
    if names is None or isinstance(names, str) or not isinstance(names, Sequence | np.ndarray) or len(names) == 0:
        return None
    # ImageNet's are tuples of synonyms.
    words = [", ".join(map(str, name)) if isinstance(name, tuple) else name for name in names]
    if not all(isinstance(word, str) for word in words):
        return None
    return tuple(map(str, words)) if len(set(words)) == len(words) else tuple(f"{n}: {w}" for n, w in enumerate(words))


def tally_lists(labels: Labels, progress: Progress | None) -> Tally:
    """Labels of data sets that have a list of them per image: objects, and images that contain them."""
    assert labels.lists is not None
    chosen = range(labels.size) if labels.chosen is None else labels.chosen.tolist()
    found: dict[Any, list[int]] = {}
    for done, index in enumerate(chosen, start=1):
        own = labels.lists(index)
        values = as_array(own).tolist() if hasattr(own, "__array__") else list(own)
        for label in values:
            found.setdefault(label, [0, 0, index])[0] += 1
        for label in set(values):
            found[label][1] += 1
        if progress is not None:
            progress(done, labels.size)
    names = list(found)
    return Tally(
        names,
        [count for count, _, _ in found.values()],
        lambda entries: min((found[names[entry]][2], entry) for entry in entries),
        lambda index: f"get_cat_ids({index})",
        names=labels.names,
        images=[images for _, images, _ in found.values()],
        total=labels.size,
    )
