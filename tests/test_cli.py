"""The command: what it prints, where, with which exit code, and what it leaves behind."""

from __future__ import annotations

import ast
import gzip
import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner, Result

from steelyard import __version__
from steelyard.cli.app import app

QUICK = ["--folds", "3", "--repeats", "1", "--epochs", "2"]
FILES = ["recommended.py", "report.html", "report.json"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    y = np.r_[np.arange(20) % 2, rng.random(180) < 0.15].astype(int)
    path = tmp_path_factory.mktemp("cli") / "small.csv"
    frame = pl.DataFrame(
        {"x": rng.normal(size=200) + y, "c": rng.choice(["u", "v"], 200), "y": np.array(["no", "yes"])[y]}
    )
    frame.write_csv(path)
    return path


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args])


def command(*args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "steelyard.cli", *(str(a) for a in args)]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=cwd)


def test_version_and_help() -> None:
    assert run("--version").output == f"steelyard {__version__}\n"
    text = run("--help").output
    assert all(word in text for word in ("inspect", "weights", "compare", "Exit code"))
    for name in ("inspect", "weights", "compare"):
        done = run(name, "--help")
        assert done.exit_code == 0
        assert "--target" in done.output


def test_inspect(data: Path) -> None:
    done = run("inspect", data, "--target", "y")
    assert done.exit_code == 0
    for words in ("small.csv: 200 rows, target y", "imbalance ratio", "enters as", "category", "Always answering 'no'"):
        assert words in done.stdout
    found = json.loads(run("inspect", data, "-t", "y", "--json", "--drop", "c").stdout)
    assert set(found) == {
        "data", "rows", "target", "classes", "imbalance_ratio", "majority_accuracy", "duplicates", "columns",
        "observations", "findings",
    }  # fmt: skip
    assert [c["label"] for c in found["classes"]] == ["no", "yes"]
    assert {c["name"]: c["role"] for c in found["columns"]} == {"x": "number", "c": "unused", "y": "target"}


def test_weights_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    pl.DataFrame({"y": ["a"] * 90 + ["b"] * 10}).write_csv(path)
    found = json.loads(run("weights", path, "--target", "y", "--scheme", "max_ratio", "--json").stdout)
    assert [(c["label"], c["count"], c["weight"]) for c in found["classes"]] == [("a", 90, 1.0), ("b", 10, 9.0)]
    assert [c["share_of_weight"] for c in found["classes"]] == [0.5, 0.5]
    assert found["effective_sample_size"] == pytest.approx((90 + 90) ** 2 / (90 + 10 * 81))
    assert found["effective_share"] == pytest.approx(0.36)
    table = run("weights", path, "--target", "y", "--scheme", "max_ratio")
    assert "Effective sample size 36 rows, 36% of all" in table.stdout


def test_the_python_of_weights_runs_and_gives_the_same_weights(data: Path) -> None:
    options = ["--scheme", "balanced", "--power", "0.5", "--normalize", "prior", "--cap", "2"]
    done = run("weights", data, "--target", "y", *options, "--json")
    found = json.loads(done.stdout)
    assert "class_weights" not in done.stdout.split('"python"')[0]
    assert "steelyard: note: " in done.stderr  # the cap changed a weight, and says so beside the JSON, not in it
    space: dict[str, object] = {}
    with pytest.warns(UserWarning, match="cap"):
        exec(found["python"], space)
    weight = space["loss"].weight  # type: ignore[attr-defined]
    assert weight.tolist() == [c["weight"] for c in found["classes"]]
    assert "power=0.5, cap=2.0, normalize='prior'" in found["python"]
    assert found["python"] in run("weights", data, "--target", "y", *options).stdout


