"""The plots of the report as inline SVG: no script, no address, nothing to load."""

from __future__ import annotations

import html
import io
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from sklearn.metrics import precision_recall_curve

from steelyard.compare.comparison import Comparison
from steelyard.compare.evaluate import METRICS, Interval
from steelyard.compare.run import Outcome
from steelyard.compare.strategies import STRATEGIES
from steelyard.posterior import Reliability
from steelyard.posterior.plot import FEW

__all__ = ["plots"]

INK, QUIET, FAINT = "#1f2933", "#5f6b7a", "#d5dae1"
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"  # Okabe and Ito: told apart with any kind of colour vision
STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"], "font.size": 10, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": QUIET,
    "xtick.color": QUIET, "ytick.color": QUIET, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 10,
    "legend.framealpha": 0.85, "legend.edgecolor": "none", "legend.fontsize": 9, "svg.fonttype": "path",
    "figure.facecolor": "white",
}  # fmt: skip


def plots(comparison: Comparison) -> dict[str, str]:
    """SVG of each plot, by name: ``scores``, ``precision_recall``, ``reliability``, ``before_after``."""
    return {
        "scores": _scores(comparison),
        "precision_recall": _precision_recall(comparison),
        "reliability": _reliability(comparison),
        "before_after": _before_after(comparison),
    }


@contextmanager
def _style(name: str) -> Iterator[None]:
    look: Any = {**STYLE, "svg.hashsalt": name}  # a salt of its own keeps ids apart within one page
    with matplotlib.rc_context(look):
        yield


