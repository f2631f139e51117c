r"""Two formulas as two PyTorch operators; every loss of the library is a setting of one of them.

Softmax, for a row with logits z, class weights w, row weight v, offset δ, margin m, target distribution q, focusing γ::

    a_c = z_c + δ_c − m_c·[c = y]      s = softmax(a)
    loss = v · Σ_c w_c · q_c · (1 − s_c)^γ · (−log s_c)

Sigmoid, for an element with logit z, target t, positive weight P, negative weight Q, element weight v, focusing γ₊ γ₋,
clip κ::

    σ = sigmoid(z)      σ₋ = max(σ − κ, 0)
    loss = v · [ P·t·(1 − σ)^γ₊·(−log σ) + Q·(1 − t)·σ₋^γ₋·(−log(1 − σ₋)) ]

``reference`` is their definition in plain PyTorch. ``library`` registers them as ``torch.ops.steelyard.softmax_loss``
and ``torch.ops.steelyard.sigmoid_loss``; the dispatcher picks the implementation by device. Both give the loss of each
row (element) in the accumulation dtype: reductions and denominators belong to :mod:`steelyard.functional`.
"""

from steelyard.ops import cpu, gpu, reference
from steelyard.ops.library import LabelError, check_labels, sigmoid_loss, softmax_loss
from steelyard.ops.reference import accumulation_dtype, class_dim, of_class, per_class

__all__ = [
    "LabelError",
    "accumulation_dtype",
    "check_labels",
    "class_dim",
    "cpu",
    "gpu",
    "of_class",
    "per_class",
    "reference",
    "sigmoid_loss",
    "softmax_loss",
]
