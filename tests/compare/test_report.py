"""The files of a report: complete or absent, self-contained, and with everything in them that was promised."""

from __future__ import annotations

import ast
import itertools
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from steelyard.compare import METRICS, STRATEGIES, Comparison, InputError, compare, plots
from steelyard.compare import report as report_module
from steelyard.compare.evaluate import Interval
from steelyard.compare.report import change_text, check_folder, render, shade, verdict, write_together


@pytest.fixture(scope="module")
def html(comparison: Comparison) -> str:
    return render(comparison)


def test_nothing_is_loaded_from_anywhere(html: str) -> None:
    assert not re.search(r"https?:|//\w|<script|<link|<img|@import|url\((?!#)", html)
    assert all(target.startswith("#") for target in re.findall(r'(?:href|src)="([^"]*)"', html))


class Checker(HTMLParser):
    """Notes unbalanced tags and repeated ids."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_html_is_well_formed(html: str) -> None:
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    definitions = [i for i in checker.ids if re.match(r"[mpi][0-9a-f]{6}|DejaVu", i)]
    drawn = [re.findall(r'id="(m[0-9a-f]+|p[0-9a-f]+)"', svg) for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]
    assert len(drawn) == 4
    assert definitions
    assert not any(set(one) & set(other) for one, other in itertools.combinations(drawn, 2))


def test_it_holds_what_was_promised(html: str, comparison: Comparison) -> None:
    for strategy in STRATEGIES.values():
        assert strategy.label in html
    for metric in METRICS.values():
        assert metric.label.removesuffix(", posterior") in html
    assert html.count("<th>as it comes</th><th>posterior</th>") == 3
    for name in METRICS:
        for strategy in comparison.scores.values():
            assert f"{np.mean(strategy.values[name]):.3f}<span" in html
    tuned = comparison.outcomes[1].thresholds[0]
    for cut, low, high in zip(tuned.threshold, tuned.low, tuned.high, strict=True):
        assert f"<td>{cut:.3f}</td><td>{low:.3f} to {high:.3f}</td>" in html
    assert comparison.recommendation.headline in html
    assert html.count("recommended</span>") == 1
    assert 'aria-label="balanced accuracy of each remedy' in html
    assert "Nadeau and Bengio" in html
    assert "make_splits(table.target" in html
    assert re.search(r"torch \d", html)
    for name, count in zip(comparison.table.words, comparison.table.counts, strict=True):
        assert re.search(rf'<th scope="row">{name}</th><th>{count}</th>', html)


def test_names_in_the_data_cannot_become_markup() -> None:
    frame = pl.DataFrame({"<b>x</b>": [float(i % 7 + i) for i in range(60)], "y": ["<i>a</i>"] * 45 + ["$b_"] * 15})
    text = render(compare(frame, "y", folds=3, repeats=1, epochs=1, strategies=[]))
    assert "<i>a</i>" not in text
    assert "<b>x</b>" not in text
    assert "&lt;i&gt;a&lt;/i&gt;" in text


@pytest.mark.parametrize("chosen", ["none", "threshold", "logit_adjustment", "weights", "focal"])
def test_orange_is_what_is_recommended_in_every_plot(comparison: Comparison, chosen: str) -> None:
    advised = replace(comparison, recommendation=replace(comparison.recommendation, strategy=chosen))
    shown = plots._shown(advised)
    label = STRATEGIES[chosen].label
    orange = [(o, name) for o, colour, name in shown if colour == plots.ORANGE]
    assert len(orange) == 1
    assert orange[0][1].startswith(f"{label} (recommended)")
    assert ("the network of do nothing" in orange[0][1]) == (chosen in ("threshold", "logit_adjustment"))
    own = next(o for o in comparison.outcomes if o.strategy.name == chosen)
    assert np.array_equal(orange[0][0].probabilities, own.probabilities)  # type: ignore[arg-type]
    beside = [(o.strategy, colour) for o, colour, _ in shown if colour != plots.ORANGE]
    assert len(beside) == 1
    if chosen in ("none", "threshold"):
        assert beside[0][1] == plots.BLUE
        assert beside[0][0].name not in ("none", "threshold", "logit_adjustment")
    else:
        assert (beside[0][0].name, beside[0][1]) == ("none", plots.INK)
    for name, drawing in plots.plots(advised).items():
        assert (plots.ORANGE in drawing) == (name != "before_after")


def test_the_small_plots_show_each_remedy_that_bends_before_and_after(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[list[float], str]] = []
    monkeypatch.setattr(plots, "_curve", lambda axes, curve, *look: drawn.append((curve.predicted.tolist(), look[-1])))
    plots._before_after(comparison)
    rarest = int(comparison.table.counts.argmin())
    expected = []
    for outcome in comparison.outcomes:
        if outcome.strategy.bends:
            raw, posterior = comparison.reliability(outcome)[rarest]
            expected += [(raw.predicted.tolist(), "as it comes"), (posterior.predicted.tolist(), "posterior")]
    assert drawn == expected
    assert len(drawn) == 12


ATTACK = '" onload="document.title=1" x="<!-- --><script>alert(1)</script>'


def test_names_in_the_data_cannot_become_attributes_or_scripts_of_a_plot() -> None:
    frame = pl.DataFrame({ATTACK: [float(i % 7 + i) for i in range(60)], "y": ["a"] * 45 + [ATTACK[:27]] * 15})
    text = render(compare(frame.rename({"y": ATTACK + "y"}), ATTACK + "y", folds=3, repeats=1, epochs=1, strategies=[]))
    seen: list[tuple[str, str | None]] = []

    class Attributes(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.extend([(tag, None), *attrs])

    parser = Attributes()
    parser.feed(text)
    assert not [name for name, _ in seen if name.startswith("on") or name == "script"]
    labels = [value for name, value in seen if name == "aria-label"]
    assert len(labels) == 4
    assert all(ATTACK[:27] in (label or "") for label in labels[1:])


def test_a_line_break_in_a_name_cannot_become_a_statement_of_the_program() -> None:
    target = "y\nraise SystemExit('run')  #\r\u2028"
    frame = pl.DataFrame({"x": [float(i % 7 + i) for i in range(60)], target: ["a"] * 45 + ["b"] * 15})
    program = compare(frame, target, folds=3, repeats=1, epochs=1, strategies=[]).python
    assert program.splitlines()[0].startswith("# data frame, target 'y raise SystemExit")
    assert not any(ast.unparse(node) == "raise SystemExit('run')" for node in ast.walk(ast.parse(program)))


def test_save_writes_three_files_that_agree(comparison: Comparison, tmp_path: Path) -> None:
    written = comparison.save(tmp_path / "deep" / "report")
    assert [Path(p).name for p in written] == ["report.html", "report.json", "recommended.py"]
    assert json.loads(Path(written[1]).read_text(encoding="utf-8")) == json.loads(json.dumps(comparison.to_dict()))
    program = Path(written[2]).read_text(encoding="utf-8")
    assert program.splitlines()[0] == comparison.python.splitlines()[0]
    assert program.splitlines()[-5:] == comparison.python.splitlines()[-5:]
    assert sorted(p.name for p in (tmp_path / "deep" / "report").iterdir()) == [
        "recommended.py",
        "report.html",
        "report.json",
    ]
    first = Path(written[0]).read_bytes()
    comparison.save(tmp_path / "deep" / "report")
    assert Path(written[0]).read_bytes() == first


def test_the_saved_program_runs_from_any_folder(
    frame: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("work", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    frame.write_csv("it's.csv")
    found = compare("it's.csv", "kind", folds=3, repeats=1, epochs=1, strategies=[])
    monkeypatch.chdir(tmp_path / "elsewhere")
    written = found.save(tmp_path / "work" / "deep" / "out")
    assert str(tmp_path) not in Path(written[2]).read_text(encoding="utf-8")
    (tmp_path / "work").rename(tmp_path / "moved")
    program = tmp_path / "moved" / "deep" / "out" / "recommended.py"
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"log loss {found.outcomes[0].scores[0]['log_loss']:.4f}" in done.stdout


def test_the_saved_program_of_a_data_frame_says_what_it_lacks(frame: pl.DataFrame, tmp_path: Path) -> None:
    written = compare(frame, "kind", folds=3, repeats=1, epochs=1, strategies=[]).save(tmp_path)
    done = subprocess.run([sys.executable, written[2]], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "Set 'frame' to the data frame that was compared, above this line.\n"


@pytest.mark.parametrize("fail_at", [0, 1])
def test_a_failure_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail_at: int) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "one").write_text("before")
    calls = iter(range(9))
    real = report_module.os.fdopen

    def fdopen(*args: object, **options: object) -> object:
        if next(calls) == fail_at:
            raise KeyboardInterrupt
        return real(*args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(report_module.os, "fdopen", fdopen)
    with pytest.raises(KeyboardInterrupt):
        write_together(tmp_path / "old", {"one": "after", "two": "after"})
    assert [p.name for p in (tmp_path / "old").iterdir()] == ["one"]
    assert (tmp_path / "old" / "one").read_text() == "before"
    calls = iter(range(9))
    with pytest.raises(KeyboardInterrupt):
        write_together(tmp_path / "new" / "deeper", {"one": "after", "two": "after"})
    assert [p.name for p in tmp_path.iterdir()] == ["old"]


def test_a_folder_that_cannot_be_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"'output' must be a folder; got .*file, which is a file"):
        check_folder(tmp_path / "file" / "report")
    check_folder(tmp_path / "to" / "come")
    assert not (tmp_path / "to").exists()


def test_a_missing_package_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(report_module, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'steelyard\[report\]'"):
        check_folder(tmp_path)


def test_verdicts() -> None:
    up, down, open_ = Interval(1, 0.5, 1.5), Interval(-1, -1.5, -0.5), Interval(0.1, -0.5, 0.7)
    assert [verdict("accuracy", i) for i in (up, down, open_, None)] == ["better", "worse", "", ""]
    assert [verdict("log_loss", i) for i in (up, down, open_)] == ["worse", "better", ""]
    assert [change_text("accuracy", i) for i in (up, down, open_, None)] == [
        "+1.000 better",
        "−1.000 worse",
        "+0.100",
        "",
    ]
    assert change_text("accuracy", Interval(-1e-9, -1, 1)) == "0.000"


def test_shades_go_from_light_to_dark() -> None:
    assert shade(0.0) == "#f5f8fc"
    assert shade(1.0) == "#08518c"
