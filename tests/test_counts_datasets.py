"""count_classes on torch data sets without making a sample, and on loaders, which are read to their end."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import steelyard.counts._loaders as loaders_module
from steelyard import class_weights
from steelyard.counts import ClassCounts, count_classes

LABELS = [0, 2, 2, 0, 2, 3]
EXPECTED = ClassCounts([0, 2, 3], [2, 3, 1])
NAMES = ["cat", "dog", "eel", "fox"]
NAMED = ClassCounts(NAMES, [2, 0, 3, 1])


class Unread(Dataset):
    """A data set whose samples cannot be had."""

    def __init__(self, **attributes: Any) -> None:
        self.size = attributes.pop("size", len(LABELS))
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("a sample was made")


class Pairs(Dataset):
    def __init__(self, labels: Any) -> None:
        self.held = labels

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, index: int) -> Any:
        return torch.zeros(2), self.held[index]


# 1 Labels without samples


@pytest.mark.parametrize("make", [list, tuple, np.array, torch.tensor])
@pytest.mark.parametrize("name", ["targets", "labels"])
def test_attributes(name: str, make: Any) -> None:
    told: list[tuple[int, int | None]] = []
    assert count_classes(Unread(**{name: make(LABELS)}), progress=lambda *now: told.append(now)) == EXPECTED
    assert told[-1] == (6, 6)


@pytest.mark.parametrize("name", ["samples", "imgs"])
def test_paths_and_classes(name: str) -> None:
    pairs = [(f"{n}.png", label) for n, label in enumerate(LABELS)]
    assert count_classes(Unread(**{name: pairs})) == EXPECTED
    with pytest.raises(
        TypeError, match=r"a data set with its labels in 'targets', .*; got Unread. Count the labels them"
    ):
        count_classes(Unread(**{name: ["a.png"]}))


def test_a_data_set_that_is_none_of_torchs() -> None:
    class Own:
        targets = LABELS

        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> Any:
            raise AssertionError

    assert count_classes(Own()) == EXPECTED


@pytest.mark.parametrize(
    "names",
    [
        {"classes": NAMES},
        {"classes": np.array(NAMES)},
        {"class_to_idx": {"eel": 2, "cat": 0, "fox": 3, "dog": 1}},
        {"classes": NAMES, "class_to_idx": {name: n for n, name in enumerate(NAMES)}},
    ],
)
def test_names_stand_in_the_order_of_their_indices(names: dict[str, Any]) -> None:
    """So that weight i is that of class i, whether all of them occur or not."""
    counts = count_classes(Unread(targets=LABELS, **names))
    assert (counts, counts.classes) == (NAMED, tuple(NAMES))
    by_index = class_weights(count_classes(LABELS, num_classes=4), missing="zero")
    assert class_weights(counts, missing="zero").tolist() == by_index.tolist()
    assert count_classes(Unread(targets=LABELS, **names), num_classes=4) == NAMED
    with pytest.raises(
        ValueError, match="'num_classes' must be 4, the classes that the source names, or None; got int 5"
    ):
        count_classes(Unread(targets=LABELS, **names), num_classes=5)


def test_names_that_are_none() -> None:
    for classes in (range(4), [0, 1, 2, 3], 4, "abcd", None, []):
        assert count_classes(Unread(targets=LABELS, classes=classes)) == EXPECTED
    places = {"cat": 0, "dog": 7}
    assert count_classes(Unread(targets=LABELS, class_to_idx=places)) == EXPECTED


def test_synonyms_and_names_that_come_twice() -> None:
    """ImageNet's classes are tuples, and two of them are cranes."""
    classes = [("tench", "Tinca tinca"), ("crane",), ("hen",), ("crane",)]
    counts = count_classes(Unread(targets=LABELS, classes=classes))
    assert counts.classes == ("0: tench, Tinca tinca", "1: crane", "2: hen", "3: crane")
    assert count_classes(Unread(targets=LABELS[:5], classes=classes[:3], size=5)).classes[0] == "tench, Tinca tinca"


def test_labels_that_are_names() -> None:
    words = [NAMES[label] for label in LABELS]
    assert count_classes(Unread(targets=words, classes=NAMES[::-1])).classes == tuple(NAMES[::-1])
    assert count_classes(Unread(targets=words, classes=["other"])).classes == ("cat", "eel", "fox")


