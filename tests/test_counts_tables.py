"""count_classes on several files, on partitioned tables, JSON lines and packed files; and how Parquet is read fast."""

from __future__ import annotations

import gzip
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import steelyard.counts._jsonl as jsonl_module
import steelyard.counts._parquet as parquet_module
from steelyard.counts import ClassCounts, count_classes

SUFFIXES = [".csv", ".tsv", ".csv.gz", ".tsv.gz", ".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".parquet", ".pq"]
CASES = [
    ([3, 1, 3, -2], ClassCounts([-2, 1, 3], [1, 1, 2])),
    (["dog", "cat", "dog", "Ünal"], ClassCounts(["cat", "dog", "Ünal"], [1, 2, 1])),
    ([True, False, True, True], ClassCounts([False, True], [1, 3])),
    ([2.0, 0.0, 2.0, 2.0], ClassCounts([0.0, 2.0], [1, 3])),
]


def save(path: Path, values: list[Any], column: str = "y") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pl.DataFrame({"x": [1.5] * len(values), column: values})
    name = path.name.removesuffix(".gz")
    if name.endswith((".parquet", ".pq")):
        frame.write_parquet(path)
        return path
    if name.endswith("json") or name.endswith("jsonl"):
        text = "".join(json.dumps({"x": "a", column: value}, ensure_ascii=False) + "\n" for value in values)
    else:
        text = frame.write_csv(separator="\t" if ".tsv" in name else ",")
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


# 1 Every kind of file, alone, by a pattern, and in a folder


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("values", "expected"), CASES)
def test_files_patterns_and_folders(values: list[Any], expected: ClassCounts, suffix: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    one = save(folder / f"a{suffix}", values)
    save(folder / "deep" / f"b{suffix}", values)
    for source, times in ((one, 1), (folder / f"*{suffix}", 1), (folder, 2), (str(folder / "**" / f"?{suffix}"), 2)):
        told: list[tuple[int, int | None]] = []
        counts = count_classes(source, "y", progress=lambda *now, told=told: told.append(now))
        assert counts == sum([expected] * times), source
        assert set(map(type, counts.classes)) == set(map(type, expected.classes))
        assert told[-1] == (4 * times, 4 * times)
        assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_files_of_several_kinds_in_one_pattern(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        save(tmp_path / f"a{suffix}", [1, 2, 2])
    assert count_classes(tmp_path / "a.*", "y") == ClassCounts([1, 2], [10, 20])
    with pytest.raises(ValueError, match=r"a folder of one kind of table; got '.*a.csv' and '.*a.jsonl'. Name those"):
        count_classes(tmp_path, "y")
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=r"files of one kind, here tables; got '.*a.png', masks"):
        count_classes(tmp_path / "a.*", "y")


def test_what_a_folder_leaves_out(tmp_path: Path) -> None:
    save(tmp_path / "part.parquet", [1])
    for name in ("_SUCCESS", ".part.parquet.crc", "README.md"):
        (tmp_path / name).touch()
    save(tmp_path / "_temporary" / "part.parquet", [7])
    save(tmp_path / ".old.parquet", [7])
    assert count_classes(tmp_path, "y") == ClassCounts([1], [1])


@pytest.mark.parametrize(
    ("log", "reader"),
    [("_delta_log/0.json", "polars.scan_delta"), ("metadata/v1.metadata.json", "polars.scan_iceberg")],
)
def test_a_table_with_a_log_is_left_to_who_reads_it(tmp_path: Path, log: str, reader: str) -> None:
    """Files that were deleted from such a table still lie in its folder."""
    save(tmp_path / "part.parquet", [1])
    (tmp_path / "metadata").mkdir()
    assert count_classes(tmp_path, "y").total == 1
    (tmp_path / log).parent.mkdir(exist_ok=True)
    (tmp_path / log).touch()
    with pytest.raises(ValueError, match=rf"a table with a log of changes .*give count_classes the frame of {reader}"):
        count_classes(tmp_path, "y")


def test_partitions(tmp_path: Path) -> None:
    for year, label, rows in ((2023, "a%2Fb", 3), (2023, "c", 1), (2024, "c", 2)):
        path = tmp_path / f"year={year}" / f"label={label}" / "part-0.parquet"
        save(path, list(range(rows)))
    assert count_classes(tmp_path, "label") == ClassCounts(["a/b", "c"], [3, 3])
    assert count_classes(tmp_path / "*" / "label=c", "label") == ClassCounts(["c"], [3])
    assert count_classes(tmp_path / "*" / "*" / "*.parquet", "year") == ClassCounts([2023, 2024], [4, 2])
    assert count_classes(tmp_path, "y") == ClassCounts([0, 1, 2], [3, 2, 1])
    with pytest.raises(ValueError, match=r"It has 'x', 'y', 'year', 'label'\."):
        count_classes(tmp_path, "z")
    save(tmp_path / "year=2024" / "label=__HIVE_DEFAULT_PARTITION__" / "part-0.parquet", [1])
    with pytest.raises(
        ValueError, match=r"a missing label at the folders of '.*__HIVE_DEFAULT_PARTITION__/part-0.parquet'"
    ):
        count_classes(tmp_path, "label")


def test_empty_parts_of_a_table(tmp_path: Path) -> None:
    pl.DataFrame(schema={"y": pl.Int64}).write_parquet(tmp_path / "0.parquet")
    with pytest.raises(ValueError, match=r"a file with labels in it; got '.*0.parquet', which has columns and no rows"):
        count_classes(tmp_path / "0.parquet", "y")
    pl.DataFrame(schema={"y": pl.Int64}).write_parquet(tmp_path / "1.parquet")
    with pytest.raises(ValueError, match=r"got 2 files as '.*0.parquet', which have columns and no rows"):
        count_classes(tmp_path, "y")
    save(tmp_path / "2.parquet", [5])
    assert count_classes(tmp_path, "y") == ClassCounts([5], [1])


def test_declared_categories_of_files(tmp_path: Path) -> None:
    for number, order in enumerate((["low", "mid", "high"], ["low", "mid", "high"], ["low", "high", "mid"])):
        frame = pl.DataFrame({"y": pl.Series(["mid", "low"], dtype=pl.Enum(order))})
        frame.write_parquet(tmp_path / f"{number}.parquet")
    counts = count_classes(tmp_path / "[01].parquet", "y")
    assert (counts.classes, counts.counts.tolist()) == (("low", "mid", "high"), [2, 2, 0])
    with pytest.raises(
        ValueError, match=r"declare the same classes, in the same order, .* got '.*1.parquet' and '.*2.par"
    ):
        count_classes(tmp_path, "y")


# 2 What is wrong, and where


def test_patterns_that_match_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a pattern that matches files; got '.*\*.csv', which matches none"):
        count_classes(tmp_path / "*.csv", "y")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_column_that_one_file_lacks(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / f"a{suffix}", [1])
    save(tmp_path / f"b{suffix}", [1], column="label")
    with pytest.raises(
        ValueError, match=rf"'target' must be a column of '.*b{suffix}'; got 'y'\. .*It has 'x', 'label'"
    ):
        count_classes(tmp_path / f"*{suffix}", "y")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_kinds_that_differ_between_files(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / f"a{suffix}", [1, 2])
    save(tmp_path / f"b{suffix}", ["x", "y"])
    with pytest.raises(
        TypeError, match=rf"labels of one kind, here int as in '.*a{suffix}'; got 'x' at '.*b{suffix}', "
    ) as at:
        count_classes(tmp_path / f"*{suffix}", "y")
    assert ("row 0" in str(at.value)) != ("line 1" in str(at.value))
    save(tmp_path / f"a{suffix}", [True, False])
    with pytest.raises(TypeError, match=r"here bool as in .* got 'x' at"):
        count_classes(tmp_path / f"*{suffix}", "y")


def test_the_word_among_the_numbers_of_another_file_is_named(tmp_path: Path) -> None:
    """It makes strings of all labels of its file, of which the first is not to blame."""
    save(tmp_path / "a.csv", [1, 2])
    (tmp_path / "b.csv").write_text("y\n1\n2\noops\n")
    with pytest.raises(TypeError, match=r"here int as in '.*a.csv'; got 'oops' at '.*b.csv', row 2 \(the first is 0\)"):
        count_classes(tmp_path / "*.csv", "y")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_numbers_are_integers_only_if_all_files_hold_integers(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / f"a{suffix}", [1, 2])
    save(tmp_path / f"b{suffix}", [1.0, 3.0])
    counts = count_classes(tmp_path / f"*{suffix}", "y")
    assert counts == ClassCounts([1.0, 2.0, 3.0], [2, 1, 1])
    save(tmp_path / f"b{suffix}", [1.0, 1.5])
    with pytest.raises(
        ValueError, match=rf"whole numbers where labels are floats; got 1.5 at '.*b{suffix}', (row 1|line 2)"
    ):
        count_classes(tmp_path / f"*{suffix}", "y")


def test_integers_and_floats_of_parquet_files_are_two_kinds(tmp_path: Path) -> None:
    save(tmp_path / "a.parquet", [1])
    save(tmp_path / "b.parquet", [1.0])
    with pytest.raises(TypeError, match=r"here int as in '.*a.parquet'; got 1.0 at '.*b.parquet', row 0"):
        count_classes(tmp_path, "y")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_where_a_label_of_a_later_file_is(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / f"a{suffix}", [0, 1])
    save(tmp_path / f"b{suffix}", [1, 0, 7])
    place = "line 3" if "json" in suffix else "row 2"
    with pytest.raises(IndexError, match=rf"labels in \[0, 2\); got 7 at '.*b{suffix}', {place}"):
        count_classes(tmp_path / f"*{suffix}", "y", num_classes=2)
    save(tmp_path / f"b{suffix}", [1, None])
    place = "line 2" if "json" in suffix else "row 1"
    with pytest.raises(ValueError, match=rf"a missing label at '.*b{suffix}', {place}"):
        count_classes(tmp_path / f"*{suffix}", "y")


def test_of_several_bad_labels_the_first_is_named(tmp_path: Path) -> None:
    for name, values in {"a": [0, 1], "b": [1, 9], "c": [7, 8]}.items():
        save(tmp_path / f"{name}.parquet", values)
    with pytest.raises(IndexError, match=r"got 9 at '.*b.parquet', row 1"):
        count_classes(tmp_path, "y", num_classes=2)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_cut_off(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / f"a{suffix}", [0, 1])
    whole = save(tmp_path / f"b{suffix}", [f"label {n % 97}" for n in range(5000)])
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3 + 1])
    if suffix in (".csv", ".tsv"):
        return  # a CSV may end anywhere
    with pytest.raises(ValueError, match=rf"got '.*b{suffix}'") as told:
        count_classes(tmp_path / f"b{suffix}", "y")
    assert "\n" not in str(told.value)
    if "json" in suffix:
        assert "line " in str(told.value)
    with pytest.raises((ValueError, TypeError), match=rf"'.*b{suffix}'"):
        count_classes(tmp_path / f"*{suffix}", "y")


