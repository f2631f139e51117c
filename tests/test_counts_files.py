"""count_classes on pandas and Polars frames and on files: the same counts, and errors that say where."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

from steelyard.counts import ClassCounts, count_classes

CASES = [
    ([3, 1, 3, -2], ClassCounts([-2, 1, 3], [1, 1, 2])),
    (["dog", "cat", "dog", "Ünal"], ClassCounts(["cat", "dog", "Ünal"], [1, 2, 1])),
    ([True, False, True, True], ClassCounts([False, True], [1, 3])),
    ([2.0, 0.0, 2.0, 2.0], ClassCounts([0.0, 2.0], [1, 3])),
]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# 1 The same labels, wherever they are


@pytest.mark.parametrize(("values", "expected"), CASES)
def test_every_source_gives_the_same_counts(values: list, expected: ClassCounts, tmp_path: Path) -> None:
    polars = pl.DataFrame({"x": [1.5] * 4, "y": values})
    pandas = pd.DataFrame({"x": [1.5] * 4, "y": values})
    polars.write_csv(tmp_path / "data.csv")
    polars.write_csv(tmp_path / "data.tsv", separator="\t")
    polars.write_parquet(tmp_path / "data.parquet")
    polars.write_parquet(tmp_path / "DATA.PQ")
    sources = [polars, polars.lazy(), pandas, *(tmp_path / name for name in sorted(os.listdir(tmp_path)))]
    for source in [*sources, str(tmp_path / "data.csv")]:
        told: list[tuple[int, int | None]] = []
        with_progress = count_classes(source, "y", progress=lambda *now, told=told: told.append(now))
        for counts in (count_classes(source, "y"), with_progress):
            assert counts == expected, source
            assert set(map(type, counts.classes)) == set(map(type, expected.classes))
        assert told[-1] == (4, 4)
    for series in (polars["y"], pandas["y"], pandas["y"].to_numpy()):
        assert count_classes(series) == expected


@pytest.mark.parametrize(
    "series",
    [
        pd.Series(["b", "a", "b"], dtype="category"),
        pd.Series(["b", "a", "b"], dtype="string"),
        pd.Series(["b", "a", "b"], dtype=object),
        pd.Series(["b", "a", "b"], index=[7, 7, 7]),
        pl.Series(["b", "a", "b"], dtype=pl.Categorical),
        pl.Series(["b", "a", "b"], dtype=pl.Object),
    ],
)
def test_categories_count_as_strings_where_they_occur(series) -> None:
    assert count_classes(series) == ClassCounts(["a", "b"], [1, 2])


@pytest.mark.parametrize(
    "series",
    [
        pd.Series(["mid", "low", "mid"], dtype=pd.CategoricalDtype(["low", "mid", "high"], ordered=True)),
        pd.Series(["mid", "low", "mid"], dtype=pd.CategoricalDtype(["low", "mid", "high"])),
        pl.Series(["mid", "low", "mid"], dtype=pl.Enum(["low", "mid", "high"])),
    ],
)
def test_declared_categories_keep_the_order_of_their_codes_and_the_empty_ones(series) -> None:
    wanted = ClassCounts(["low", "mid", "high"], [1, 2, 0])
    frame = series.rename("y").to_frame() if isinstance(series, pd.Series) else pl.DataFrame({"y": series})
    for counts in (count_classes(series), count_classes(frame, "y")):
        assert counts == wanted
        assert counts.classes == wanted.classes


@pytest.mark.parametrize("dtype", ["Int64", "int8", "UInt8", "category", "Float64", "float32"])
def test_pandas_numbers(dtype: str) -> None:
    counts = count_classes(pd.Series([2, 1, 2]).astype(dtype))
    assert counts.classes == (1, 2)
    assert counts.counts.tolist() == [1, 2]
    assert count_classes(pd.Series([2, 1, 2]).astype(dtype), num_classes=3).counts.tolist() == [0, 1, 2]


def test_num_classes_and_ignore_index_of_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "y\n0\n-1\n2\n2\n")
    assert count_classes(path, "y", 4, -1) == ClassCounts(range(4), [1, 0, 2, 0])


@pytest.mark.parametrize("name", ["label", "rows", "row"])
def test_columns_whose_names_are_used_inside(name: str) -> None:
    frame = pl.DataFrame({"label": [0, 0], "rows": [0, 0], "row": [0, 0]}).with_columns(pl.Series(name, [4, 5]))
    assert count_classes(frame, name, progress=print).classes == (4, 5)
    with pytest.raises(IndexError, match=f"got 5 at row 1 .the first is 0., column '{name}'"):
        count_classes(frame, name, num_classes=5)


@pytest.mark.parametrize("make", [pd.Series, pl.Series])
def test_a_series_has_no_columns(make) -> None:
    with pytest.raises(
        TypeError, match=r"'target' must be None where 'source' is not a table, file or data set; got 'y'"
    ):
        count_classes(make([1, 2]), "y")
    by_label = pd.Series([1, 1], index=["labels", "targets"])  # which are attributes of it
    assert count_classes(by_label) == ClassCounts([1], [2])


def test_pandas_columns_need_not_be_strings() -> None:
    assert count_classes(pd.DataFrame([[0, 1], [0, 2]]), 1).classes == (1, 2)


def test_a_name_with_a_star_is_a_name(tmp_path: Path) -> None:
    write(tmp_path / "a1.csv", "y\n1\n")
    path = write(tmp_path / "a[1].csv", "y\n2\n")
    assert count_classes(path, "y").classes == (2,)


def test_many_rows_stream(tmp_path: Path) -> None:
    n = 300_000
    frame = pl.DataFrame({"x": pl.repeat(1.25, n, eager=True), "y": pl.int_range(n, eager=True) % 7})
    frame.write_csv(tmp_path / "a.csv")
    frame.write_parquet(tmp_path / "a.parquet", row_group_size=10_000)
    expected = [n // 7 + (index < n % 7) for index in range(7)]
    for name in ("a.csv", "a.parquet"):
        told: list[int] = []
        counts = count_classes(tmp_path / name, "y", progress=lambda done, total, told=told: told.append(done))
        assert counts.counts.tolist() == expected
        assert told == sorted(told)
        assert len(told) > 2
        assert told[-1] == n


# 2 What text means


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("1\n 2\n+2\n", (1, 2)),
        ("1\n2.0\n", (1.0, 2.0)),
        ("1e3\n-0\n", (0.0, 1000.0)),
        ("true\nFalse\n", (False, True)),
        ("007\n7\n", ("007", "7")),
        ("0\n1\n3+\n", ("0", "1", "3+")),
        ("None\nmild\n", ("None", "mild")),
        ("NA\nEU\n", ("EU", "NA")),
        ('"a,b"\n"c\nd"\n', ("a,b", "c\nd")),
        ("true\n1\n", ("1", "true")),
        ("１\n2\n", ("2", "１")),
    ],
)
def test_a_text_column_is_what_all_of_it_is(tmp_path: Path, text: str, classes: tuple) -> None:
    counts = count_classes(write(tmp_path / "a.csv", "y\n" + text), "y")
    assert counts.classes == classes
    assert set(map(type, counts.classes)) == set(map(type, classes))


def test_spellings_of_one_number_count_together(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "y\n1\n +1\n2\n1\n")
    assert count_classes(path, "y") == ClassCounts([1, 2], [3, 1])
    assert count_classes(write(path, "y\n1\n1.0\n1e0\n"), "y") == ClassCounts([1.0], [3])


def test_the_first_rows_do_not_decide_for_the_rest(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "y\n" + "1\n" * 20_000 + "x\n")
    assert count_classes(path, "y") == ClassCounts(["1", "x"], [20_000, 1])


def test_windows_line_ends_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"\xef\xbb\xbfy,x\r\n1,a\r\n2,b\r\n")
    assert count_classes(path, "y").classes == (1, 2)


# 3 Errors that say where


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", ValueError, "a file with labels in it; got '{path}', which is empty"),
        ("x,y\n", ValueError, "a file with labels in it; got '{path}', which has columns and no rows"),
        (
            "x,y\n1,0\n1,\n1,\n",
            ValueError,
            "labels without gaps; got a missing label at '{path}', row 1 (the first is 0)",
        ),
        ("x,y\n1,0\n\n2,1\n", ValueError, "got a missing label at '{path}', row 1 (the first is 0), column 'y'"),
        ('x,y\n1,a\n1,""\n', ValueError, "got a missing label at '{path}', row 1 "),
        ("x,y\n1,0\n1,NA\n", ValueError, "got a missing label at '{path}', row 1 "),
        ("x,y\n1,0.0\n1,nan\n", ValueError, "got a missing label at '{path}', row 1 "),
        ("x,y\n1\n", ValueError, "got a missing label at '{path}', row 0 "),
        ("x,y\n1,0\n1,1.5\n", ValueError, "whole numbers where labels are floats; got 1.5 at '{path}', row 1 "),
        ("x,y\n1,0\n1,1e999\n", ValueError, "whole numbers where labels are floats; got inf at '{path}', row 1 "),
        ("x,y\n1,0\n2,3,1\n", ValueError, "a readable CSV file; got '{path}', row 1 (the first is 0): 3 fields where"),
        ('x,y\n1,0\n2,"1\n', ValueError, "a readable CSV file; got '{path}', "),
        (b"x,y\n1,0\n2,caf\xe9\n", ValueError, "a readable CSV file; got '{path}', line 3: byte 0xe9 is not UTF-8"),
    ],
)
def test_files_that_cannot_be_counted(tmp_path: Path, text: str | bytes, error: type[Exception], message: str) -> None:
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(error) as caught:
        count_classes(path, "y")
    said = str(caught.value)
    assert said.startswith("count_classes: 'source' must be ")
    assert message.format(path=path) in said
    assert "\n" not in said


def test_a_broken_row_behind_many_good_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "x,y\n" + "1,0\n" * 200_000 + "1,0,0\n" + "1,0\n" * 10)
    with pytest.raises(ValueError, match=r"row 200000 .*: 3 fields where the header has 2"):
        count_classes(path, "y")


def test_parquet_that_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"y": range(1000)}).write_parquet(path)
    write(path, path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"a readable Parquet file; got '.*a.parquet', parquet: ") as caught:
        count_classes(path, "y")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="which is empty"):
        count_classes(write(path, b""), "y")


def test_a_label_out_of_range_in_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "y\n0\n1\n7\n9\n7\n")
    with pytest.raises(
        IndexError, match=r"labels in \[0, 2\); got 7 at '.*a.csv', row 2 \(the first is 0\), column 'y'"
    ):
        count_classes(path, "y", num_classes=2)


@pytest.mark.parametrize("make", [pl.DataFrame, pd.DataFrame, lambda data: pl.DataFrame(data).lazy()])
def test_where_in_a_frame(make) -> None:
    with pytest.raises(ValueError, match=r"a missing label at row 2 \(the first is 0\), column 'y'"):
        count_classes(make({"y": ["a", "b", None, None]}), "y")
    with pytest.raises(IndexError, match=r"got 5 at row 1 \(the first is 0\), column 'y'"):
        count_classes(make({"y": [0, 5, 7]}), "y", num_classes=3)
    with pytest.raises(ValueError, match=r"got 0.5 at row 1"):
        count_classes(make({"y": [0.0, 0.5, 0.75]}), "y")
    with pytest.raises(ValueError, match="at least one label; got none"):
        count_classes(make({"y": []}), "y")
    with pytest.raises(TypeError, match=r"Cast them to strings first"):
        count_classes(make({"y": [datetime.datetime(2020, 1, 1)]}), "y")


@pytest.mark.parametrize("dtype", ["Int64", "category", "string", "float64", object])
def test_where_in_a_pandas_series(dtype) -> None:
    values = ["1", None, "2"] if dtype in ("string", object) else [1, None, 2]
    with pytest.raises(ValueError, match="a missing label at position 1"):
        count_classes(pd.Series(values, dtype=dtype))


@pytest.mark.parametrize("values", [[1, None], [None, None], ["a", None], [1.0, float("nan")], [True, None]])
def test_where_in_a_polars_series(values: list) -> None:
    with pytest.raises(ValueError, match=f"a missing label at position {values[0] is not None:d}"):
        count_classes(pl.Series(values))


def test_mixed_kinds_in_a_pandas_series() -> None:
    with pytest.raises(TypeError, match="labels of one kind, here int; got 'a' at position 1"):
        count_classes(pd.Series([1, "a"], dtype=object))
    with pytest.raises(TypeError, match="integers, strings, bools or whole floats; got Datetime"):
        count_classes(pd.Series([pd.Timestamp("2020-01-01", tz="UTC")]))


def test_a_lazy_frame_that_fails() -> None:
    frame = pl.LazyFrame({"y": ["1", "x"]}).with_columns(pl.col("y").cast(pl.Int64))
    with pytest.raises(ValueError, match="a frame that Polars can compute; got one that fails: ") as caught:
        count_classes(frame, "y")
    assert "\n" not in str(caught.value)


# 4 The path and the column


def test_paths(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"'source' must be a file that exists; got '.*none.csv'"):
        count_classes(tmp_path / "none.csv", "y")
    with pytest.raises(ValueError, match=r"a file that ends in .csv, .tsv, .*masks.; got '.*a.xlsx'"):
        count_classes(write(tmp_path / "a.xlsx", "x"), "y")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(
        ValueError, match=r"a folder with tables where a target is given; got '.*folder.csv', which has"
    ):
        count_classes(tmp_path / "folder.csv", "y")


@pytest.mark.parametrize("kind", ["csv", "parquet", "polars", "lazy", "pandas"])
def test_columns(tmp_path: Path, kind: str) -> None:
    frame = pl.DataFrame({"age": [1], "diagnosis": ["x"]})
    frame.write_csv(tmp_path / "a.csv")
    frame.write_parquet(tmp_path / "a.parquet")
    sources = {"csv": tmp_path / "a.csv", "parquet": tmp_path / "a.parquet", "lazy": frame.lazy(), "polars": frame}
    source = sources.get(kind, pd.DataFrame({"age": [1], "diagnosis": ["x"]}))
    with pytest.raises(ValueError, match=r"'diagnosys'. Did you mean 'diagnosis'. It has 'age', 'diagnosis'"):
        count_classes(source, "diagnosys")
    with pytest.raises(ValueError, match=r"'zzz'\. It has 'age', 'diagnosis'\."):
        count_classes(source, "zzz")
    with pytest.raises(ValueError, match=r"that holds the labels; got None. It has 'age', 'diagnosis'"):
        count_classes(source)
    with pytest.raises(TypeError, match=r"the name of one column; got list"):
        count_classes(source, ["age"])


def test_a_wide_file_lists_its_first_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ",".join(f"c{i}" for i in range(50)) + "\n")
    with pytest.raises(ValueError, match="'c19' and 30 more"):
        count_classes(path, "target")


def test_a_pandas_frame_with_the_column_twice() -> None:
    with pytest.raises(
        ValueError, match=r"a frame whose columns have different names; got one that has not: .*'y' 2 times"
    ):
        count_classes(pd.DataFrame([[0, 1]], columns=["y", "y"]), "y")


def test_a_progress_that_fails_is_not_taken_for_a_broken_file(tmp_path: Path) -> None:
    def progress(done: int, total: int | None) -> None:
        raise KeyError("mine")

    path = write(tmp_path / "a.csv", "y\n1\n")
    with pytest.raises(KeyError, match="mine"):
        count_classes(path, "y", progress=progress)
    with pytest.raises(KeyError, match="mine"):
        count_classes(pl.DataFrame({"y": [1]}), "y", progress=progress)


# 5 Imports


def test_neither_polars_nor_pandas_is_imported_before_it_is_needed() -> None:
    code = "import sys, steelyard.weights; print({'polars', 'pandas', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_without_polars_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ImportError, match=r"count_classes: .*pip install 'steelyard\[data\]'"):
        count_classes(write(tmp_path / "a.csv", "y\n1\n"), "y")
    assert count_classes([1, 2]).total == 2