def _svg(figure: Figure, label: str) -> str:
    """The drawing alone: without prolog, metadata and namespace addresses, which HTML does not need."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    width, height = (float(re.search(rf'{side}="([\d.]+)pt"', text).group(1)) for side in ("width", "height"))  # type: ignore[union-attr]  # Matplotlib always writes both
    text = re.sub(r'(width|height)="[\d.]+pt"\s', "", text, count=2)
    said = html.escape(label, quote=True)  # it holds the name of a class, and the SVG goes into the page as it is
    return text.replace("<svg", f'<svg role="img" aria-label="{said}" style="aspect-ratio:{width:g}/{height:g}"', 1)


def _scores(comparison: Comparison) -> str:
    """Means with intervals on the left, paired differences on the right, one row per remedy."""
    metric = METRICS[comparison.settings.metric]
    scores, ratio = comparison.scores, comparison.test_ratio
    names = [o.strategy.name for o in comparison.outcomes]
    labels = [textwrap.fill(o.strategy.label, 24, break_on_hyphens=False) for o in comparison.outcomes]
    chosen = comparison.recommendation.strategy
    with _style("scores"):
        figure = Figure(figsize=(9.2, 1.25 + 0.46 * len(names)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for row, name in enumerate(names):
            strong = name == chosen
            colour = ORANGE if strong else (INK if name == "none" else BLUE)
            _whisker(left, row, scores[name].interval(metric.name, ratio), colour, strong)
            if name != "none":
                _whisker(right, row, scores[name].difference(scores["none"], metric.name, ratio), colour, strong)
        left.set_yticks(range(len(names)), labels)
        left.invert_yaxis()
        for text, name in zip(left.get_yticklabels(), names, strict=True):
            text.set_color(ORANGE if name == chosen else INK)
            text.set_fontweight("bold" if name == chosen else "normal")
        baseline = comparison.baselines[metric.name]
        left.axvline(baseline, color=QUIET, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        left.set_title("mean and 95% interval")
        left.set_xlabel(f"{metric.label} ({metric.unit})\ndashed: class shares alone, {baseline:.3f}")
        right.axvline(0, color=INK, linewidth=1, zorder=0)
        right.set_title("difference to doing nothing, 95% interval")
        side = "right" if metric.sign > 0 else "left"
        right.set_xlabel(f"difference in {metric.label}, paired by split\nbetter is to the {side}")
        for axes in (left, right):
            axes.grid(axis="x", color=FAINT, linewidth=0.7)
            axes.set_axisbelow(True)
            axes.xaxis.set_major_locator(MaxNLocator(6))
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
        return _svg(figure, f"{metric.label} of each remedy, and its difference to doing nothing, with intervals")


def _whisker(axes: Axes, row: int, value: Interval, colour: str, strong: bool) -> None:
    width, size = (2.6, 7.5) if strong else (1.6, 6)
    axes.plot([value.low, value.high], [row, row], color=colour, linewidth=width, solid_capstyle="round")
    axes.plot(value.mean, row, "o", color=colour, markersize=size)


def _rarest(comparison: Comparison) -> tuple[int, str]:
    c = int(comparison.table.counts.argmin())
    return c, textwrap.shorten(comparison.table.words[c], 30, placeholder="…")


def _shown(comparison: Comparison) -> list[tuple[Outcome, str, str]]:
    """What the plots of the rarest class set side by side, with colour and name.

    Colours mean what they mean in the plot of scores: orange is recommended, ink is doing nothing, blue is any other.
    Tuned cut-offs leave the probabilities alone, so where they are recommended the curve of doing nothing is theirs;
    it stands beside the best remedy that trains a network of its own.
    """
    by_name = {o.strategy.name: o for o in comparison.outcomes}
    metric, scores = comparison.settings.metric, comparison.scores
    strategy = by_name[comparison.recommendation.strategy].strategy
    name = f"{strategy.label} (recommended)"
    if strategy.same_network_as:
        name += f",\nthe network of {STRATEGIES[strategy.same_network_as].label}"
    if strategy.bends:
        return [(by_name["none"], INK, by_name["none"].strategy.label), (by_name[strategy.name], ORANGE, name)]
    shown = [(by_name["none"], ORANGE, name)]
    trained = [n for n, o in by_name.items() if n != "none" and not o.strategy.same_network_as]
    if trained:
        best = max(trained, key=lambda n: METRICS[metric].better(float(np.mean(scores[n].values[metric]))))
        shown.append((by_name[best], BLUE, by_name[best].strategy.label))
    return shown


def _precision_recall(comparison: Comparison) -> str:
    c, word = _rarest(comparison)
    truth = comparison.table.target == c
    share = truth.mean()
    shown = _shown(comparison)
    with _style("precision-recall"):
        figure = Figure(figsize=(5.4, 4.3), layout="constrained")
        axes = figure.subplots()
        strong = {o.strategy.name for o, _, _ in shown}
        others = [o for o in comparison.outcomes if o.strategy.name not in strong and not o.strategy.tuned]
        highest = 3 * share
        faint = [(o, FAINT, "" if index else "the other remedies") for index, o in enumerate(others)]
        for outcome, colour, label in [*faint, *shown]:
            assert outcome.probabilities is not None
            precision, recall, _ = precision_recall_curve(truth, outcome.probabilities[:, c])
            width = 1.2 if colour == FAINT else 2.0
            settled = precision[recall > 0.05]  # the first few rows make the curve jump; they do not set the scale
            highest = max(highest, float(settled.max()))
            axes.step(recall, precision, where="post", color=colour, linewidth=width, label=label or None)
        axes.axhline(share, color=QUIET, linewidth=1, linestyle=(0, (4, 3)), label=f"by chance: {share:.3f}")
        axes.set(xlim=(0, 1), ylim=(0, min(1.02, 1.3 * highest)))
        axes.set_xlabel("recall (share of the rows of the class that are found)")
        axes.set_ylabel("precision (share of found rows that are of the class)")
        axes.set_title("precision and recall")
        axes.grid(color=FAINT, linewidth=0.7)
        axes.legend(loc="upper right")
        return _svg(figure, f"precision against recall for the rarest class, {word}")


def _reliability(comparison: Comparison) -> str:
    """The remedies that the plots of the rarest class show, as they come and through their posterior."""
    c, word = _rarest(comparison)
    lines: list[tuple[str, Reliability, str, str]] = []
    for outcome, colour, label in _shown(comparison):
        raw, posterior = comparison.reliability(outcome)[c]
        if outcome.strategy.bends:
            lines.append((f"{label}, as it comes", raw, colour, "o"))
            lines.append((f"{label}, posterior", posterior, GREEN, "s"))
        else:
            lines.append((label, raw, colour, "D"))
    with _style("reliability"):
        figure = Figure(figsize=(5.4, 4.3), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
        _diagonal(top)
        for index, (label, curve, colour, marker) in enumerate(lines):
            _curve(top, curve, colour, marker, label)
            width = 0.09 / len(lines)
            tenth = np.minimum((curve.predicted * 10).astype(int), 9) / 10
            bottom.bar(tenth + 0.005 + width * (index + 0.5), curve.rows, width=width, color=colour)
        top.set(ylim=(-0.02, 1.02), ylabel="share of rows that are of the class")
        top.set_title("how far to trust a probability")
        top.legend(loc="upper left")
        bottom.set_yscale("log")
        bottom.set_ylim(bottom=0.8)
        bottom.set(xlim=(0, 1), ylabel="rows\n(log scale)", xlabel="predicted probability of the class, in tenths")
        bottom.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        bottom.minorticks_off()
        for axes in (top, bottom):
            axes.grid(color=FAINT, linewidth=0.7)
            axes.set_axisbelow(True)
        return _svg(figure, f"observed share against predicted probability of the rarest class, {word}")


ACROSS = 4
"""Small plots beside one another."""


def _before_after(comparison: Comparison) -> str:
    """One small plot for each remedy that bends: the rarest class as it comes, and through the posterior."""
    c, word = _rarest(comparison)
    bent = [o for o in comparison.outcomes if o.strategy.bends] or list(comparison.outcomes[:1])
    down = -(-len(bent) // ACROSS)
    with _style("before_after"):
        figure = Figure(figsize=(9.2, 0.4 + 2.6 * down), layout="constrained")
        grid = figure.subplots(down, ACROSS, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(bent) :]:
            axes.set_visible(False)
        for axes, outcome in zip(grid.flat, bent, strict=False):
            raw, posterior = comparison.reliability(outcome)[c]
            _diagonal(axes)
            _curve(axes, raw, BLUE, "o", "as it comes")
            _curve(axes, posterior, GREEN, "s", "posterior")
            axes.set_title(textwrap.fill(outcome.strategy.label, 22, break_on_hyphens=False))
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            axes.grid(color=FAINT, linewidth=0.7)
            axes.set_axisbelow(True)
        grid.flat[0].legend(loc="upper left")
        figure.supxlabel("predicted probability of the class", fontsize=10, color=INK)
        figure.supylabel("share that are of it", fontsize=10, color=INK)
        return _svg(figure, f"reliability before and after the posterior, of each remedy that bends, for {word}")


def _diagonal(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle=(0, (4, 3)), label="as often as it says")


def _curve(axes: Axes, curve: Reliability, colour: str, marker: str, label: str) -> None:
    """Points of enough rows joined, those of few hollow."""
    sure = curve.rows >= FEW
    look: dict[str, Any] = {"marker": marker, "markersize": 5, "color": colour}
    axes.plot(curve.predicted[sure], curve.observed[sure], linewidth=1.6, label=label, **look)
    axes.plot(curve.predicted[~sure], curve.observed[~sure], linestyle="", markerfacecolor="white", **look)
