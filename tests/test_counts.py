"""ClassCounts as a value, and count_classes on labels in memory. Frames and files: test_counts_files.py."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import math
import os
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import steelyard.counts._labels as labels_module
from steelyard.counts import ClassCounts, as_class_counts, count_classes, imbalance_ratio

relaxed = settings(deadline=None)
MULTI = ClassCounts(["a", "b"], [20, 5], negatives=[80, 95])

# 1 The value


def test_what_it_knows() -> None:
    counts = ClassCounts(["cat", "dog", "eel"], [60, 30, 10])
    assert counts.classes == ("cat", "dog", "eel")
    assert counts.counts.tolist() == [60, 30, 10]
    assert counts.counts.dtype == torch.int64
    assert (counts.total, counts.num_classes, counts.is_multilabel) == (100, 3, False)
    assert counts.prior.tolist() == [0.6, 0.3, 0.1]
    assert counts.prior.dtype == torch.float64
    assert (counts.imbalance_ratio, counts.majority_accuracy) == (6.0, 0.6)
    assert counts.positives.tolist() == [60, 30, 10]
    assert counts.negatives.tolist() == [40, 70, 90]


def test_what_it_knows_of_multilabel_data() -> None:
    counts = ClassCounts(["a", "b"], [20, 3], negatives=[80, 7], total=105)
    assert (counts.total, counts.num_classes, counts.is_multilabel) == (105, 2, True)
    assert counts.counts.tolist() == counts.positives.tolist() == [20, 3]
    assert counts.negatives.tolist() == [80, 7]
    assert counts.prior.tolist() == [0.2, 0.3]  # of those that are known
    assert counts.imbalance_ratio == 4.0  # the worse of 80 : 20 and 7 : 3
    assert counts.majority_accuracy == pytest.approx((0.8 + 0.7) / 2)


def test_the_long_tail_of_the_worked_example() -> None:
    counts = as_class_counts([100000, 100, 10], function="test")
    assert counts.imbalance_ratio == imbalance_ratio([100000, 100, 10]) == 10000.0
    assert counts.majority_accuracy == pytest.approx(0.9989, abs=5e-5)


def test_imbalance_begins_at_the_threshold() -> None:
    assert ClassCounts([0, 1], [10, 1]).is_imbalanced()
    assert not ClassCounts([0, 1], [99, 10]).is_imbalanced()
    assert ClassCounts([0, 1], [99, 10]).is_imbalanced(threshold=9.5)
    assert ClassCounts([0, 1], [5, 0]).is_imbalanced()


def test_absent_classes_and_no_rows_at_all() -> None:
    assert imbalance_ratio([5, 0]) == math.inf
    nothing = ClassCounts([0, 1], [0, 0])
    assert math.isnan(nothing.imbalance_ratio)
    assert math.isnan(nothing.majority_accuracy)
    assert nothing.prior.isnan().all()
    assert not nothing.is_imbalanced()
    assert str(nothing).endswith("2 classes, 0 rows")
    half = ClassCounts([0, 1], [0, 1], negatives=[0, 3], total=4)
    assert half.majority_accuracy == 0.75
    assert half.prior[0].isnan()


def test_imbalance_ratio_takes_counts_in_any_form() -> None:
    forms = [[4, 2], (4, 2), np.array([4, 2]), torch.tensor([4, 2]), torch.tensor([4.0, 2.0], dtype=torch.bfloat16)]
    assert [imbalance_ratio(form) for form in [*forms, ClassCounts("ab", [4, 2])]] == [2.0] * 6
    assert imbalance_ratio(MULTI) == 19.0


# 2 Frozen


@pytest.mark.parametrize("make", [np.array, torch.tensor, list])
def test_later_changes_outside_do_not_reach_it(make) -> None:
    given_counts, given_negatives = make([3, 1]), make([1, 3])
    single, multi = ClassCounts([0, 1], given_counts), ClassCounts([0, 1], given_counts, negatives=given_negatives)
    loose = as_class_counts(given_counts, function="test")
    given_counts[0] = given_negatives[0] = 99
    assert single.counts.tolist() == multi.counts.tolist() == loose.counts.tolist() == [3, 1]
    assert multi.negatives.tolist() == [1, 3]


def test_what_it_hands_out_is_a_copy() -> None:
    for counts in (ClassCounts([0, 1], [3, 1]), MULTI):
        before = counts.to_json()
        counts.counts[0] = counts.positives[0] = counts.negatives[0] = 99
        counts.prior[0] = 99
        assert counts.to_json() == before


def test_attributes_cannot_be_set() -> None:
    counts = ClassCounts([0, 1], [3, 1])
    for name in ("counts", "classes", "total", "_counts", "new"):
        with pytest.raises(dataclasses.FrozenInstanceError, match="ClassCounts is frozen"):
            setattr(counts, name, 1)
        with pytest.raises(dataclasses.FrozenInstanceError, match="ClassCounts is frozen"):
            delattr(counts, name)


# 3 Equal, added, saved

kinds = [st.integers(-5, 5), st.text(max_size=3), st.booleans(), st.integers(-5, 5).map(float)]


@st.composite
def class_counts(draw: st.DrawFn, kind=None, multilabel=None) -> ClassCounts:
    kind = draw(st.sampled_from(kinds)) if kind is None else kind
    classes = sorted(draw(st.sets(kind, min_size=1)))
    numbers = st.lists(st.integers(0, 10**12), min_size=len(classes), max_size=len(classes))
    counts = draw(numbers)
    if not (draw(st.booleans()) if multilabel is None else multilabel):
        return ClassCounts(classes, counts)
    negatives = draw(numbers)
    known = max(map(sum, zip(counts, negatives, strict=True)))
    return ClassCounts(classes, counts, negatives=negatives, total=known + draw(st.integers(0, 5)))


@relaxed
@given(class_counts())
def test_round_trips(counts: ClassCounts) -> None:
    for again in (
        ClassCounts.from_json(counts.to_json()),
        pickle.loads(pickle.dumps(counts)),
        copy.copy(counts),
        copy.deepcopy(counts),
        eval(repr(counts)),
    ):
        assert again == counts
        assert hash(again) == hash(counts)
        assert list(map(type, again.classes)) == list(map(type, counts.classes))
        assert again.total == counts.total
        assert again.negatives.tolist() == counts.negatives.tolist()


def test_different_values_differ() -> None:
    base = ClassCounts([0, 1], [3, 1])
    others = [
        ClassCounts([0, 1], [3, 2]),
        ClassCounts([0, 2], [3, 1]),
        ClassCounts([False, True], [3, 1]),
        ClassCounts([0.0, 1.0], [3, 1]),
        ClassCounts([0, 1], [3, 1], negatives=[1, 3]),
        ClassCounts([0, 1], [3, 1], negatives=[1, 3], total=5),
        ClassCounts([0, 1], [3, 1], negatives=[1, 2], total=4),
    ]
    assert len({base, *others}) == 8
    assert base != [3, 1]


@pytest.mark.parametrize("multilabel", [False, True])
@relaxed
@given(st.data())
def test_addition_is_by_label(multilabel: bool, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(kinds))
    a, b, c = (data.draw(class_counts(kind=kind, multilabel=multilabel)) for _ in range(3))
    both = a + b
    assert both == b + a
    assert (a + b) + c == a + (b + c) == sum([a, b, c])
    assert both.total == a.total + b.total
    expected: Counter = Counter()
    for part in (a, b):
        expected.update(dict(zip(part.classes, part.positives.tolist(), strict=True)))
    assert dict(zip(both.classes, both.positives.tolist(), strict=True)) == dict(expected)


@relaxed
@given(st.lists(st.integers(0, 5), min_size=1), st.lists(st.integers(0, 5), min_size=1))
def test_counting_in_two_parts_is_counting_at_once(first: list[int], second: list[int]) -> None:
    assert count_classes(first) + count_classes(second) == count_classes(first + second)


def test_addition_keeps_a_chosen_order() -> None:
    assert (ClassCounts("ba", [1, 2]) + ClassCounts("ba", [3, 4])).classes == ("b", "a")


def test_what_cannot_be_added() -> None:
    counts = ClassCounts([0, 1], [3, 1])
    with pytest.raises(ValueError, match="'other' must be single-label counts of int labels; got multi-label counts"):
        counts + ClassCounts([0, 1], [3, 1], negatives=[1, 3])
    with pytest.raises(
        TypeError, match="'other' must be single-label counts of int labels; got single-label counts of str labels"
    ):
        counts + ClassCounts("ab", [3, 1])
    with pytest.raises(TypeError, match="int labels; got single-label counts of bool labels"):
        counts + ClassCounts([False, True], [3, 1])
    with pytest.raises(TypeError, match="unsupported operand"):
        counts + 1
    with pytest.raises(TypeError, match="unsupported operand"):
        1 + counts
    half = ClassCounts([0], [2**61])
    with pytest.raises(ValueError, match=r"below 2\*\*62"):
        half + half


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    MULTI.save(path)
    assert ClassCounts.load(str(path)) == MULTI
    ClassCounts("ü", [1]).save(path)
    assert ClassCounts.load(path) == ClassCounts("ü", [1])
    assert os.listdir(tmp_path) == ["counts.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "counts.json"
    MULTI.save(path)

    def full(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        ClassCounts("ab", [1, 2]).save(path)
    assert ClassCounts.load(path) == MULTI
    assert os.listdir(tmp_path) == ["counts.json"]


GOOD_JSON = json.loads(ClassCounts([0, 1], [3, 1]).to_json())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"kind": "other"}, ValueError, "ClassCounts of version 1"),
        ({"version": 2}, ValueError, "ClassCounts of version 1"),
        ({"total": 5}, ValueError, "whose 'total' is the sum of 'counts'"),
        ({"counts": [1]}, ValueError, "'counts' must be one number per class"),
        ({"counts": [1, -1]}, ValueError, "got -1 at position 1"),
        ({"classes": "ab"}, ValueError, "lists 'classes'"),
        ({"classes": [0, None]}, TypeError, "labels that are int"),
    ],
)
def test_json_of_something_else(tmp_path: Path, change: dict, error: type[Exception], message: str) -> None:
    text = json.dumps(GOOD_JSON | change)
    with pytest.raises(error, match=message):
        ClassCounts.from_json(text)


def test_json_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'text' must be JSON; got text that is not"):
        ClassCounts.from_json("{")
    with pytest.raises(ValueError, match="ClassCounts of version 1"):
        ClassCounts.from_json("[]")
    with pytest.raises(ValueError, match="with lists"):
        ClassCounts.from_json('{"kind": "steelyard.ClassCounts", "version": 1}')
    with pytest.raises(TypeError, match=r"'text' must be a string of JSON; .*use ClassCounts.load"):
        ClassCounts.from_json(Path("counts.json"))  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"ClassCounts.load: 'path' must be a file that exists"):
        ClassCounts.load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"a file that ClassCounts.save wrote; got '.*bad.json'"):
        ClassCounts.load(tmp_path / "bad.json")


# 4 Text


def test_table() -> None:
    assert str(ClassCounts(["cat", "dog", "\n"], [1234, 1, 0])).split("\n") == [
        "class  count    share  largest/count",
        "cat    1,234  99.92 %           1.00",
        "dog        1   0.08 %       1,234.00",
        "'\\n'       0   0.00 %              -",
        "3 classes, 1,235 rows, 1 without samples; always answering 'cat' is right 99.92 % of the time",
    ]


def test_table_of_multilabel_counts() -> None:
    assert str(MULTI).split("\n") == [
        "class  positives  negatives    share  negatives/positives",
        "a             20         80  20.00 %                 4.00",
        "b              5         95   5.00 %                19.00",
        "2 classes, 100 rows, 19 : 1; the commoner answer is right 87.50 % of the time, averaged over the classes",
    ]


def test_a_long_table_says_what_it_leaves_out() -> None:
    counts = ClassCounts(range(1000), range(1, 1001))
    lines = str(counts).split("\n")
    assert len(lines) == 1 + 15 + 1 + 15 + 1
    assert lines[16] == "... 970 more ..."
    assert lines[15].startswith("14 ")
    assert lines[17].startswith("985 ")
    assert lines[-1].startswith("1000 classes, 500,500 rows, 1,000 : 1; always answering 999 is right")
    assert repr(counts) == "<ClassCounts of 1000 classes, 500500 rows>"
    assert len(str(ClassCounts(range(30), range(30))).split("\n")) == 32


def test_html_escapes_labels() -> None:
    page = ClassCounts(["<b>", "x" * 99], [1, 2])._repr_html_()
    assert "<td>&lt;b&gt;</td><td>1</td><td>33.33 %</td>" in page
    assert "<b>" not in page
    assert "x" * 41 not in page
    assert page.count("<tr>") == 3


# 5 Labels in memory

EXPECTED = ClassCounts([0, 1, 5], [2, 3, 1])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_integer_arrays(dtype: type) -> None:
    array = np.array([1, 0, 1, 5, 0, 1], dtype=dtype)
    assert count_classes(array) == EXPECTED
    assert count_classes(torch.from_numpy(array)) == EXPECTED
    extremes = np.array([np.iinfo(dtype).max, np.iinfo(dtype).min, np.iinfo(dtype).max], dtype=dtype)
    expected = ClassCounts([np.iinfo(dtype).min, np.iinfo(dtype).max], [1, 2])
    assert count_classes(extremes) == count_classes(torch.from_numpy(extremes)) == expected


@pytest.mark.parametrize(
    "source",
    [
        [1, 0, 1, 5, 0, 1],
        (1, 0, 1, 5, 0, 1),
        [np.int64(1), np.int32(0), 1, 5, 0, 1],
        np.array([1, 0, 1, 5, 0, 1], dtype=object),
        [torch.tensor(x) for x in (1, 0, 1, 5, 0, 1)],
        torch.tensor([[1, 9], [0, 9], [1, 9], [5, 9], [0, 9], [1, 9]])[:, 0],
        np.array([1, 9, 0, 9, 1, 9, 5, 9, 0, 9, 1, 9])[::2],
    ],
)
def test_integers_of_other_forms(source) -> None:
    counts = count_classes(source)
    assert counts == EXPECTED
    assert set(map(type, counts.classes)) == {int}


def test_a_range_of_labels() -> None:
    assert count_classes(range(3, 0, -1)) == ClassCounts([1, 2, 3], [1, 1, 1])


@pytest.mark.parametrize("make", [list, np.array, lambda x: np.array(x, dtype=object)])
def test_strings_and_bools(make) -> None:
    assert count_classes(make(["dog", "cat", "dog"])) == ClassCounts(["cat", "dog"], [1, 2])
    counts = count_classes(make([True, False, True]))
    assert counts == ClassCounts([False, True], [1, 2])
    assert set(map(type, counts.classes)) == {bool}


def test_one_of_two_bools() -> None:
    assert count_classes(torch.tensor([True, True])) == ClassCounts([True], [2])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_whole_floats_stay_floats(dtype: torch.dtype) -> None:
    source = torch.tensor([2.0, 0.0, 2.0], dtype=dtype, requires_grad=True)
    counts = count_classes(source)
    assert counts == ClassCounts([0.0, 2.0], [1, 2])
    assert count_classes(source, num_classes=3) == ClassCounts([0, 1, 2], [1, 0, 2])


@relaxed
@given(st.lists(st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=50))
def test_counts_are_those_of_a_counter(values: list[int]) -> None:
    expected = sorted(Counter(values).items())
    for source in (values, np.array(values, dtype=np.int64), torch.tensor(values)):
        counts = count_classes(source)
        assert list(zip(counts.classes, counts.counts.tolist(), strict=True)) == expected


def test_num_classes_counts_absent_classes() -> None:
    counts = count_classes(torch.tensor([1, 1, 3]), num_classes=5)
    assert counts == ClassCounts(range(5), [0, 2, 0, 1, 0])
    assert count_classes([True, True], num_classes=2) == ClassCounts([0, 1], [0, 2])


def test_ignore_index() -> None:
    source = torch.tensor([0, -100, 2, -100, 255])
    assert count_classes(source, ignore_index=-100) == ClassCounts([0, 2, 255], [1, 1, 1])
    with pytest.raises(IndexError, match=r"labels in \[0, 3\) or -100; got 255 at position 4\."):
        count_classes(source, num_classes=3, ignore_index=-100)
    assert count_classes([0, 1, 1], ignore_index=1, num_classes=2).counts.tolist() == [1, 0]
    with pytest.raises(ValueError, match="at least one label; got none besides ignore_index=7"):
        count_classes([7, 7], ignore_index=7, num_classes=3)


def test_chunks_do_not_change_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "_CHUNK", 7)
    source = torch.arange(100) % 9
    told: list[tuple[int, int | None]] = []
    assert count_classes(source, progress=lambda *now: told.append(now)).counts.tolist() == [12] + [11] * 8
    assert told == [(min(done, 100), 100) for done in range(7, 107, 7)]
    rows = (torch.arange(40).reshape(10, 4) % 3 == 0).float()
    told.clear()
    counts = count_classes(rows, progress=lambda *now: told.append(now))
    assert counts.positives.tolist() == rows.sum(0).long().tolist()
    assert told == [(done, 10) for done in range(1, 11)]
    rows[9, 2] = 7
    with pytest.raises(ValueError, match=r"got 7.0 at position \(9, 2\)"):
        count_classes(rows)


@pytest.mark.parametrize(
    "source", [["a", "b"], [0, 1], np.array(["a", "b"]), np.array([0, 10**12]), torch.tensor([0.0, 1])]
)
def test_progress_is_told_the_end(source) -> None:
    told: list[tuple[int, int | None]] = []
    count_classes(source, progress=lambda *now: told.append(now))
    assert told[-1] == (2, 2)


# 6 Multi-label rows

ROWS = [[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("make", [list, tuple, np.array, torch.tensor, lambda x: [np.array(r) for r in x]])
def test_multilabel_rows(make) -> None:
    expected = ClassCounts([0, 1, 2], [3, 1, 0], negatives=[1, 3, 4], total=4)
    assert count_classes(make(ROWS)) == expected
    assert count_classes(make(ROWS), num_classes=3) == expected


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32, torch.bfloat16, torch.float64])
def test_multilabel_dtypes(dtype: torch.dtype) -> None:
    assert count_classes(torch.tensor(ROWS).to(dtype)).positives.tolist() == [3, 1, 0]


def test_multilabel_entries_that_are_not_known() -> None:
    counts = count_classes([[1, -1], [0, -1], [0, 1]], ignore_index=-1)
    assert counts == ClassCounts([0, 1], [1, 1], negatives=[2, 0], total=3)
    assert count_classes([[1, 0], [0, 0]], ignore_index=0).negatives.tolist() == [0, 0]


# 7 Refusals

GAP = "'source' must be labels without gaps; got a missing label at position 1. Drop or fill"
BAD_LABELS = [
    ([], ValueError, "at least one label; got none"),
    (np.array([], dtype=int), ValueError, "at least one label; got none"),
    (torch.zeros(0, 3), ValueError, r"at least one label; got shape \(0, 3\)"),
    ([0, None], ValueError, GAP),
    (["a", None], ValueError, GAP),
    ([0.0, math.nan], ValueError, GAP),
    (np.array([0.0, math.nan, 1.5]), ValueError, GAP),
    (torch.tensor([0.0, math.nan]), ValueError, GAP),
    ([0, 1, "2", 3], TypeError, "labels of one kind, here int; got '2' at position 2. Convert"),
    ([0, 1, True], TypeError, "one kind, here int; got True at position 2"),
    ([1.0, 1], TypeError, "one kind, here float; got 1 at position 1"),
    ([0, b"x"], TypeError, "labels that are int, str, bool or whole float; got b'x' at position 1"),
    ([0, {}], TypeError, "got {} at position 1"),
    (np.array(["2020-01-01"], dtype="datetime64[D]"), TypeError, "Convert them to strings first"),
    (np.array([b"x"]), TypeError, "labels that are int"),
    (np.array([1 + 2j]), TypeError, "labels that are int"),
    (torch.tensor([1 + 2j]), TypeError, "a dense tensor"),
    (torch.tensor([[0, 1]]).to_sparse(), TypeError, "a dense tensor"),
    ([0.0, 1.5, 2.5], ValueError, "whole numbers where labels are floats; got 1.5 at position 1. A number that varies"),
    (np.array([0.0, math.inf]), ValueError, "whole numbers where labels are floats; got inf at position 1"),
    (
        torch.tensor(3),
        ValueError,
        r"labels \(N,\), multi-label rows \(N, C\) or masks \(N, H, W\) of integers; got int64 of shape",
    ),
    (torch.zeros(2, 3, 4), ValueError, r"got float64 of shape \(2, 3, 4\). .*flatten"),
    (torch.tensor([[0, 1], [1, 2]]), ValueError, r"zeros and ones .* got 2 at position \(1, 1\). .*flatten"),
    (np.array([[0.0, math.nan]]), ValueError, r"zeros and ones .* got nan at position \(0, 1\)"),
    (np.array([["a", "b"]]), TypeError, "zeros and ones"),
    ([[0, 1], [1]], ValueError, "rows of the same length"),
    ([torch.zeros(2), torch.zeros(3)], ValueError, "rows of the same length"),
    ({0, 1}, TypeError, "a tensor, array, sequence or Series of labels; got set"),
    (iter([0]), TypeError, r"An iterator can be given as list\(...\)"),
    (b"labels", TypeError, "a tensor, array, sequence or Series of labels; got bytes"),
    (7, TypeError, "a tensor, array, sequence or Series of labels; got int 7"),
    (None, TypeError, "a tensor, array, sequence or Series of labels; got None"),
]
BAD_COUNT_CLASSES = {
    "source": BAD_LABELS,
    "target": [("y", TypeError, "None where 'source' is not a table, file or data set; got 'y'")],
    "num_classes": [
        (0, ValueError, "at least 1"),
        (2.0, TypeError, "an integer or None"),
        (True, TypeError, "an integer or None"),
    ],
    "ignore_index": [("x", TypeError, "an integer or None"), (False, TypeError, "an integer or None")],
    "progress": [(True, TypeError, r"a function of \(done, total\) or None")],
}


def test_bad_arguments_of_count_classes() -> None:
    assert list(BAD_COUNT_CLASSES) == list(inspect.signature(count_classes).parameters)
    for argument, cases in BAD_COUNT_CLASSES.items():
        for value, error, message in cases:
            with pytest.raises(error, match=message) as caught:
                count_classes(**({"source": [0, 1]} | {argument: value}))
            assert str(caught.value).startswith(f"count_classes: '{argument}' must be "), caught.value
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "where"),
    [
        ([0, 2, 5, -1], "5 at position 2"),
        (np.array([0, 2, -1, 5]), "-1 at position 2"),
        (torch.tensor([0, 10**15]), "1000000000000000 at position 1"),
        (torch.tensor([0.0, 3.0]), "3.0 at position 1"),
        (np.array([0, 255], dtype=np.uint8), "255 at position 1"),
    ],
)
def test_a_label_that_is_out_of_range(source, where: str) -> None:
    with pytest.raises(IndexError, match=rf"'source' must be labels in \[0, 3\); got {where}\. .*ignore_index"):
        count_classes(source, num_classes=3)


def test_options_that_do_not_fit_the_labels() -> None:
    with pytest.raises(TypeError, match="'num_classes' must be None for labels that are strings"):
        count_classes(["a", "b"], num_classes=2)
    with pytest.raises(TypeError, match="'ignore_index' must be None for labels that are strings"):
        count_classes(["a", "b"], ignore_index=2)
    with pytest.raises(ValueError, match="'num_classes' must be 3, the columns of multi-label data"):
        count_classes(ROWS, num_classes=4)


BAD_CLASS_COUNTS = {
    "classes": [
        ([], ValueError, "at least one class"),
        ([0, 0], ValueError, "different labels; got 0 twice"),
        ([0, "1"], TypeError, "labels of one kind; got int and str together"),
        ([0, None], TypeError, "labels that are int, str, bool or whole float; got None"),
        ([0.5, 1.0], ValueError, "whole numbers where labels are floats; got 0.5"),
        ([0.0, math.nan], ValueError, "whole numbers where labels are floats"),
    ],
    "counts": [
        ([1], ValueError, "one number per class, 2 of them; got 1"),
        ([1, -1], ValueError, "got -1 at position 1"),
        ([1, 0.5], ValueError, "got 0.5 at position 1. Counts are wanted here, not shares"),
        (torch.tensor([1.0, math.nan]), ValueError, "got nan at position 1"),
        ([2**62, 0], ValueError, "less than 2"),
        ([10**30, 0], ValueError, "less than 2"),
        ([True, False], TypeError, "whole numbers"),
        (torch.tensor([True, False]), TypeError, "whole numbers"),
        ([1, "2"], TypeError, "whole numbers"),
        ([1, None], TypeError, "whole numbers"),
        ([[1, 2]], ValueError, "For labels, use count_classes first"),
        ([[1], [1, 2]], ValueError, "whole numbers"),
        ({0: 1}, TypeError, "ClassCounts, or a 1-d sequence"),
    ],
    "negatives": [([1], ValueError, "one number per class"), ([1, -1], ValueError, "got -1")],
    "total": [
        (3, ValueError, "at least 4, the positives"),
        (4.0, TypeError, "a whole number of rows"),
        (True, TypeError, "a whole number of rows"),
        (None, ValueError, "given where positives . negatives differ between classes"),
    ],
    "images": [([1, 1], ValueError, "None for multi-label counts, whose rows are the images")],
    "image_pixels": [([1, 1], ValueError, "None where 'images' is None")],
    "num_images": [(2, ValueError, "None where 'images' is None")],
}


def test_bad_arguments_of_class_counts() -> None:
    assert list(BAD_CLASS_COUNTS) == list(inspect.signature(ClassCounts).parameters)
    good = {"classes": [0, 1], "counts": [1, 1], "negatives": [3, 2], "total": 4}
    for argument, cases in BAD_CLASS_COUNTS.items():
        for value, error, message in cases:
            with pytest.raises(error, match=message) as caught:
                ClassCounts(**(good | {argument: value}))
            assert str(caught.value).startswith(f"ClassCounts: '{argument}' must be "), caught.value


def test_total_of_single_label_counts_is_their_sum() -> None:
    with pytest.raises(ValueError, match="'total' must be None for single-label counts"):
        ClassCounts([0, 1], [1, 1], total=2)


@pytest.mark.parametrize(
    ("value", "error"), [(0.5, ValueError), (math.nan, ValueError), ("10", TypeError), (True, TypeError)]
)
def test_bad_threshold(value, error: type[Exception]) -> None:
    with pytest.raises(error, match="is_imbalanced: 'threshold' must be a number of at least 1"):
        ClassCounts([0, 1], [1, 1]).is_imbalanced(value)


def test_bad_counts_of_imbalance_ratio() -> None:
    with pytest.raises(ValueError, match="imbalance_ratio: 'counts' must be whole numbers"):
        imbalance_ratio([0.5, 0.5])
    with pytest.raises(TypeError, match="my_loss: 'counts' must be ClassCounts, or a 1-d"):
        as_class_counts(3, function="my_loss")