def test_a_broken_page_of_parquet_says_in_which_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"y": [n % 50 for n in range(4000)]})
    pq.write_table(table, path, row_group_size=1000, compression="snappy")
    chunk = pq.read_metadata(path).row_group(2).column(0)
    raw = bytearray(path.read_bytes())
    raw[chunk.dictionary_page_offset : chunk.dictionary_page_offset + 20] = b"\xff" * 20
    path.write_bytes(raw)
    with pytest.raises(
        ValueError, match=r"a readable Parquet file; got '.*a.parquet', rows 2000 to 2999 \(the first is 0\): "
    ):
        count_classes(path, "y")


# 3 JSON lines


@pytest.mark.parametrize("block", [64, 1 << 22])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"y": 1}\n\n  \n{"x": {"y": 2}, "y": 1}\r\n{"y": -3}', ClassCounts([-3, 1], [1, 2])),
        ('\ufeff{"y": "a"}\n{"y": "\\u00fc"}\n', ClassCounts(["a", "ü"], [1, 1])),
        ('{"y": 1}\n{"y": 1.0}\n{"y": 2e0}\n', ClassCounts([1.0, 2.0], [2, 1])),
        ('{"y": 1.0}\n{"y": 1}\n', ClassCounts([1.0], [2])),
        ('{"y": true, "x": 1}\n{"y": false, "x": "a"}\n{"y": true, "x": [1]}\n', ClassCounts([False, True], [1, 2])),
        ('{"y": 36893488147419103232}\n{"y": 1}\n', ClassCounts([1, 2**65], [1, 1])),
        ('{"y": 0, "y": 1}\n', ClassCounts([1], [1])),
    ],
)
def test_json_lines(
    tmp_path: Path, text: str, expected: ClassCounts, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl_module, "_BLOCK", block)
    path = tmp_path / "a.jsonl"
    path.write_text(text, encoding="utf-8", newline="")
    counts = count_classes(path, "y")
    assert counts == expected
    assert set(map(type, counts.classes)) == set(map(type, expected.classes))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(0, 3)), min_size=1))
