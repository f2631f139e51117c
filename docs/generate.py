"""Write what comes from registries: the table in README.md, docs/losses.md and docs/findings.md.

Run it after a change of a registry; a test holds the files against what it would write.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
from pathlib import Path
from typing import Any

import torch

from steelyard import check, nn
from steelyard.explain import RULES
from steelyard.registry import LOSSES, LossEntry

ROOT = Path(__file__).parent.parent
START, END = "<!-- losses: written by docs/generate.py -->", "<!-- /losses -->"

FORMULAS = {
    "softmax": (
        "Softmax losses",
        "One class per row. With logits z, class weights w, row weight v, offset δ, margin m, target distribution q, "
        "focusing γ:",
        "a_c = z_c + δ_c − m_c·[c = y]      s = softmax(a)\nloss = v · Σ_c w_c · q_c · (1 − s_c)^γ · (−log s_c)",
    ),
    "sigmoid": (
        "Sigmoid losses",
        "Each element on its own. With logit z, target t, positive and negative weight P and Q, element weight v, "
        "focusing γ₊ γ₋, clip κ:",
        "σ = sigmoid(z)      σ₋ = max(σ − κ, 0)\n"
        "loss = v · [ P·t·(1 − σ)^γ₊·(−log σ) + Q·(1 − t)·σ₋^γ₋·(−log(1 − σ₋)) ]",
    ),
    "likelihood": (
        "Losses on probabilities",
        "For networks that end in a softmax or a sigmoid of their own. They pick a number, or take a logarithm:",
        "nll_loss              −v·w_y·input_y\nbinary_cross_entropy  −v·[t·log p + (1 − t)·log(1 − p)]",
    ),
}


def table(entries: list[LossEntry]) -> str:
    """A Markdown table of losses, one row each."""
    rows = ["| function | module | idea | setting of the formula | source |", "| --- | --- | --- | --- | --- |"]
    rows += [
        f"| `{entry.name}` | `{entry.module.__name__}` | {entry.idea} | {entry.setting} | {entry.source} |"
        for entry in entries
    ]
    return "\n".join(rows)


def losses_page() -> str:
    """docs/losses.md, whole."""
    parts = [
        "# The losses",
        "Every loss is a setting of one of two formulas; `steelyard.registry` is this page as data. The losses of a "
        "formula take the keywords of its first one, so that weights, ignored rows, focusing and denominators combine.",
    ]
    for formula, (title, text, mathematics) in FORMULAS.items():
        entries = [entry for entry in LOSSES.values() if entry.formula == formula]
        parts += [f"## {title}", text, f"```text\n{mathematics}\n```", table(entries)]
    return "\n\n".join(parts) + "\n"


SEVERITIES = {
    "error": "the result is wrong, or the call fails",
    "warning": "it does something else than was probably meant",
    "note": "worth knowing, and may be what you want",
}


def findings_page() -> str:
    """docs/findings.md, whole; its examples are run to print what they print."""
    parts = [
        "# What `check` finds",
        "`steelyard.check` takes what you have (a loss, a batch, counts, a sampler, probabilities) and answers with "
        "findings, worst first. Codes are stable. `steelyard explain`, `inspect` and `compare` print them too.",
        f"```python\n{session('import torch', {})}\n{session('from steelyard import check, nn', {})}\n\n```",
        "\n".join(f"- **{severity}**: {meaning}." for severity, meaning in SEVERITIES.items()),
        "\n".join(
            ["| code | the mistake | what you see |", "| --- | --- | --- |"]
            + [f"| [{r.code}](#{anchor(r.code, r.title)}) | {r.title} | {r.symptom} |" for r in ordered_rules()]
        ),
    ]
    for rule in ordered_rules():
        names: dict[str, Any] = {"torch": torch, "nn": nn, "check": check}
        parts += [
            f"## {rule.code}: {rule.title}",
            f"*{rule.severity}* · {rule.symptom}",
            rule.reason,
            f"```python\n{session(rule.example, names)}\n\n```",
            f"**Not this:** {rule.fine}",
        ]
    return "\n\n".join(parts) + "\n"


def ordered_rules() -> list[Any]:
    """The rules by code."""
    return [RULES[code] for code in sorted(RULES)]


def anchor(code: str, title: str) -> str:
    """The name that a heading gets in a link."""
    return re.sub(r"[^\w\- ]", "", f"{code}: {title}".lower()).replace(" ", "-")


def session(code: str, names: dict[str, Any]) -> str:
    """Statements with Python's prompts, and what they print."""
    lines, found = code.splitlines(), []
    for statement in ast.parse(code).body:
        own = lines[statement.lineno - 1 : statement.end_lineno]
        found += [f"{'...' if i else '>>>'} {line}".rstrip() for i, line in enumerate(own)]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec("\n".join(own), names)
        found += printed.getvalue().splitlines()
    return "\n".join(found)


def readme(text: str) -> str:
    """README.md with its table written anew."""
    block = f"{START}\n{table(list(LOSSES.values()))}\n{END}"
    return re.sub(re.escape(START) + ".*?" + re.escape(END), lambda _: block, text, flags=re.DOTALL)


if __name__ == "__main__":
    (ROOT / "docs/losses.md").write_text(losses_page(), encoding="utf-8")
    (ROOT / "docs/findings.md").write_text(findings_page(), encoding="utf-8")
    page = ROOT / "README.md"
    page.write_text(readme(page.read_text(encoding="utf-8")), encoding="utf-8")
