"""What an explanation and a list of findings print, in text, HTML, Rich and JSON, for small and for large batches."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from html.parser import HTMLParser
from typing import Any

import pytest
import torch

from steelyard import check, explain, functional, nn
from steelyard.explain import Explanation, Finding, Findings
from steelyard.explain._words import json_number, number, percent, plural, summed

LARGE = torch.randn(5000, 30, generator=torch.Generator().manual_seed(2))
LABELS = torch.arange(5000) % 30


@pytest.fixture(scope="module")
def large() -> Explanation:
    return explain(nn.CrossEntropyLoss(), LARGE, LABELS)


def test_the_text_of_a_small_batch_in_full() -> None:
    loss = nn.CrossEntropyLoss(weight=[0.1, 1.0])
    text = str(explain(loss, torch.tensor([[0.1, 0.9], [0.0, 0.1], [5.0, 0.0]]), torch.tensor([0, 1, -100])))
    assert text.splitlines() == [
        "CrossEntropyLoss = 0.69228 = (0.11711 + 0.6444) / 1.1, the weights of the targets added up",
        "The mean divides by 1.1, the weights of the targets added up (0.1 + 1), and not by the 2 rows, which would "
        "give 0.38075 (denominator='samples').",
        "1 of 3 rows is ignored (target -100): they count neither in the sum nor in what divides it.",
        "PyTorch's cross_entropy gives the same.",
        "Without weights it would be 0.90775.",
        "",
        "Means and sums by class:",
        "class  rows  mean loss  mean weight  contribution   share  of gradient",
        "0         1     1.1711          0.1       0.11711  15.4 %       12.7 %",
        "1         1     0.6444            1        0.6444  84.6 %       87.3 %",
        "",
        "By row:",
        "row    class    loss  weight  contribution   share  of gradient",
        "0          0  1.1711     0.1       0.11711  15.4 %       12.7 %",
        "1          1  0.6444       1        0.6444  84.6 %       87.3 %",
        "2    ignored       0       0             0     0 %          0 %",
        "",
        "Effective sample size 1.2 of 2 rows (Kish, from the weights); half of the gradient comes from 1 row.",
    ]
    assert repr(explain(loss, LARGE[:2, :2], LABELS[:2])).startswith("<Explanation: CrossEntropyLoss = ")


def test_a_large_batch_shows_what_contributes_most_and_says_so(large: Explanation) -> None:
    text = str(large)
    assert "The 10 of 5,000 rows that contribute most:" in text
    assert "The 10 of 30 groups that contribute most:" in text
    assert len(text.splitlines()) < 40
    shown = large.top()
    cost = torch.nn.functional.cross_entropy(LARGE.double(), LABELS, reduction="none")
    assert shown == cost.topk(10).indices.tolist()
    assert [row["row"] for row in large.to_dict()["listed_rows"]] == [[at] for at in shown]
    assert len(large.to_dict(25)["listed_rows"]) == 25
    assert large.to_dict(0)["listed_rows"] == []
    assert len(large.to_dict()["classes"]) == 30  # every class, whatever the text shows
    by_class = torch.zeros(30, dtype=torch.float64).index_add_(0, LABELS, cost)
    assert {int(part.label) for part in large.classes if f"\n{part.label:<5}" in text.split("By row")[0]} >= set(
        by_class.topk(10).indices.tolist()
    )


def test_the_dictionary_is_strict_json() -> None:
    nothing = explain(nn.CrossEntropyLoss([0.0, 1.0]), torch.zeros(1, 2), torch.tensor([0]))
    infinite = explain(nn.CrossEntropyLoss(logit_offset=[0.0, -torch.inf]), torch.zeros(2, 2), torch.tensor([0, 1]))
    for found in (nothing, infinite, explain(nn.CrossEntropyLoss(reduction="none"), torch.zeros(1, 2), LABELS[:1])):
        data = found.to_dict()
        assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert (nothing.to_dict()["value"], infinite.to_dict()["value"]) == ("nan", "inf")
    data = explain(nn.CrossEntropyLoss([0.1, 1.0]), torch.zeros(2, 2), torch.tensor([0, 1])).to_dict()
    assert data["denominator"] == {
        "rule": "torch",
        "name": "the weights of the targets added up",
        "value": pytest.approx(1.1),
    }
    assert set(data) == {
        "loss", "function", "reduction", "value", "numerator", "denominator", "alternatives", "unweighted_mean",
        "pytorch", "rows", "rows_kept", "effective_sample_size", "rows_with_half_of_the_gradient", "reasons", "classes",
        "listed_rows",
    }  # fmt: skip
    assert set(data["listed_rows"][0]) == {"row", "class", "loss", "weight", "contribution", "share", "gradient_share"}
    assert set(data["classes"][0]) == {
        "label", "rows", "loss", "weight", "contribution", "share", "gradient_share"
    }  # fmt: skip


@pytest.mark.parametrize("bad", [-1, 1.5, True, "all"])
def test_rows_must_be_a_number(large: Explanation, bad: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^Explanation.to_dict: 'rows' must be a whole number ≥ 0"):
        large.to_dict(bad)


class Tags(HTMLParser):
    """Tags opened and closed, and the text between."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_html_is_whole_and_escaped(large: Explanation) -> None:
    again = large.compare(explain(nn.CrossEntropyLoss(), LARGE + 1, LABELS))
    findings = Findings([Finding("SY000", "error", "<b>a & b</b>", "x < y")])
    for shown in (large, again, findings, Findings()):
        parser = Tags()
        parser.feed(shown._repr_html_())
        assert parser.open == []
    assert "&lt;b&gt;a &amp; b&lt;/b&gt;" in findings._repr_html_()
    assert large.headline in "".join(_texts(large._repr_html_()))