def test_arrow_and_python_read_the_same(tmp_path_factory: pytest.TempPathFactory, values: list[int]) -> None:
    path = save(tmp_path_factory.mktemp("jsonl") / "a.jsonl", values)
    fast, exact = jsonl_module._fast(path, "y", None), jsonl_module._exact(path, "y", None)
    assert fast == exact
    assert sum(exact.values()) == len(values)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", ValueError, "a file with labels in it; got '{path}', which is empty"),
        ("\n\n", ValueError, "'{path}', which has only blank lines"),
        ('{"y": 1}\n{"y": 2\n{"y": 3}\n', ValueError, "one JSON object a line; got '{path}', line 2: "),
        (
            '{"y": 1}\nno JSON\n',
            ValueError,
            "one JSON object a line; got '{path}', line 2: expecting value at character 1",
        ),
        ('{"y": 1}\n\n[1]\n', ValueError, "one JSON object a line; got list [1] at '{path}', line 3"),
        ('{"y": 1}\n{"y": "1"}\n', TypeError, "labels of one kind, here int; got '1' at '{path}', line 2, field 'y'"),
        ('{"y": 1}\n{"y": true}\n', TypeError, "here int; got True at '{path}', line 2"),
        ('{"y": 1}\n{"y": null}\n', ValueError, "a missing label at '{path}', line 2"),
        ('{"y": 1.5}\n{"y": null}\n', ValueError, "a missing label at '{path}', line 2"),
        ('{"y": 1}\n{"x": 1}\n', ValueError, "a missing label at '{path}', line 2"),
        ('{"y": 1.0}\n{"y": NaN}\n', ValueError, "a missing label at '{path}', line 2"),
        ('{"y": 1}\n{"y": 1.5}\n', ValueError, "floats; got 1.5 at '{path}', line 2"),
        ('{"y": 1}\n{"y": [1]}\n', TypeError, "whole float; got list [1] at '{path}', line 2, field 'y'"),
        (b'{"y": "a"}\n{"y": "\xff"}\n', ValueError, "'{path}', line 2: byte 0xff is not UTF-8"),
    ],
)
def test_json_lines_that_cannot_be_counted(tmp_path: Path, text: Any, error: type[Exception], message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(error) as caught:
        count_classes(path, "y")
    assert str(caught.value).startswith("count_classes: 'source' must be ")
    assert message.format(path=path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_lines_tell_how_far_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl_module, "_BLOCK", 4096)
    monkeypatch.setattr(jsonl_module, "_TOLD", 100)
    for last in (1, "x"):  # the second is read line by line, since Arrow gives up
        path = save(tmp_path / "a.jsonl", [*[n % 3 for n in range(1000)]])
        if last == "x":
            monkeypatch.setattr(jsonl_module, "_fast", lambda *_: None)
        told: list[int] = []
        assert count_classes(path, "y", progress=lambda done, _, told=told: told.append(done)).total == 1000
        assert told == sorted(told)
        assert len(told) > 4
        assert told[-1] == 1000


@pytest.mark.parametrize("suffix", [".csv.gz", ".jsonl.gz"])
def test_packed_files_that_are_none(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    lines = [b"y", *[b"1"] * 10_000] if "csv" in suffix else [b'{"y": 1}'] * 10_000
    path.write_bytes(gzip.compress(b"\n".join(lines))[:-20])
    with pytest.raises(ValueError, match=rf"got '.*a{suffix}', after line \d+: Compressed file ended"):
        count_classes(path, "y")
    text = "y,x\n1,2\n1,2,3\n" if "csv" in suffix else '{"y": 1}\n\n{"y"}\n'
    path.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(ValueError, match="row 1 .the first is 0.: 3 fields where" if "csv" in suffix else "line 3"):
        count_classes(path, "y")


# 4 Parquet: what is read fast is what Polars reads

KINDS: dict[str, list[Any]] = {
    "int64": [5, -3, 5, 0, 5],
    "int8": [5, -3, 5, 0, 5],
    "uint16": [5, 3, 5, 60000, 5],
    "uint64": [5, 3, 5, 2**64 - 1, 5],
    "large span": [5, -3, 5, 10**12, 5],
    "string": ["a", "b", "a", "", "ü"],
    "bool": [True, False, True, True, True],
}
TYPES = {"large span": pa.int64(), "bool": pa.bool_()}


@pytest.mark.parametrize("gap", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_parquet_read_fast(tmp_path: Path, kind: str, gap: bool) -> None:
    values = KINDS[kind] * 3 + [None] * gap
    kind_of = TYPES.get(kind) or getattr(pa, kind)()
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"z": [[1]] * len(values), "y": pa.array(values, kind_of)}), path, row_group_size=4)
    told: list[tuple[int, int | None]] = []
    fast = parquet_module.fast_counts(path, "y", lambda *now: told.append(now))
    if kind in ("large span", "uint64"):
        assert fast is None
    else:
        expected = {label: values.count(label) for label in set(values)}
        if fast is not None:
            assert fast == expected
            assert list(map(type, fast)) == [type(label) for label in fast]
            assert told[-1] == (len(values), len(values))
    if gap:
        with pytest.raises(
            ValueError, match=r"a missing label at '.*a.parquet', row 15 \(the first is 0\), column 'y'"
        ):
            count_classes(path, "y")
    else:
        assert count_classes(path, "y") == count_classes(values)


