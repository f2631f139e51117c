"""Every loss of the library, as data: what it is called, which setting of which formula it is, where it comes from.

Tests, docs and the command are generated from this table, so a loss that is not in it does not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from steelyard import functional, nn
from steelyard.nn._base import Loss

__all__ = ["LOSSES", "LossEntry"]


@dataclass(frozen=True)
class LossEntry:
    """One loss.

    Attributes:
        function: In :mod:`steelyard.functional`.
        module: In :mod:`steelyard.nn`.
        formula: ``"softmax"`` or ``"sigmoid"`` of :mod:`steelyard.ops`; ``"likelihood"`` for a loss on
            (log-)probabilities.
        input: What the first argument holds, and with it the valid values: ``"logits"`` and ``"features"`` any finite
            number, ``"log-probabilities"`` ≤ 0, ``"probabilities"`` [0, 1].
        targets: The forms that the target may have: ``"indices"`` and ``"distribution"`` over the class axis,
            ``"elements"`` in [0, 1] in the shape of the input.
        counts: Whether class counts come after the target.
        setting: The parameters of the formula that make it this loss.
        idea: What it does, in a few words.
        source: Where it comes from.
        torch: The function of ``torch.nn.functional`` that it equals, if there is one.
    """

    function: Callable[..., Tensor]
    module: type[Loss]
    formula: Literal["softmax", "sigmoid", "likelihood"]
    input: Literal["logits", "features", "log-probabilities", "probabilities"]
    targets: tuple[Literal["indices", "distribution", "elements"], ...]
    setting: str
    idea: str
    source: str
    counts: bool = False
    torch: str | None = None

    @property
    def name(self) -> str:
        """The function's name, by which the loss is known."""
        return self.function.__name__


LOSSES: dict[str, LossEntry] = {
    entry.name: entry
    for entry in (
        LossEntry(
            functional.cross_entropy,
            nn.CrossEntropyLoss,
            "softmax",
            "logits",
            ("indices", "distribution"),
            setting="the formula itself; PyTorch's arguments set w, q, ε",
            idea="the plain loss; class weights are its remedy",
            source="PyTorch; smoothing: Szegedy et al. 2016",
            torch="cross_entropy",
        ),
        LossEntry(
            functional.linear_cross_entropy,
            nn.LinearCrossEntropyLoss,
            "softmax",
            "features",
            ("indices", "distribution"),
            setting="z = W·x + b",
            idea="cross entropy that makes its own logits",
            source="PyTorch 2.13",
            torch="linear_cross_entropy",
        ),
        LossEntry(
            functional.focal_loss,
            nn.FocalLoss,
            "softmax",
            "logits",
            ("indices", "distribution"),
            setting="γ = 2",
            idea="rows classified well fade",
            source="Lin et al. 2017, arXiv:1708.02002",
        ),
        LossEntry(
            functional.balanced_softmax_loss,
            nn.BalancedSoftmaxLoss,
            "softmax",
            "logits",
            ("indices", "distribution"),
            setting="δ = log π",
            idea="frequent classes get a head start in training",
            source="Ren et al. 2020, arXiv:2007.10740",
            counts=True,
        ),
        LossEntry(
            functional.logit_adjusted_loss,
            nn.LogitAdjustedLoss,
            "softmax",
            "logits",
            ("indices", "distribution"),
            setting="δ = τ·log π",
            idea="the same, as far as τ says",
            source="Menon et al. 2021, arXiv:2007.07314",
            counts=True,
        ),
        LossEntry(
            functional.ldam_loss,
            nn.LDAMLoss,
            "softmax",
            "logits",
            ("indices",),
            setting="z scaled, m ∝ n^(−¼)",
            idea="rare classes must win by more",
            source="Cao et al. 2019, arXiv:1906.07413",
            counts=True,
        ),
        LossEntry(
            functional.binary_cross_entropy_with_logits,
            nn.BCEWithLogitsLoss,
            "sigmoid",
            "logits",
            ("elements",),
            setting="the formula itself; PyTorch's arguments set v, P",
            idea="the plain loss of each element; pos_weight is its remedy",
            source="PyTorch",
            torch="binary_cross_entropy_with_logits",
        ),
        LossEntry(
            functional.sigmoid_focal_loss,
            nn.SigmoidFocalLoss,
            "sigmoid",
            "logits",
            ("elements",),
            setting="γ₊ = γ₋ = 2, P = α = ¼, Q = 1 − α",
            idea="elements classified well fade",
            source="Lin et al. 2017, arXiv:1708.02002",
        ),
        LossEntry(
            functional.asymmetric_loss,
            nn.AsymmetricLoss,
            "sigmoid",
            "logits",
            ("elements",),
            setting="γ₊ = 1, γ₋ = 4, κ = 0.05",
            idea="easy negatives fade faster, the easiest drop out",
            source="Ridnik et al. 2021, arXiv:2009.14119",
        ),
        LossEntry(
            functional.nll_loss,
            nn.NLLLoss,
            "likelihood",
            "log-probabilities",
            ("indices",),
            setting="−v·w_y·input_y",
            idea="picks the log-probability of the class",
            source="PyTorch",
            torch="nll_loss",
        ),
        LossEntry(
            functional.binary_cross_entropy,
            nn.BCELoss,
            "likelihood",
            "probabilities",
            ("elements",),
            setting="logarithms from −100 up",
            idea="takes the logarithm of probabilities",
            source="PyTorch",
            torch="binary_cross_entropy",
        ),
    )
}