def _texts(page: str) -> list[str]:
    parser = Tags()
    parser.feed(page)
    return parser.text


def test_rich_prints_the_same_numbers(large: Explanation) -> None:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=200)
    console.print(large)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert large.headline in shown
    assert large.effective in shown
    for _, head, body in large.tables():
        assert all(word in shown for word in head)
        assert all(cell in shown for line in body for cell in line)


def test_the_text_needs_no_rich_and_no_reader() -> None:
    code = (
        "import sys\n"
        "for name in ('rich', 'polars', 'pandas', 'narwhals', 'sklearn'): sys.modules[name] = None\n"
        "import torch, steelyard\n"
        "found = steelyard.explain(torch.nn.CrossEntropyLoss(), torch.zeros(2, 2), torch.tensor([0, 1]))\n"
        "print(found); found._repr_html_(); found.to_dict()\n"
        "print(steelyard.check(loss=torch.nn.CrossEntropyLoss(reduction='sum'), labels=[0, 1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "CrossEntropyLoss = 0.69315" in done.stdout
    assert "SY122" in done.stdout


def test_findings_are_a_list_worst_first() -> None:
    loss = torch.nn.CrossEntropyLoss(torch.tensor([0.0, -1.0, 2.0]), reduction="sum")
    found = check(loss=loss, input=torch.zeros(3, 3), target=torch.tensor([1, 2, 3]))
    assert isinstance(found, list)
    assert [finding.severity for finding in found] == sorted(
        (finding.severity for finding in found), key=["error", "warning", "note"].index
    )
    assert [finding.code for finding in found] == ["SY114", "SY122", "SY125", "SY115"]
    text = str(found)
    assert text.splitlines()[0] == f"SY114 error: {found[0].message}"
    assert text.splitlines()[1] == f"  Fix: {found[0].fix}"
    assert found.to_dict()[0] == {
        "code": "SY114", "severity": "error", "message": found[0].message, "fix": found[0].fix
    }  # fmt: skip
    assert str(Findings()) == "No findings."
    assert str(Findings([], ["loss", "labels"])) == "No findings. Not given, and so not looked at: loss, labels."
    assert "not looked at: loss" in Findings([], ["loss"])._repr_html_()
    assert Findings([], ["loss"]) == []


def test_a_loss_that_check_does_not_know_is_named() -> None:
    def own(input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return input.sum() + target.sum()

    for loss, name in ((torch.nn.MSELoss(), "MSELoss"), (own, "own")):
        assert str(check(loss=loss)).startswith(f"No findings. {name} is no loss that check knows: its settings were")
    assert "is no loss" not in str(check(loss=torch.nn.CrossEntropyLoss()))
    assert "is no loss" not in str(check(counts=[3, 2]))
    with pytest.raises(TypeError, match=r"got the class CrossEntropyLoss\. Make one: CrossEntropyLoss\(\.\.\.\)"):
        check(loss=torch.nn.CrossEntropyLoss)


def test_a_difference_prints_and_is_json() -> None:
    input, target = torch.tensor([[0.1, 0.9], [0.0, 0.1]]), torch.tensor([0, 1])
    one, two = explain(nn.CrossEntropyLoss([0.1, 1.0]), input, target), explain(nn.CrossEntropyLoss(), input, target)
    found = one.compare(two)
    assert str(found).splitlines()[0] == "0.69228 and 0.90775: different"
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()
    assert found.to_dict()["same_value"] is False
    assert repr(found) == "<Difference: 0.69228 and 0.90775: different>"
    with pytest.raises(TypeError, match=r"^Explanation.compare: 'other' must be an Explanation"):
        one.compare(0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.69227, "0.69227"), (1.1, "1.1"), (2.0, "2"), (-1.5, "−1.5"), (0.0, "0"), (-0.0, "0"), (1234.5, "1,234.5"),
     (100110.0, "100,110"), (1e-5, "1e−05"), (float("nan"), "NaN"), (float("inf"), "inf"), (-float("inf"), "−inf"),
     (999.994, "999.99"), (1e15, "1e+15"), (123456.7, "123,457")],
)  # fmt: skip
def test_numbers_as_text(value: float, text: str) -> None:
    assert number(value) == text


def test_other_words() -> None:
    assert [percent(share) for share in (0.333, 1.0, 0.0, 0.0002, 0.005)] == [
        "33.3 %",
        "100 %",
        "0 %",
        "0.02 %",
        "0.5 %",
    ]
    assert percent(float("nan")) == "NaN"
    assert [plural(n, "class") for n in (1, 2)] == ["1 class", "2 classes"]
    assert plural(2000, "row") == "2,000 rows"
    assert summed([1.0, -3.0, -3.0]) == "1 − 3 − 3"
    assert [json_number(v) for v in (1.5, float("nan"), float("inf"), -float("inf"))] == [1.5, "nan", "inf", "-inf"]


def test_losses_that_are_not_reduced_have_no_value() -> None:
    found = explain(functional.sigmoid_focal_loss, torch.zeros(3), torch.tensor([0, 1, 1]))
    assert found.value != found.value
    assert found.headline.startswith("sigmoid_focal_loss = 3 losses, not reduced; they add up to ")
