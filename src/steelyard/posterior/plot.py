"""The reliability plot: what was said against what happened, with the rows that stand behind each point."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from steelyard._errors import refuse
from steelyard.posterior.measure import Binning, Reliability, reliability

__all__ = ["reliability_plot"]

FEW = 20
"""Fewer rows than this make a point hollow."""


def reliability_plot(
    probs: Any, labels: Any, *, kind: Binning = "equal_width", bins: int = 10, figure: Any = None
) -> Any:
    r"""Draw predicted probabilities of one event against how often it happened, and how many rows say so.

    On the diagonal a probability means what it says. Without the counts a point of three rows looks like one of three
    thousand.

    Args:
        probs: Probabilities of the event, ``(N,)``; or a mapping from a name to such, for several curves: before and
            after, say.
        labels: Whether it happened, 0 and 1 or bools, ``(N,)``.
        kind, bins: As for :func:`reliability`.
        figure: A Matplotlib figure to draw on; a new one, without a window, by default.

    Returns: The figure, with the curve above and the counts below.

    Raises: ImportError: Matplotlib is not installed. TypeError, ValueError, IndexError: as :func:`reliability`.

    Example:
        >>> figure = reliability_plot({"raw": [0.4] * 50, "posterior": [0.02] * 50}, [1] + [0] * 49)
        >>> figure.savefig("reliability.png")  # doctest: +SKIP
    """
    if find_spec("matplotlib") is None:
        raise ImportError("reliability_plot needs Matplotlib, which is not installed: pip install 'steelyard[report]'")
    from matplotlib.figure import Figure

    if isinstance(probs, Mapping) and not probs:
        refuse("reliability_plot", "probs", "probabilities, or a mapping from names to them", "an empty mapping")
    named = probs if isinstance(probs, Mapping) else {"": probs}
    curves = {str(name): reliability(said, labels, kind=kind, bins=bins) for name, said in named.items()}
    figure = figure if figure is not None else Figure(figsize=(5.4, 5.0), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.plot([0, 1], [0, 1], color="0.5", linewidth=1, linestyle="--", label="as often as it says")
    for index, (name, curve) in enumerate(curves.items()):
        _draw(top, bottom, curve, name, f"C{index}")
    top.set(ylim=(-0.02, 1.02), ylabel="share where it happened")
    bottom.set(xlim=(-0.02, 1.02), yscale="log", ylabel="rows", xlabel="predicted probability")
    top.legend(loc="upper left")
    return figure


def _draw(top: Any, bottom: Any, curve: Reliability, name: str, colour: str) -> None:
    sure = curve.rows >= FEW
    top.plot(curve.predicted[sure], curve.observed[sure], "o-", color=colour, markersize=5, label=name or None)
    top.plot(curve.predicted[~sure], curve.observed[~sure], "o", color=colour, markersize=5, markerfacecolor="white")
    bottom.plot(curve.predicted, curve.rows, "o", color=colour, markersize=4)
    bottom.vlines(curve.predicted, 0.8, curve.rows, color=colour, linewidth=2)
