"""``steelyard explain``: every kind of file, what it prints, JSON, exit codes, and bad files in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner, Result

from steelyard import functional
from steelyard.cli.app import app

Z = np.array([[0.1, 0.9], [0.0, 0.1], [2.0, 1.0]], dtype=np.float32)
Y = np.array([0, 1, 1])
MEAN = float(functional.cross_entropy(torch.tensor(Z), torch.tensor(Y), [0.1, 1.0]))


def run(*args: object) -> Result:
    return CliRunner().invoke(app, ["explain", *(str(arg) for arg in args)])


def data(*args: object) -> dict[str, Any]:
    done = run(*args, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def table(**changes: Any) -> pl.DataFrame:
    return pl.DataFrame({"a": Z[:, 0], "b": Z[:, 1], "target": Y, **changes})


def as_csv(path: Path) -> Path:
    table().write_csv(path / "p.csv")
    return path / "p.csv"


def as_tsv(path: Path) -> Path:
    table().write_csv(path / "p.tsv", separator="\t")
    return path / "p.tsv"


def as_parquet(path: Path) -> Path:
    table().write_parquet(path / "p.parquet")
    return path / "p.parquet"


def as_npz(path: Path) -> Path:
    np.savez(path / "p.npz", logits=Z, labels=Y)
    return path / "p.npz"


@pytest.mark.parametrize("write", [as_csv, as_tsv, as_parquet, as_npz])
def test_every_kind_of_file_gives_the_same_number(write: Callable[[Path], Path], tmp_path: Path) -> None:
    path = write(tmp_path)
    found = data(path, "--weight", "0.1,1")
    assert found["value"] == pytest.approx(MEAN, rel=1e-6)
    assert (found["file"], found["function"], found["rows"]) == (path.name, "cross_entropy", 3)
    assert found["denominator"]["value"] == pytest.approx(2.1)
    assert found["findings"] == []
    done = run(path, "--weight", "0.1,1")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"cross_entropy = {MEAN:.5g}")
    assert "The mean divides by 2.1" in lines[1]


def test_every_option_reaches_the_loss(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    table(v=[1.0, 2.0, 0.5], target=[0, 1, 9]).write_csv(path)
    z, y = torch.tensor(Z).double(), torch.tensor([0, 1, 9])
    options = {
        "weight": [0.1, 1.0], "sample_weight": [1.0, 2.0, 0.5], "label_smoothing": 0.2, "ignore_index": 9,
        "denominator": "samples", "gamma": 1.5,
    }  # fmt: skip
    found = data(path, "--weight", "0.1,1", "--sample-weight", "v", "--smoothing", "0.2", "--ignore-index", "9",
                 "--denominator", "samples", "--gamma", "1.5", "-l", "a", "-l", "b", "-t", "target")  # fmt: skip
    assert found["value"] == pytest.approx(float(functional.cross_entropy(z, y, **options)), rel=1e-6)
    assert found["rows_kept"] == 2
    summed = data(path, "--reduction", "sum", "--ignore-index", "9", "--logits", "a", "--logits", "b")
    assert summed["reduction"] == "sum"
    assert [finding["code"] for finding in summed["findings"]] == ["SY122"]
    given = data(path, "--denominator", "7", "--ignore-index", "9", "-l", "a", "-l", "b")
    assert given["denominator"] == {"rule": "given", "name": "the denominator given", "value": 7.0}
    assert len(data(path, "--rows", "1", "--ignore-index", "9", "-l", "a", "-l", "b")["listed_rows"]) == 1


def test_losses_by_name_and_with_counts(tmp_path: Path) -> None:
    path = as_csv(tmp_path)
    z, y = torch.tensor(Z).double(), torch.tensor(Y)
    found = data(path, "--loss", "balanced_softmax_loss", "--counts", "9,1")
    assert found["value"] == pytest.approx(float(functional.balanced_softmax_loss(z, y, [9, 1])), rel=1e-6)
    assert data(path, "--loss", "focal_loss")["value"] == pytest.approx(float(functional.focal_loss(z, y)), rel=1e-6)
    found = data(path, "--loss", "nll_loss")
    assert [finding["code"] for finding in found["findings"]] == ["SY103"]
    checked = data(path, "--weight", "1,9", "--counts", "10,90")
    assert [finding["code"] for finding in checked["findings"]] == ["SY116"]
    text = run(path, "--weight", "1,9", "--counts", "10,90").stdout
    assert "SY116" in text
    assert "Fix: " in text


def test_one_column_of_logits_is_a_yes_or_no(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    pl.DataFrame({"z": [0.5, 1.5], "y": [1, 0]}).write_csv(path)
    found = data(path, "--pos-weight", "5")
    assert found["function"] == "binary_cross_entropy_with_logits"
    assert found["value"] == pytest.approx(2.0359, abs=1e-4)
    pl.DataFrame({"z": [0.5, 1.5], "y": [True, False]}).write_csv(path)
    assert data(path, "--pos-weight", "5")["value"] == pytest.approx(2.0359, abs=1e-4)


def test_several_labels_per_row(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    pl.DataFrame({"z1": [0.5, 1.5], "z2": [0.0, 1.0], "t1": [1, 0], "t2": [1, 1]}).write_csv(path)
    found = data(path, "-t", "t1", "-t", "t2", "--pos-weight", "2,3")
    z, t = torch.tensor([[0.5, 0.0], [1.5, 1.0]]), torch.tensor([[1, 1], [0, 1]])
    expected = functional.binary_cross_entropy_with_logits(z, t, pos_weight=[2.0, 3.0])
    assert found["function"] == "binary_cross_entropy_with_logits"
    assert found["value"] == pytest.approx(float(expected), rel=1e-6)


def test_distributions_and_images_in_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    np.savez(path, input=Z, target=np.array([[0.5, 0.5], [0.1, 0.9], [1.0, 0.0]]))
    assert data(path)["function"] == "cross_entropy"
    np.savez(path, input=Z, target=np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]]))
    assert data(path)["function"] == "binary_cross_entropy_with_logits"
    maps = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    np.savez(path, scores=maps, classes=np.zeros((2, 4, 5), dtype=np.uint8))
    found = data(path, "--logits", "scores", "--target", "classes")
    assert (found["function"], found["rows"], len(found["listed_rows"][0]["row"])) == ("cross_entropy", 40, 3)


def test_labels_as_names_of_columns_and_as_floats(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    table(target=["a", "b", "b"]).write_csv(path)
    assert data(path, "--weight", "0.1,1")["value"] == pytest.approx(MEAN, rel=1e-6)
    table(target=[0.0, 1.0, 1.0]).write_csv(path)
    assert data(path, "--weight", "0.1,1")["value"] == pytest.approx(MEAN, rel=1e-6)


def test_nan_is_told_and_not_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    table(a=[0.1, float("nan"), 1.0]).write_parquet(path)
    found = data(path)
    assert found["value"] == "nan"
    assert "row 1 (NaN)" in found["reasons"][0]


def _write(name: str, text: str = "") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_text(text)
        return folder / name

    return make


def _archive(**arrays: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        np.savez(folder / "p.npz", **arrays)
        return folder / "p.npz"

    return make


BAD: list[tuple[Callable[[Path], Path], list[str], str]] = [
    (lambda folder: folder / "none.csv", [], "none.csv, which does not exist"),
    (lambda folder: folder / "none.npz", [], "none.npz, which does not exist"),
    (lambda folder: folder, [], "which is a folder"),
    (_write("p.csv"), [], "which is empty"),
    (_write("p.txt", "a"), [], "a file ending in"),
    (_write("p.npz", "not an archive"), [], "a readable npz file"),
    (_write("p.csv", "a,b,target\n1,2,0\n1,,1\n"), [], "none in row 1 (the first is 0) of 'b'"),
    (_write("p.csv", "a,b,target\n1,2,0\n1,3,\n"), [], "none in row 1 (the first is 0) of 'target'"),
    (_write("p.csv", "a,b,target\n1,2,0.5\n1,3,1\n"), [], "class numbers; got 0.5 in row 0"),
    (_write("p.csv", "a,b,target\n1,2,cat\n1,3,a\n"), [], "names of the columns of logits; got 'cat'"),
    (_write("p.csv", "a,b,target\n1,2,0\n1,3,2\n"), [], "cross_entropy: "),
    (_write("p.csv", "target\n1\n"), [], "none beside the target"),
    (_write("p.csv", "a,b,kind\n1,2,0\n"), [], "'target' must be a column of the data"),
    (as_csv, ["--target", "nope"], "'target' must be a column of the data; got 'nope'"),
    (as_csv, ["--logits", "nope"], "'logits' must be a column of the data; got 'nope'"),
    (as_csv, ["--sample-weight", "nope"], "'sample-weight' must be a column of the data; got 'nope'"),
    (as_csv, ["--loss", "mse"], "'loss' must be one of cross_entropy"),
    (as_csv, ["--weight", "1,x"], "'weight' must be numbers separated by commas; got '1,x'"),
    (as_csv, ["--weight", "1,2,3"], "'weight' must be of shape (2,)"),
    (as_csv, ["--denominator", "rows"], "'denominator' must be"),
    (as_csv, ["--reduction", "avg"], "'reduction' must be one of"),
    (as_csv, ["--pos-weight", "2"], "pos_weight"),
    (as_csv, ["--loss", "ldam_loss"], "counts"),
    (as_csv, ["--rows", "-1"], "'rows' must be a whole number"),
    (as_npz, ["--logits", "nope"], "It holds logits, labels"),
    (as_npz, ["--logits", "logits", "--logits", "labels"], "the name of one array"),
    (_archive(a=Z), [], "called 'logits' or 'input'; got a"),
    (_archive(logits=Z, target=np.array(["a", "b", "c"])), [], "an array of numbers"),
    (_archive(logits=Z, target=np.array([object(), 1, 2], dtype=object)), [], "a readable npz file"),
]


@pytest.mark.parametrize(("make", "options", "words"), BAD)
def test_bad_input_is_one_line_and_exit_code_2(
    make: Callable[[Path], Path], options: list[str], words: str, tmp_path: Path
) -> None:
    done = run(make(tmp_path), *options, "--json")
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert words in lines[0], lines[0]
    assert "Traceback" not in lines[0]


def test_help_and_the_whole_program(tmp_path: Path) -> None:
    done = run("--help")
    assert done.exit_code == 0
    assert all(word in done.output for word in ("--target", "--logits", "--pos-weight", "--smoothing", "--json"))
    line = [sys.executable, "-m", "steelyard.cli", "explain", str(as_npz(tmp_path)), "--weight", "0.1,1"]
    program = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (program.returncode, program.stderr) == (0, "")
    assert program.stdout.splitlines()[0].startswith(f"cross_entropy = {MEAN:.5g}")


def test_a_column_that_numbers_the_rows_is_no_logit(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("id,ok,fraud,label\n" + "".join(f"{i},0.{i},0.5,ok\n" for i in range(1, 6)))
    found = CliRunner().invoke(app, ["explain", str(path), "--target", "label"])
    assert found.exit_code == 2
    assert "'logits' must be given where a column only numbers the rows; got 'id'" in found.output
    assert "--logits ok,fraud" in found.output
    for given in (["--logits", "ok,fraud"], ["--logits", "ok", "--logits", "fraud"]):
        told = CliRunner().invoke(app, ["explain", str(path), "--target", "label", *given])
        assert told.exit_code == 0, told.output