def test_a_label_without_a_name() -> None:
    source = Unread(targets=[0, -1, 4, 0, 0, 0], classes=NAMES)
    with pytest.raises(
        IndexError, match=r"labels in \[0, 4\); got -1 at position 1. A label that stands for 'nothing'"
    ):
        count_classes(source)
    with pytest.raises(IndexError, match=r"labels in \[0, 4\) or -1; got 4 at position 2"):
        count_classes(source, ignore_index=-1)


def test_target_transform_is_applied_to_distinct_labels() -> None:
    asked: list[int] = []

    def change(label: int) -> torch.Tensor:
        asked.append(label)
        return torch.tensor(int(label > 1))

    source = Unread(targets=torch.tensor(LABELS), target_transform=change, classes=NAMES)
    assert count_classes(source) == ClassCounts([0, 1], [2, 4])
    assert asked == [0, 2, 3]
    with pytest.raises(
        ValueError, match=r"without target_transform, where it has several labels per sample; got 'targets'"
    ):
        count_classes(Unread(targets=torch.zeros(6, 2), target_transform=change))


def test_multilabel_targets_and_masks() -> None:
    rows = torch.tensor([[1, 0], [1, 1], [1, 0]])
    assert count_classes(Unread(targets=rows, size=3)) == count_classes(rows)
    named = count_classes(Unread(targets=rows, size=3, classes=["old", "new"]))
    assert named == ClassCounts(["old", "new"], [3, 1], negatives=[0, 2])
    masks = torch.tensor([[[0, 1]], [[1, 1]]])
    assert count_classes(TensorDataset(torch.zeros(2), masks)) == count_classes(masks)


def test_labels_that_are_not_of_the_samples() -> None:
    with pytest.raises(
        ValueError, match=r"a label for each sample; got 2 in 'labels' for 6 samples. Count its labels them"
    ):
        count_classes(Unread(labels=["cat", "dog"]))
    with pytest.raises(TypeError, match="a tensor, array, sequence or Series of labels; got dict"):
        count_classes(Unread(targets={}))
    with pytest.raises(TypeError, match="'target' must be None, or the number of a tensor in a TensorDataset; got 'y'"):
        count_classes(Unread(targets=LABELS), "y")
    with pytest.raises(TypeError, match=r"got Pairs. Count the labels themselves, or a DataLoader of it"):
        count_classes(Pairs(LABELS))


CATEGORIES = [[0, 0, 1], [], [1], [2, 0]]


def test_lists_of_categories() -> None:
    source = Unread(get_cat_ids=lambda index: CATEGORIES[index], size=4)
    told: list[tuple[int, int | None]] = []
    counts = count_classes(source, progress=lambda *now: told.append(now))
    assert counts == ClassCounts([0, 1, 2], [3, 2, 1], images=[2, 2, 1], num_images=4)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert count_classes(Subset(source, [3, -1, 1])) == ClassCounts([0, 2], [2, 2], images=[2, 2], num_images=3)
    assert count_classes(Subset(Subset(source, [3, 2, 1]), [0])) == ClassCounts(
        [0, 2], [1, 1], images=[1, 1], num_images=1
    )
    tensors = Unread(get_cat_ids=lambda index: torch.tensor(CATEGORIES[index]), size=4, classes=NAMES)
    assert count_classes(tensors).images.tolist() == [2, 2, 1, 0]
    with pytest.raises(IndexError, match=r"got 2 at get_cat_ids\(3\)"):
        count_classes(source, num_classes=2)


# 2 Tensor data sets, subsets and concatenations


def test_the_last_tensor_holds_the_labels() -> None:
    x, y = torch.zeros(6, 3), torch.tensor(LABELS)
    assert count_classes(TensorDataset(x, y)) == EXPECTED
    assert count_classes(TensorDataset(torch.arange(6), y)) == EXPECTED  # ids as the only feature
    assert count_classes(TensorDataset(x, torch.zeros(6, 4, dtype=torch.long), y)) == EXPECTED
    assert count_classes(TensorDataset(x, x, y.double())).classes == (0.0, 2.0, 3.0)
    assert count_classes(TensorDataset(x, y, torch.rand(6)), 1) == EXPECTED
    assert count_classes(TensorDataset(y), target=-1) == EXPECTED


