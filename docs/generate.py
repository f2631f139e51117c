"""Write the tables that come from the registry: the one in README.md, and docs/losses.md.

Run it after a change of the registry; a test holds the files against what it would write.
"""

from __future__ import annotations

import re
from pathlib import Path

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


def readme(text: str) -> str:
    """README.md with its table written anew."""
    block = f"{START}\n{table(list(LOSSES.values()))}\n{END}"
    return re.sub(re.escape(START) + ".*?" + re.escape(END), lambda _: block, text, flags=re.DOTALL)


if __name__ == "__main__":
    (ROOT / "docs/losses.md").write_text(losses_page(), encoding="utf-8")
    page = ROOT / "README.md"
    page.write_text(readme(page.read_text(encoding="utf-8")), encoding="utf-8")