def test_weights_say_which_position_is_which_class(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    pl.DataFrame({"y": ["ok"] * 90 + ["fraud"] * 10}).write_csv(path)
    done = run("weights", path, "--target", "y")
    assert "in the order of the weights: 0 = 'fraud', 1 = 'ok'" in done.stdout
    found = json.loads(run("weights", path, "--target", "y", "--json").stdout)
    assert [(c["index"], c["label"]) for c in found["classes"]] == [(0, "fraud"), (1, "ok")]


def test_a_label_that_is_no_class_is_said_to_be_and_can_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    pl.DataFrame({"y": [0] * 90 + [1] * 10 + [255] * 5}).write_csv(path)
    told = run("weights", path, "--target", "y", "--json")
    assert "SY114" in told.stderr
    assert [c["label"] for c in json.loads(told.stdout)["classes"]] == [0, 1, 255]
    done = run("weights", path, "--target", "y", "--ignore-index", "255", "--json")
    assert "SY114" not in done.stderr
    found = json.loads(done.stdout)
    assert [(c["label"], c["count"]) for c in found["classes"]] == [(0, 90), (1, 10)]
    space: dict[str, object] = {}
    exec(found["python"], space)
    assert space["loss"].ignore_index == 255  # type: ignore[attr-defined]
    assert run("inspect", path, "--target", "y", "--ignore-index", "255").exit_code == 2
    lake = json.loads(run("inspect", f"{tmp_path}/*.csv", "--target", "y", "--ignore-index", "255", "--json").stdout)
    assert [c["label"] for c in lake["classes"]] == [0, 1]


def test_compare_writes_a_report(data: Path, tmp_path: Path) -> None:
    done = run("compare", data, "--target", "y", *QUICK, "--output", tmp_path / "out", "--strategies", "weights, focal")
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == FILES
    for words in ("do nothing + tuned cut-offs", "class weights", "focal loss", "class shares alone", "report.html"):
        assert words in done.stdout
    assert "weighted sampling" not in done.stdout
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert [s["name"] for s in report["strategies"]] == ["none", "threshold", "weights", "focal"]
    assert report["recommendation"]["headline"] in done.stdout


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_no_digit_is_lost_at_the_edge(width: int, data: Path) -> None:
    from rich.console import Console

    from steelyard.cli import show
    from steelyard.compare import compare

    found = compare(data, "y", folds=3, repeats=1, epochs=1, strategies=["weights_half"])
    console = Console(width=width)
    table = show._widest(console, found)
    with console.capture() as captured:
        console.print(table)
    text = captured.get()
    metrics = 5 if width == 200 else len(table.columns) - 3
    assert len(re.findall(r"(?<![+−\d])\d\.\d\d\d(?!\d)", text)) >= 4 * metrics
    if width >= 80:
        assert f"{found.scores['none'].interval('balanced_accuracy', 0.5).mean:.3f}" in text
        assert "class weights, power ½" in text
    assert console.measure(table).minimum <= width


@pytest.mark.parametrize("width", [60, 200])
def test_scores_that_do_not_fit_are_missed_aloud(width: int, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from steelyard.cli import show
    from steelyard.compare import compare

    console = Console(width=width)
    monkeypatch.setattr(show, "_console", lambda: console)
    with console.capture() as captured:
        show.comparison(compare(data, "y", folds=3, repeats=1, epochs=1, strategies=[]), [])
    assert ("More scores:" in captured.get()) == (width == 60)


def test_compare_says_of_the_data_what_inspect_says(data: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.csv"
    pl.DataFrame({"x": [float(i % 7 + i) for i in range(60)], "y": ["a"] * 51 + ["b"] * 9}).write_csv(few)
    even = tmp_path / "even.csv"
    pl.DataFrame({"x": [float(i % 7 + i) for i in range(60)], "y": ["a", "b"] * 30}).write_csv(even)
    for path, words in ((few, "Few rows: 'b' (9)"), (even, "there is no imbalance to remedy"), (data, "Always")):
        said = json.loads(run("inspect", path, "--target", "y", "--json").stdout)["observations"]
        assert any(words in sentence for sentence in said)
        done = run("compare", path, "--target", "y", *QUICK, "--strategies", "", "--output", tmp_path / "out")
        table = " ".join(done.stdout.replace("•", " ").split())
        assert all(sentence in table for sentence in said)
        page = html.unescape((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
        assert all(f"<li>{sentence}</li>" in page for sentence in said)


def test_findings_are_printed_and_written(data: Path, tmp_path: Path) -> None:
    marked = tmp_path / "marked.csv"
    pl.DataFrame({"x": np.arange(90.0), "y": [0] * 40 + [1] * 40 + [255] * 10}).write_csv(marked)
    done = run("inspect", marked, "--target", "y")
    assert "SY114" in done.stdout
    assert "Fix: If it does, leave it out" in done.stdout
    assert "SY1" not in run("inspect", data, "--target", "y").stdout
    done = run("compare", marked, "--target", "y", *QUICK, "--strategies", "", "--output", tmp_path / "out")
    assert "SY114" in done.stdout
    assert "SY114: Label 255" in html.unescape((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    written = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert "SY114" in [finding["code"] for finding in written["findings"]]


def test_compare_prints_the_python_where_asked_for(data: Path, tmp_path: Path) -> None:
    arguments = ["compare", data, "--target", "y", *QUICK, "--strategies", ""]
    done = run(*arguments)
    assert "make_splits" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith("The program that trains this: --show-code prints it")
    done = run(*arguments, "--show-code")
    code = done.stdout[done.stdout.index("# small.csv, target") :]
    ast.parse(code)
    assert "make_splits" in code
    done = run(*arguments, "--output", tmp_path / "out")
    assert "make_splits" not in done.stdout
    assert done.stdout.splitlines()[-1].endswith("recommended.py")
    assert "make_splits" in json.loads(run(*arguments, "--json").stdout)["python"]


def test_options_reach_the_comparison(data: Path) -> None:
    done = run(
        "compare", data, "-t", "y", *QUICK, "--strategies", "weights", "--json", "--seed", "3", "--metric", "macro_f1",
        "--drop", "c", "--split-duplicates",
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert done.exit_code == 0
    settings = found["settings"]
    assert (settings["seed"], settings["metric"], settings["folds"], settings["repeats"]) == (3, "macro_f1", 3, 1)
    assert settings["recipe"]["epochs"] == 2
    assert found["data"]["kept_together"] == "nothing: each row stands alone"
    assert {c["name"]: c["role"] for c in found["data"]["columns"]} == {"x": "number", "c": "unused", "y": "target"}
    other = json.loads(run("compare", data, "-t", "y", *QUICK, "--strategies", "", "--json", "--varies", "c").stdout)
    assert [s["name"] for s in other["strategies"]] == ["none", "threshold"]
    assert other["data"]["kept_together"] == "rows with identical features (not counting 'c')"


def test_quiet_prints_nothing(data: Path, tmp_path: Path) -> None:
    done = command("compare", data, "--target", "y", *QUICK, "--quiet", "--output", tmp_path / "out")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == FILES


def test_json_is_all_there_is_on_standard_output(data: Path) -> None:
    done = command("compare", data, "--target", "y", *QUICK, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["format"] == 2


BAD = {
    "no such file": (["no.csv", "--target", "y"], "which does not exist"),
    "a folder": ([".", "--target", "y"], "which is a folder"),
    "empty": (["empty.csv", "--target", "y"], "empty.csv, which is empty"),
    "unreadable": (["broken.parquet", "--target", "y"], "readable parquet file"),
    "unknown kind": (["notes.txt", "--target", "y"], "must be a file ending in"),
    "no such column": (["good.csv", "--target", "clas"], "got 'clas'. Did you mean 'class'?"),
    "missing label": (["null.csv", "--target", "y"], "'y' with 1 missing, the first in row 1 (the first is 0)"),
    "a number": (["number.csv", "--target", "y"], "looks like a number"),
    "one class": (["good.csv", "--target", "one"], "at least two classes"),
    "rare class": (["rare.csv", "--target", "y"], "got 2 for class 'b' (2 rows in all)"),
    "no such metric": (["good.csv", "--target", "class", "--metric", "auc"], "'metric' must be one of"),
    "no such strategy": (["good.csv", "--target", "class", "--strategies", "smote"], "'strategies' must be among"),
    "too few folds": (
        ["good.csv", "--target", "class", "--folds", "2"],
        "'folds' must be a whole number of at least 3",
    ),
    "no such drop": (["good.csv", "--target", "class", "--drop", "q"], "'drop' must be a column"),
    "no target": (["good.csv"], "--target"),
    "no such option": (["good.csv", "--target", "class", "--banana"], "--banana"),
}


@pytest.fixture(scope="module")
def mess(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mess")
    x = [float(i) / 7 for i in range(300)]
    pl.DataFrame({"x": x, "class": ["a", "b"] * 150, "one": ["a"] * 300}).write_csv(folder / "good.csv")
    pl.DataFrame({"x": [1.0, 2.0, 3.0], "y": ["a", None, "b"]}).write_csv(folder / "null.csv")
    pl.DataFrame({"x": x, "y": x}).write_csv(folder / "number.csv")
    pl.DataFrame({"x": x, "y": ["a"] * 298 + ["b"] * 2}).write_csv(folder / "rare.csv")
    (folder / "empty.csv").touch()
    (folder / "broken.parquet").write_text("no parquet")
    (folder / "notes.txt").write_text("x")
    return folder


@pytest.mark.parametrize(("args", "message"), BAD.values(), ids=BAD)
def test_bad_input_exits_with_2_and_leaves_nothing(
    args: list[str], message: str, mess: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mess)
    before = sorted(mess.iterdir())
    done = run("compare", *args, "--output", "out")
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert done.stdout == ""
    assert sorted(mess.iterdir()) == before
    if done.stderr.startswith("steelyard: "):
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["no such file", "empty", "unreadable", "no such column", "missing label"])
@pytest.mark.parametrize("what", ["inspect", "weights"])
def test_the_other_commands_refuse_alike(name: str, what: str, mess: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mess)
    done = run(what, *BAD[name][0])
    assert done.exit_code == 2
    assert done.stderr.startswith("steelyard: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


FAULTS = {
    "too many fields": (b"x,y\n1,a\n2,b\n3,4,c\n", "row 2 (the first is 0): 3 fields where the header has 2"),
    "open quote": (b'x,y\n1,a\n2,"b\n3,c\n', "line 4: unexpected end of data"),
    "not UTF-8": (b"x,y\n1,a\n\xff,b\n", "line 3: byte 0xff is not UTF-8"),
    "semicolons": (b"x;y\n1;a\n2;b\n", "got 'y'. The only column is 'x;y': the columns seem to be separated by ';'."),
    "tabs": (b"x\ty\n1\ta\n2\tb\n", "separated by '\\t'. Save them with tabs as .tsv."),
    "missing": (b"x,y\n1,a\n2,\n", "row 1 (the first is 0)"),
}


@pytest.mark.parametrize("what", ["inspect", "weights"])
@pytest.mark.parametrize(("text", "message"), FAULTS.values(), ids=FAULTS)
def test_the_commands_say_alike_where_a_file_is_wrong(text: bytes, message: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes(text)
    done = run(what, path, "--target", "y")
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_commands_read_packed_files_and_whole_floats_alike(tmp_path: Path) -> None:
    for name, mark in (("d.csv.gz", ","), ("d.tsv.gz", "\t")):
        path = tmp_path / name
        lines = [f"x{mark}y", *(f"{i % 7}{mark}{i % 3 // 2}.0" for i in range(30))]
        path.write_bytes(gzip.compress("\n".join(lines).encode()))
        found = [json.loads(run(what, path, "--target", "y", "--json").stdout) for what in ("inspect", "weights")]
        classes = [[(repr(c["label"]), c["count"]) for c in one["classes"]] for one in found]
        assert classes == [[("0", 20), ("1", 10)]] * 2
        space: dict[str, object] = {}
        exec(found[1]["python"], space)
        assert space["loss"].weight.tolist() == [c["weight"] for c in found[1]["classes"]]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "options", [["--scheme", "banana"], ["--power", "-1"], ["--cap", "0"], ["--normalize", "x"], ["--beta", "2"]]
)
def test_bad_weight_options(options: list[str], data: Path) -> None:
    done = run("weights", data, "--target", "y", *options)
    assert done.exit_code == 2
    assert done.stderr.startswith("steelyard: class_weights: '")


def test_an_output_that_is_a_file_is_refused_before_any_training(data: Path) -> None:
    done = run("compare", data, "--target", "y", "--output", data)
    assert done.exit_code == 2
    assert "'output' must be a folder" in done.stderr


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder that root cannot write either")
def test_an_output_that_cannot_be_made_is_refused_before_any_training(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from steelyard.compare import run as run_module

    monkeypatch.setattr(run_module, "fit", None)
    done = run("compare", data, "--target", "y", "--quiet", "--output", "/proc/x/y")
    assert done.exit_code == 2
    assert "'output' must be a folder that may be written; got /proc/x/y: " in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("options", [[], ["--json"], ["--quiet"]], ids=["table", "json", "quiet"])
def test_an_answer_that_cannot_be_saved_is_still_printed(
    options: list[str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from steelyard.compare import report

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "write_together", full)
    arguments = ["compare", data, "--target", "y", *QUICK, "--strategies", "", "--output", tmp_path / "out", *options]
    done = run(*arguments)
    assert done.exit_code == 1
    assert done.stderr.endswith(
        f"steelyard: compare: the report could not be written to {tmp_path / 'out'}: No space left on device\n"
    )
    assert "Traceback" not in done.stderr
    if options == ["--json"]:
        assert json.loads(done.stdout)["recommendation"]["headline"]
    else:
        assert ("class shares alone" in done.stdout) == (options == [])
    assert list(tmp_path.iterdir()) == []


def test_a_failure_on_the_way_exits_with_1(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from steelyard.compare import run as run_module

    def fails(*_: object, **__: object) -> None:
        raise FloatingPointError("training diverged in epoch 1: the validation loss is nan")

    monkeypatch.setattr(run_module, "fit", fails)
    arguments = ["compare", data, "--target", "y", *QUICK, "--output", tmp_path / "out"]
    done = run(*arguments)
    assert done.exit_code == 1
    assert done.stderr.strip().endswith(
        "compare: 'none' on split 1: training diverged in epoch 1: the validation loss is nan."
    )
    assert not (tmp_path / "out").exists()
    debug = run(*arguments, "--debug")
    assert isinstance(debug.exception, RuntimeError)


def test_a_missing_package_exits_with_2(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from steelyard.compare import report

    monkeypatch.setattr(report, "find_spec", lambda name: None)
    done = run("compare", data, "--target", "y", "--output", tmp_path / "out")
    assert done.exit_code == 2
    assert "pip install 'steelyard[report]'" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_interrupted_exits_with_1_and_leaves_nothing(data: Path, tmp_path: Path) -> None:
    """Ctrl-C in the middle of the first training, as the terminal sends it."""
    code = (
        "import os, signal, sys; from steelyard.compare import run; from steelyard.cli import main\n"
        "run.fit = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)\n"
        "main()"
    )
    line = [sys.executable, "-c", code, "compare", str(data), "--target", "y", "--output", str(tmp_path / "out")]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("steelyard: interrupted; nothing was written.")
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["typer", "polars", "sklearn", "scipy.sparse.csgraph", "steelyard.compare.report"])
def test_interrupted_while_libraries_load(module: str, data: Path, tmp_path: Path) -> None:
    """Ctrl-C when the import of ``module`` has come up: the moment is fixed here, since a timer would miss it."""
    code = (
        "import sys, steelyard.cli\n"
        "class Interrupts:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}: raise KeyboardInterrupt\n"
        f"for name in [n for n in sys.modules if n.startswith({module!r})]: del sys.modules[name]\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        "steelyard.cli.main()"
    )
    line = [sys.executable, "-c", code, "compare", str(data), "--target", "y", "--output", str(tmp_path / "out")]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "steelyard: interrupted; nothing was written.\n"
    assert list(tmp_path.iterdir()) == []


def test_importing_steelyard_brings_no_command() -> None:
    code = (
        "import sys, steelyard; heavy = {'polars', 'sklearn', 'matplotlib', 'typer', 'rich', 'jinja2', 'narwhals',"
        " 'steelyard.compare', 'steelyard.cli'} & set(sys.modules); print(sorted(heavy)); sys.exit(bool(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_without_the_extra_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['typer'] = None; from steelyard.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'steelyard[cli]'" in done.stderr
    assert "Traceback" not in done.stderr


# What is counted where it is


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    from PIL import Image

    folder = tmp_path / "masks"
    folder.mkdir()
    for number, mask in enumerate([[[0, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 0, 0]], [[2, 2, 2], [2, 2, 2]]]):
        Image.fromarray(np.array(mask, dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def test_inspect_masks(masks: Path) -> None:
    found = json.loads(run("inspect", masks, "--json").stdout)
    assert set(found) == {
        "data", "target", "unit", "total", "images", "classes", "imbalance_ratio", "majority_accuracy", "observations",
    }  # fmt: skip
    assert (found["unit"], found["total"], found["images"], found["target"]) == ("pixels", 18, 3, None)
    assert [(c["label"], c["count"], c["images"]) for c in found["classes"]] == [(0, 11, 2), (2, 6, 1), (1, 1, 1)]
    assert found["imbalance_ratio"] == 11
    done = run("inspect", masks / "*.png")
    assert done.exit_code == 0
    assert done.stderr == ""
    for words in (
        "18 pixels in 3 images",
        "in images",
        "imbalance ratio 11.0 : 1",
        "Few images: '1' (1), '2' (1), '0' (2)",
    ):
        assert words in done.stdout
    assert "'1' has 1 of 18 pixels (5.6%): 11.0 times fewer than '0'." in done.stdout


def test_inspect_class_folders(tmp_path: Path) -> None:
    for name, count in {"dog": 3, "cat": 1, "eel": 0}.items():
        (tmp_path / name).mkdir()
        for number in range(count):
            (tmp_path / name / f"{number}.png").touch()
    found = json.loads(run("inspect", tmp_path, "--json").stdout)
    assert (found["unit"], found["imbalance_ratio"]) == ("images", None)  # JSON knows no infinity
    assert [(c["label"], c["count"]) for c in found["classes"]] == [("dog", 3), ("cat", 1), ("eel", 0)]
    assert "Few images: 'cat' (1), 'dog' (3). Scores of these classes" in " ".join(found["observations"])
    assert "Without images: 'eel'. Weights for them need missing='zero' or 'max'." in found["observations"]
    done = run("inspect", tmp_path)
    assert "imbalance ratio a class without any" in done.stdout
    assert run("inspect", tmp_path, "--drop", "x").stderr.startswith("steelyard: inspect: 'drop' must be left out")


def test_inspect_annotations(tmp_path: Path) -> None:
    data = {
        "images": [{"id": 1}, {"id": 2}],
        "annotations": [{"image_id": 1, "category_id": 1}] * 3 + [{"image_id": 2, "category_id": 2}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "[dog]"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(data))
    found = json.loads(run("inspect", tmp_path / "a.json", "--json").stdout)
    assert (found["unit"], found["total"], found["images"]) == ("annotations", 4, 2)
    assert "[dog]" in run("inspect", tmp_path / "a.json").stdout


def test_inspect_patterns_lakes_and_lines(tmp_path: Path) -> None:
    for number in range(2):
        pl.DataFrame({"y": ["a"] * 9 + ["b"]}).write_parquet(tmp_path / f"{number}.parquet")
        (tmp_path / f"{number}.jsonl").write_text('{"y": "a"}\n' * 9 + '{"y": "b"}\n')
    (tmp_path / "lake").mkdir()
    pl.DataFrame({"y": ["a"] * 18 + ["b"] * 2}).write_parquet(tmp_path / "lake" / "part.parquet")
    for data in (tmp_path / "*.parquet", tmp_path / "*.jsonl", tmp_path / "lake"):
        found = json.loads(run("inspect", data, "--target", "y", "--json").stdout)
        assert (found["unit"], found["total"], found["target"], found["images"]) == ("rows", 20, "y", None)
        assert [(c["label"], c["count"], c["share"]) for c in found["classes"]] == [("a", 18, 0.9), ("b", 2, 0.1)]
        assert "Few rows: 'b' (2), 'a' (18)" in " ".join(run("inspect", data, "--target", "y").stdout.split())


def test_weights_of_masks(masks: Path) -> None:
    done = run("weights", masks, "--scheme", "median_frequency", "--json")
    found = json.loads(done.stdout)
    f = np.array([11 / 12, 1 / 6, 1])
    assert [c["weight"] for c in found["classes"]] == pytest.approx((np.median(f) / f).tolist())
    space: dict[str, object] = {}
    exec(found["python"], space)
    assert space["loss"].weight.tolist() == [c["weight"] for c in found["classes"]]  # type: ignore[attr-defined]


@pytest.mark.parametrize("what", ["inspect", "weights"])
def test_what_cannot_be_counted_exits_with_2(what: str, masks: Path, tmp_path: Path, data: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.json").write_text('{"images": [], "annotations": []}')
    (tmp_path / "a.jsonl").write_text('{"y": 1}\nno JSON\n')
    (masks / "4.png").write_bytes(b"no image")
    cases = {
        (tmp_path / "*.csv", "-t", "y"): "a pattern that matches files",
        (tmp_path / "empty",): "which has none of these",
        (tmp_path / "empty", "-t", "y"): "a folder with tables",
        (tmp_path / "a.json",): "no 'categories'",
        (tmp_path / "a.jsonl", "-t", "y"): "line 2: expecting value",
        (tmp_path / "a.jsonl",): "the column of '",
        (masks,): "a readable image",
        (masks, "-t", "y"): "Images and masks have no columns",
        (tmp_path / "none.csv",): "does not exist",
        (data,): "'target' must be the column of classes (--target); got None. The columns are x, c, y.",
    }
    for arguments, message in cases.items():
        done = run(what, *arguments)
        assert done.exit_code == 2, arguments
        assert message in done.stderr
        assert done.stderr.startswith("steelyard: ")
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""


def test_a_bar_on_a_terminal_and_json_beside_it(masks: Path) -> None:
    line = [sys.executable, "-m", "steelyard.cli", "inspect", str(masks), "--json"]
    environment = os.environ | {"FORCE_COLOR": "1"}
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
    assert "counting" in done.stderr
    assert json.loads(done.stdout)["total"] == 18


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_counting_that_is_interrupted_exits_with_1(masks: Path) -> None:
    code = (
        "import os, signal; from steelyard.counts import _masks; from steelyard.cli import main\n"
        "_masks._read_image = lambda path: os.kill(os.getpid(), signal.SIGINT)\n"
        "main()"
    )
    line = [sys.executable, "-c", code, "inspect", str(masks)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "steelyard: interrupted; nothing was written.\n"