def test_a_tensor_that_could_be_the_labels_as_well() -> None:
    x, y = torch.zeros(6, 3), torch.tensor(LABELS)
    for tensors in ((y,), (x, y, torch.rand(6)), (x, y, y)):
        with pytest.raises(
            ValueError, match=r"the number of the tensor with the labels; got None for 0: .*target=-1 is the"
        ):
            count_classes(TensorDataset(*tensors))
    for target in (2, -3, "y", True, 1.0):
        with pytest.raises(TypeError, match="'target' must be the number of one of 2 tensors, or None; got "):
            count_classes(TensorDataset(x, y), target)


def test_subsets() -> None:
    base = TensorDataset(torch.zeros(6), torch.tensor(LABELS))
    assert count_classes(Subset(base, [5, 1, -1])) == ClassCounts([2, 3], [1, 2])
    assert count_classes(Subset(Subset(base, [5, 1, 2]), torch.tensor([0, 2]))) == ClassCounts([2, 3], [1, 1])
    assert count_classes(Subset(Unread(targets=LABELS, classes=NAMES), range(2))) == ClassCounts(NAMES, [1, 0, 1, 0])
    strings = Unread(targets=["a", "b", "a", "a", "a", "a"])
    assert count_classes(Subset(strings, np.array([0, 1]))) == ClassCounts(["a", "b"], [1, 1])
    for index in (6, -7):
        with pytest.raises(IndexError, match=rf"a Subset with indices below 6; got {index} at position 1"):
            count_classes(Subset(base, [0, index]))
    with pytest.raises(ValueError, match="at least one label; got none"):
        count_classes(Subset(base, []))


def test_concatenations() -> None:
    one, two = Unread(targets=LABELS), TensorDataset(torch.zeros(2), torch.tensor([7, 0]))
    told: list[tuple[int, int | None]] = []
    both = ConcatDataset([one, ConcatDataset([two, Subset(one, [1])])])
    assert count_classes(both, progress=lambda *now: told.append(now)) == ClassCounts([0, 2, 3, 7], [3, 4, 1, 1])
    assert told[-1] == (9, 9)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    for indices in ([0, 6, 8], [8, 6, 0], [-9, -3, -1]):
        assert count_classes(Subset(both, indices)) == ClassCounts([0, 2, 7], [1, 1, 1])
    with pytest.raises(IndexError, match=r"labels in \[0, 5\); got 7 at position 0 in data set 0 in data set 1"):
        count_classes(both, num_classes=5)
    with pytest.raises(TypeError, match="got Pairs"):
        count_classes(ConcatDataset([one, Pairs(LABELS)]))


def test_concatenations_that_do_not_fit() -> None:
    named = Unread(targets=LABELS, classes=NAMES)
    assert count_classes(ConcatDataset([named, named])) == NAMED + NAMED
    for other in (Unread(targets=LABELS, classes=NAMES[::-1]), Unread(targets=LABELS)):
        with pytest.raises(
            ValueError, match=r"parts that declare the same classes.*; got data set 0 and data set 1, which"
        ):
            count_classes(ConcatDataset([named, other]))
    lists = Unread(get_cat_ids=lambda index: CATEGORIES[index], size=4)
    with pytest.raises(ValueError, match="parts that declare the same classes, in the same order, and count alike"):
        count_classes(ConcatDataset([Unread(targets=LABELS), lists]))
    rows = [Unread(targets=torch.eye(n).long(), size=n) for n in (2, 3)]
    with pytest.raises(ValueError, match="and count alike"):
        count_classes(ConcatDataset(rows))
    assert count_classes(ConcatDataset([rows[1], rows[1]])) == count_classes(torch.eye(3)) + count_classes(torch.eye(3))
    with pytest.raises(TypeError, match="labels of one kind, here int; got 'a' at position 0 in data set 1"):
        count_classes(ConcatDataset([Unread(targets=LABELS), Unread(targets=["a"], size=1)]))


# 3 Loaders


