"""Information: hand values, the identity between the four, derivatives at and away from zero, refusals."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard import information
from steelyard.information import cross_entropy, entropy, kl_divergence, self_information

# Forward-mode derivatives load a part of torch that warns about another part of torch.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

PAIRS = [kl_divergence, cross_entropy]
NAMES = ["self_information", "entropy", "kl_divergence", "cross_entropy"]


def distributions(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).mul(2).softmax(-1).to(dtype)


def test_names() -> None:
    assert sorted(information.__all__) == sorted(NAMES)


# 1 Hand values


def test_self_information_is_minus_log() -> None:
    p = torch.tensor([1.0, 0.5, 0.25, 0.0], dtype=torch.float64)
    result = self_information(p)
    assert result.tolist() == [0.0, math.log(2), 2 * math.log(2), math.inf]
    assert not torch.signbit(result[0])  # 0, not −0


def test_entropy_of_a_fair_and_a_certain_outcome() -> None:
    p = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    result = entropy(p)
    assert result.tolist() == [math.log(4), 0.0]
    assert not torch.signbit(result[1])


def test_kl_divergence_by_hand() -> None:
    p = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    q = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    assert kl_divergence(p, q).item() == pytest.approx(0.5 * math.log(2), abs=1e-15)
    assert kl_divergence(q, p).item() == math.inf
    assert kl_divergence(p, p).item() == 0.0


def test_cross_entropy_by_hand() -> None:
    p = torch.tensor([0.25, 0.75], dtype=torch.float64)
    q = torch.tensor([0.9, 0.1], dtype=torch.float64)
    expected = -(0.25 * math.log(0.9) + 0.75 * math.log(0.1))
    assert cross_entropy(p, q).item() == pytest.approx(expected, abs=1e-15)


def test_believing_the_impossible_costs_infinitely_much() -> None:
    p, q = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])
    assert cross_entropy(p, q).item() == math.inf
    assert kl_divergence(p, q).item() == math.inf


def test_what_neither_thinks_possible_costs_nothing() -> None:
    p = q = torch.tensor([1.0, 0.0, 0.0])
    assert cross_entropy(p, q).item() == 0.0
    assert kl_divergence(p, q).item() == 0.0


# 2 Facts

rows = st.lists(st.integers(0, 20), min_size=2, max_size=9).filter(any)


@settings(deadline=None)
@given(rows, st.integers(0, 10_000))
def test_cross_entropy_is_entropy_plus_divergence(parts: list[int], seed: int) -> None:
    p = torch.tensor(parts, dtype=torch.float64) / sum(parts)
    q = distributions(len(parts), seed=seed)
    torch.testing.assert_close(cross_entropy(p, q), entropy(p) + kl_divergence(p, q), rtol=1e-13, atol=1e-14)


@settings(deadline=None)
@given(rows, st.integers(0, 10_000))
def test_bounds(parts: list[int], seed: int) -> None:
    p = torch.tensor(parts, dtype=torch.float64) / sum(parts)
    q = distributions(len(parts), seed=seed)
    assert -1e-15 <= entropy(p).item() <= math.log(len(parts)) + 1e-14
    assert kl_divergence(p, q).item() >= -1e-14


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2, -3])
def test_dim(dim: int) -> None:
    p, q = distributions(3, 4, 5), distributions(3, 4, 5, seed=1)
    moved_p, moved_q = p.movedim(dim, -1), q.movedim(dim, -1)
    torch.testing.assert_close(entropy(p, dim), entropy(moved_p))
    torch.testing.assert_close(kl_divergence(p, q, dim), kl_divergence(moved_p, moved_q))
    torch.testing.assert_close(cross_entropy(p, q, dim), cross_entropy(moved_p, moved_q))


def test_default_dim_is_the_last() -> None:
    p = distributions(2, 3)
    assert entropy(p).shape == (2,)
    assert cross_entropy(p, p).shape == (2,)
    assert kl_divergence(p, p).shape == (2,)


# 3 Dtypes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_and_rounded_once(dtype: torch.dtype) -> None:
    p, q = distributions(50, 300, dtype=dtype), distributions(50, 300, dtype=dtype, seed=1)
    assert torch.equal(self_information(p), self_information(p.float()).to(dtype))
    assert torch.equal(entropy(p), entropy(p.float()).to(dtype))
    for function in PAIRS:
        assert torch.equal(function(p, q), function(p.float(), q.float()).to(dtype))


@pytest.mark.parametrize("function", PAIRS)
def test_the_wider_dtype_wins(function) -> None:
    p, q = distributions(7, dtype=torch.float32), distributions(7, seed=1)
    assert function(p, q).dtype == torch.float64
    assert function(p.bfloat16(), p).dtype == torch.float32
    torch.testing.assert_close(function(p, q), function(p.double(), q), rtol=0, atol=0)


def test_empty_batch() -> None:
    assert entropy(torch.zeros(0, 3)).shape == (0,)


# 4 Derivatives


def test_gradcheck_and_gradgradcheck() -> None:
    p, q = distributions(3, 4).requires_grad_(), distributions(3, 4, seed=1).requires_grad_()
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(self_information, (p,))
        assert check(entropy, (p,))
        for function in PAIRS:
            assert check(function, (p, q))
    assert torch.autograd.gradcheck(entropy, (p,), check_forward_ad=True)
    assert torch.autograd.gradcheck(kl_divergence, (p, q), check_forward_ad=True)


def test_zeros_give_the_finite_slopes_that_exist() -> None:
    p = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    q = torch.tensor([0.0, 0.25, 0.75], dtype=torch.float64, requires_grad=True)
    dp, dq = torch.autograd.grad(cross_entropy(p, q), (p, q))
    assert dp.tolist() == pytest.approx([0.0, math.log(4), -math.log(0.75)])  # where p is 0, −log q is still the slope
    assert dq.tolist() == pytest.approx([0.0, 0.0, -1 / 0.75])
    (dq,) = torch.autograd.grad(kl_divergence(p, q), q)
    assert dq.tolist() == pytest.approx([0.0, 0.0, -1 / 0.75])


def test_second_derivatives_at_zeros_are_finite() -> None:
    p = torch.tensor([0.0, 0.4, 0.6], dtype=torch.float64)
    q = torch.tensor([0.0, 0.5, 0.5], dtype=torch.float64)
    for function in PAIRS:
        hessian = torch.autograd.functional.hessian(function, (p, q))
        assert all(block.isfinite().all() for row in hessian for block in row)
        assert hessian[1][1].diag().tolist() == pytest.approx([0.0, 1.6, 2.4])


def test_entropy_of_a_softmax_that_underflows_has_its_true_gradient() -> None:
    def of_logits(z: torch.Tensor) -> torch.Tensor:
        return entropy(z.softmax(-1))

    z = torch.tensor([0.0, 1.0, -1e4], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(of_logits(z), z)
    (without,) = torch.autograd.grad(of_logits(z[:2]), z)
    torch.testing.assert_close(gradient, without)


# 5 Transforms


def test_fullgraph_compile() -> None:
    p, q = distributions(4, 5), distributions(4, 5, seed=1)
    p[0, 0] = q[0, 0] = 0
    for function, arguments in [(self_information, (p,)), (entropy, (p,)), *((pair, (p, q)) for pair in PAIRS)]:
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*arguments), function(*arguments))


@pytest.mark.parametrize("function", PAIRS)
def test_vmap_jvp_and_grad(function) -> None:
    p, q = distributions(4, 5), distributions(4, 5, seed=1)
    torch.testing.assert_close(torch.func.vmap(function)(p, q), function(p, q))
    value, tangent = torch.func.jvp(lambda x: function(p, x), (q,), (q,))
    torch.testing.assert_close(value, function(p, q))
    torch.testing.assert_close(tangent, -p.sum(-1))  # Σ −p/q · q
    by_func = torch.func.grad(lambda x: function(p, x).sum())(q)
    torch.testing.assert_close(by_func, -p / q)


# 6 Refusals

P, Q = torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])
BAD_P = [
    ([0.5, 0.5], TypeError, "'p' must be a float tensor of probabilities; got list"),
    (torch.tensor([0, 1]), TypeError, "got an int64 tensor"),
    (torch.tensor([[0.5, 0.5], [0.5, 1.5]]), ValueError, r"in \[0, 1\]; got 1.5 at position \(1, 1\)"),
    (torch.tensor([-2.0, 3.0]), ValueError, r"got -2.0 at position \(0,\).*logits"),
    (torch.tensor([0.5, math.nan]), ValueError, r"got nan at position \(1,\)"),
]
BAD_Q = [
    (0.5, TypeError, "'q' must be a float tensor"),
    (torch.tensor([True, False]), TypeError, "'q' must be a float tensor"),
    (torch.tensor([0.5, 1.0001]), ValueError, "'q' must be probabilities"),
    (torch.tensor([[0.5, 0.5]]), ValueError, r"'q' must be of the shape of 'p', \(2,\).*broadcast"),
    (torch.tensor([0.5]), ValueError, "'q' must be of the shape"),
    (torch.empty(2, device="meta"), ValueError, "'q' must be on the device of 'p', cpu; got a tensor on meta"),
]
BAD_DIM = [
    (1, IndexError, r"'dim' must be in \[-1, 0\]; got int 1"),
    (-2, IndexError, "'dim' must be in"),
    (True, TypeError, "'dim' must be an int"),
    ((0,), TypeError, "'dim' must be an int"),
    (None, TypeError, "'dim' must be an int"),
]
BAD = {"p": BAD_P, "q": BAD_Q, "dim": BAD_DIM}


@pytest.mark.parametrize("name", NAMES)
def test_bad_arguments(name: str) -> None:
    function = getattr(information, name)
    good = {"p": P, "q": Q, "dim": -1}
    parameters = inspect.signature(function).parameters
    for argument in parameters:
        for value, error, message in BAD[argument]:
            with pytest.raises(error, match=message) as caught:
                function(**({key: good[key] for key in parameters} | {argument: value}))
            assert str(caught.value).startswith(f"{name}: ")


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_number_is_not_a_distribution(name: str) -> None:
    function, p = getattr(information, name), torch.tensor(0.5)
    with pytest.raises(ValueError, match="at least one dimension"):
        function(*[p] * (1 if name == "entropy" else 2))


def test_values_are_not_read_where_they_do_not_exist() -> None:
    assert entropy(torch.empty(2, 3, device="meta")).shape == (2,)
