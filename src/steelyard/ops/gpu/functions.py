"""Exponentials and logarithms of sums and products alone, to about the last bit of float32.

A GPU's own exponential is off by two of those, and by more for a large argument. Logits in half precision have no such
digits to lose, and are read too fast for more than one instruction each; elsewhere there is time for a better one.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from steelyard.ops.gpu._launch import device_of

__all__ = ["exp", "exp_for", "expm1", "log", "log1p", "over", "try_out"]


@triton.jit
def _one(to):
    tl.store(to, 1.0)


def try_out(device: torch.device) -> None:
    """Compile and start the smallest kernel; whatever is missing for that raises here."""
    to = torch.empty((), device=device)
    with device_of(to):
        _one[(1,)](to)


@triton.jit
def _reduced(x):
    """Whole n and ``e^r − 1`` with ``x = n·log 2 + r``, r small; log 2 is in two parts, the first with 9 bits."""
    n = tl.floor(x * 1.4426950408889634 + 0.5)
    r = (x - n * 0.693359375) + n * 2.12194440e-4
    q = 1.0 / 120 + r * (1.0 / 720 + r * (1.0 / 5040))
    q = 0.5 + r * (1.0 / 6 + r * (1.0 / 24 + r * q))
    return n, r + (r * r) * q


@triton.jit
def _two_to(n):
    """``2^n`` for whole n from −126 to 127, by its bits."""
    return ((n.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def exp(x):
    """``e^x`` for x ≤ 0; what would be no normal number is 0."""
    n, less_one = _reduced(x)
    scale = _two_to(n)
    return tl.where(x < -87.0, 0.0, scale + scale * less_one)


@triton.jit
def exp_for(x, WIDE: tl.constexpr):
    """``e^x`` for x ≤ 0: by the best means for logits in float32, else by the fastest."""
    if WIDE:
        found = exp(x)
    else:
        found = tl.exp(x)
    return found


@triton.jit
def expm1(x):
    """``e^x − 1`` for x ≤ 0."""
    n, less_one = _reduced(x)
    scale = _two_to(n)
    return tl.where(x < -87.0, -1.0, scale * less_one + (scale - 1.0))


@triton.jit
def _twice_artanh(s):
    """``log((1 + s)/(1 − s))`` of a small s, by its series."""
    t = s * s
    return 2.0 * s + (2.0 * s) * t * (1.0 / 3 + t * (1.0 / 5 + t * (1.0 / 7 + t * (1.0 / 9))))


@triton.jit
def over(x, y, WIDE: tl.constexpr):
    """``x/y``: by the best means for logits in float32, else by the fastest."""
    if WIDE:
        found = tl.div_rn(x, y)
    else:
        found = x / y
    return found


@triton.jit
def log1p(x, WIDE: tl.constexpr):
    """``log(1 + x)`` for x in [0, 1]; WIDE as above."""
    large = x > 0.41421356
    found = _twice_artanh(over(tl.where(large, x - 1.0, x), tl.where(large, x + 3.0, x + 2.0), WIDE))
    return tl.where(large, 0.6931471805599453 + found, found)


@triton.jit
def log(x):
    """``log x`` for x ≥ 1, normal; NaN and infinity are left as they are.

    Near 1 the quick division is off by two bits, of a logarithm that x itself, being rounded, leaves fewer digits. The
    exact one calls a function, before which a program saves its registers.
    """
    whole = x.to(tl.int32, bitcast=True)
    n = (whole - 0x3F3504F3) >> 23  # such that the rest is between √½ and √2
    m = (whole - (n << 23)).to(tl.float32, bitcast=True)
    f = m - 1.0
    k = n.to(tl.float32)
    found = k * 0.693359375 + (_twice_artanh(f / (f + 2.0)) - k * 2.12194440e-4)
    return tl.where(x - x == 0.0, found, x)