@pytest.mark.parametrize(
    "options", [{}, {"shuffle": True}, {"batch_size": 4}, {"batch_size": None}, {"num_workers": 1}]
)
def test_a_loader_is_read_to_its_end(options: dict[str, Any]) -> None:
    told: list[tuple[int, int | None]] = []
    loader = DataLoader(Pairs(LABELS), **options)
    assert count_classes(loader, progress=lambda *now: told.append(now)) == EXPECTED  # and no warning
    assert told[-1] == (6, 6)
    assert all(total == 6 for _, total in told)


@pytest.mark.parametrize(
    "labels",
    [
        ["b", "a", "b"],
        [True, False, True],
        torch.tensor([[0, 1], [1, 1], [0, 0]]),
        torch.tensor([[[0, 1]], [[2, 2]], [[0, 0]]]),
        [1.0, 0.0, 1.0],
    ],
)
def test_labels_of_any_form_in_batches(labels: Any) -> None:
    for size in (1, 2, 3):
        assert count_classes(DataLoader(Pairs(labels), batch_size=size)) == count_classes(labels)


def test_batches_that_are_dicts_or_longer() -> None:
    class Dicts(Pairs):
        def __getitem__(self, index: int) -> Any:
            return {"image": torch.zeros(2), "label": self.held[index]}

    class Triples(Pairs):
        def __getitem__(self, index: int) -> Any:
            return torch.zeros(2), self.held[index], 0.5

    assert count_classes(DataLoader(Dicts(LABELS), batch_size=4), "label") == EXPECTED
    assert count_classes(DataLoader(Triples(LABELS), batch_size=4), 1) == EXPECTED
    with pytest.raises(
        TypeError, match=r"'target' must be the key of the labels in a batch; got None. Batch 0 has 'image', 'l"
    ):
        count_classes(DataLoader(Dicts(LABELS)))
    with pytest.raises(TypeError, match="got 'lable'"):
        count_classes(DataLoader(Dicts(LABELS)), "lable")
    with pytest.raises(
        TypeError, match=r"the number of the labels in a batch, or None for the last; got int 3. Batch 0 has 3"
    ):
        count_classes(DataLoader(Triples(LABELS)), 3)
    with pytest.raises(
        TypeError, match=r"data of samples and labels; got a float32 tensor of shape .1, 2. as batch 0. Let"
    ):
        count_classes(DataLoader(torch.zeros(6, 2)))
    with pytest.raises(TypeError, match=r"data of samples and labels; got list .* as batch 0"):
        count_classes(DataLoader(TensorDataset(torch.tensor(LABELS))))
    with pytest.raises(ValueError, match=r"floats; got 0.5 at position 0 in batch 0"):
        count_classes(DataLoader(Triples(LABELS)))


def test_where_a_label_in_a_batch_is() -> None:
    with pytest.raises(IndexError, match=r"labels in \[0, 3\); got 3 at position 1 in batch 2"):
        count_classes(DataLoader(Pairs(LABELS), batch_size=2), num_classes=3)
    with pytest.raises(ValueError, match=r"got 7 at position \(0, 1\) in batch 1"):
        count_classes(DataLoader(Pairs(torch.tensor([[0, 1], [1, 0], [0, 7]])), batch_size=2))
    with pytest.raises(IndexError, match=r"got 9 at image 0, pixel \(0, 1\) in batch 1"):
        count_classes(DataLoader(Pairs(torch.tensor([[[0, 1]], [[0, 9]]]))), num_classes=3)


def test_batches_are_let_go() -> None:
    """A tally keeps no batch: with masks, those of a few hundred classes would fill the memory."""
    from steelyard.counts._tally import Sum, Tally

    def held(entries: list[int]) -> tuple[int, int]:
        calls.append(entries)
        return 3, entries[0]

    calls: list[list[int]] = []
    total = Sum()
    total.add(Tally([5], [1], held, str), keep=False)
    assert calls == [[0]]
    assert total.tally().first([0]) == ((0, 3), 0)
    assert calls == [[0]]