@pytest.mark.parametrize("write", ["polars", "pandas", "arrow", "dictionary"])
@pytest.mark.parametrize("values", [[1, 2, 1], ["a", "b", "a"]], ids=["int", "str"])
def test_files_of_all_writers_are_read_fast(tmp_path: Path, write: str, values: list[Any]) -> None:
    path = tmp_path / "a.parquet"
    if write == "polars":
        pl.DataFrame({"y": values}).write_parquet(path)
    elif write == "pandas":
        pd.DataFrame({"y": values}).to_parquet(path)
    else:
        column = pa.array(values)
        is_text = values[0] == "a"
        pq.write_table(
            pa.table({"y": column.dictionary_encode() if write == "dictionary" and is_text else column}), path
        )
    assert parquet_module.fast_counts(path, "y", None) == {values[0]: 2, values[1]: 1}


def test_what_is_left_to_polars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"y": [1, 2, 2], "a.b": [1, 2, 2], "f": [1.0, 2.0, 2.0], "s": ["a", "b", "b"]})
    for column, options in (("y", {"write_statistics": False}), ("a.b", {}), ("f", {})):
        pq.write_table(table, path, **options)
        assert parquet_module.fast_counts(path, column, None) is None
        assert count_classes(path, column).counts.tolist() == [1, 2]
    monkeypatch.setattr(parquet_module, "_WIDEST", 1)
    assert parquet_module.fast_counts(path, "s", None) is None
    assert count_classes(path, "s").counts.tolist() == [1, 2]