BASE = TensorDataset(torch.zeros(6), torch.tensor(LABELS))
READS = "it reads every sample, where count_classes.loader.dataset. reads none"


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (BASE, {}, READS),
        (
            BASE,
            {"sampler": WeightedRandomSampler(torch.ones(6), 9)},
            "its WeightedRandomSampler decides how often .*; " + READS,
        ),
        (Pairs(LABELS), {"sampler": WeightedRandomSampler(torch.ones(6), 6)}, "so that draws are counted"),
        (Pairs(LABELS), {"sampler": RandomSampler(range(6), replacement=True)}, "its RandomSampler decides"),
        (Pairs(LABELS), {"sampler": [0, 0, 1]}, "its list decides"),
        (Pairs(LABELS), {"batch_sampler": [[0, 0], [1]]}, "its list decides"),
        (
            Pairs(LABELS),
            {"sampler": DistributedSampler(range(6), 2, 0)},
            "this rank a share of the rows .*by all_reduce",
        ),
        (Pairs(LABELS), {"drop_last": True, "batch_size": 4}, "drop_last=True leaves out"),
    ],
)
def test_what_a_loader_is_warned_of(data: Any, options: dict[str, Any], message: str) -> None:
    loader = DataLoader(data, **options)
    told: list[tuple[int, int | None]] = []
    with pytest.warns(UserWarning, match=f"count_classes: of this DataLoader: .*{message}") as caught:
        counts = count_classes(loader, progress=lambda *now: told.append(now))
    assert [warning.filename for warning in caught] == [__file__]
    assert told[-1] == (counts.total, counts.total)
    if options.get("drop_last"):
        assert told == [(4, 4)]


@pytest.mark.parametrize(
    "sampler", [SequentialSampler(range(6)), SubsetRandomSampler(range(6)), RandomSampler(range(6))]
)
def test_samplers_that_draw_each_row_once(sampler: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert count_classes(DataLoader(Pairs(LABELS), sampler=sampler)) == EXPECTED
        assert count_classes(DataLoader(Pairs(LABELS), batch_sampler=BatchSampler(sampler, 2, False))) == EXPECTED


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[Any]:
        return ((torch.zeros(2), label) for label in LABELS)


@pytest.mark.parametrize("together", [1, 4, 4096])
def test_iterable_data_sets(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders_module, "_TOGETHER", together)
    for source in (Stream(), DataLoader(Stream(), batch_size=4), DataLoader(Stream(), batch_size=None)):
        told: list[tuple[int, int | None]] = []
        assert count_classes(source, progress=lambda *now, told=told: told.append(now)) == EXPECTED
        assert told[-1] == (6, 6)
        assert all(total is None for _, total in told[:-1])
    with pytest.raises(IndexError, match=r"got 3 at position . in the samples from "):
        count_classes(Stream(), num_classes=3)


# 4 Hugging Face


class HuggingFace:
    """The part of ``datasets.Dataset`` that is used: columns of Arrow tables, chosen, formatted and iterated."""

    def __init__(self, columns: dict[str, list[Any]], names: list[str] | None = None) -> None:
        self.columns, self.column_names, self.num_rows = columns, list(columns), len(next(iter(columns.values())))
        feature = type("ClassLabel", (), {"names": names}) if names else object()
        self.features = dict.fromkeys(columns, feature)

    def select_columns(self, names: list[str]) -> HuggingFace:
        return HuggingFace({name: self.columns[name] for name in names})

    def with_format(self, kind: str) -> HuggingFace:
        assert kind == "arrow"
        assert len(self.columns) == 1
        return self

    def iter(self, batch_size: int) -> Iterator[pa.Table]:
        for start in range(0, self.num_rows, batch_size):
            yield pa.table({name: values[start : start + batch_size] for name, values in self.columns.items()})


def test_hugging_face(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders_module, "_ROWS", 4)
    told: list[tuple[int, int | None]] = []
    source = HuggingFace({"x": [b"image"] * 6, "y": LABELS})
    assert count_classes(source, "y", progress=lambda *now: told.append(now)) == EXPECTED
    assert told == [(4, 6), (6, 6)]
    assert count_classes(HuggingFace({"x": [1] * 6, "y": LABELS}, NAMES), "y") == NAMED
    with pytest.raises(ValueError, match=r"'target' must be a column of the data set; got 'z'\. It has 'x', 'y'"):
        count_classes(source, "z")
    with pytest.raises(ValueError, match="a missing label at position 1 in the rows from 4"):
        count_classes(HuggingFace({"y": [*LABELS[:5], None]}), "y")