def test_statistics_that_are_wrong_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"y": [1, 2, 2]}), path)
    for span in ((0, 1), (2, 3)):
        monkeypatch.setattr(parquet_module, "_span", lambda *_, span=span: span)
        assert parquet_module.fast_counts(path, "y", None) is None
        assert count_classes(path, "y") == ClassCounts([1, 2], [1, 2])


@pytest.mark.parametrize("threads", [1, 3], indirect=False)
def test_row_groups_are_shared_out(tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_module.torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(parquet_module, "_ROWS", 17)
    values = np.random.default_rng(0).integers(0, 9, 1000)
    pq.write_table(
        pa.table({"y": values, "s": [f"class {v}" for v in values]}), tmp_path / "a.parquet", row_group_size=101
    )
    workers: set[int] = set()
    for column in ("y", "s"):
        told: list[int] = []

        def progress(done: int, total: int | None, told: list[int] = told) -> None:
            workers.add(threading.get_ident())
            told.append(done)

        counts = count_classes(tmp_path / "a.parquet", column, progress=progress)
        assert counts.counts.tolist() == np.bincount(values).tolist()
        assert told == sorted(told)
        assert told[-1] == 1000


def test_a_progress_that_fails_stops_all_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_module.torch, "get_num_threads", lambda: 2)
    pq.write_table(pa.table({"y": [1, 2] * 5000}), tmp_path / "a.parquet", row_group_size=10)
    calls = []

    def progress(done: int, total: int | None) -> None:
        calls.append(done)
        if threading.current_thread().name.endswith("_0"):
            raise KeyError("mine")
        time.sleep(0.01)  # the other thread has 500 batches, five seconds of them

    with pytest.raises(KeyError, match="mine"):
        count_classes(tmp_path / "a.parquet", "y", progress=progress)
    assert len(calls) < 100


@pytest.mark.parametrize("classes", [255, 256, 257, 300])
def test_as_many_classes_as_a_byte_holds_and_more(tmp_path: Path, classes: int) -> None:
    values = [*range(classes), classes - 1]
    pq.write_table(pa.table({"y": values, "s": [f"{v:03}" for v in values]}), tmp_path / "a.parquet")
    for column in ("y", "s"):
        assert len(parquet_module.fast_counts(tmp_path / "a.parquet", column, None) or {}) == classes
        assert count_classes(tmp_path / "a.parquet", column).counts.tolist() == [1] * (classes - 1) + [2]


def test_without_arrow_polars_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    paths = [save(tmp_path / f"a{suffix}", [1, 2, 2]) for suffix in (".parquet", ".jsonl")]
    for name in ("pyarrow", "pyarrow.parquet", "pyarrow.json"):
        monkeypatch.setitem(sys.modules, name, None)
    for path in paths:
        assert count_classes(path, "y") == ClassCounts([1, 2], [1, 2])
