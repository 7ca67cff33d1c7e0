"""leave_one_out and bernoulli_log_prob against their naive definitions, in values and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad, vmap
from torch.nn import functional as F

from unibound import kernels
from unibound.kernels import choice, reference

SHAPES = [((k, b, 33), (b, 33)) for k in (1, 2, 5, 50) for b in (1, 7, 33)]
SHAPES += [(bits, logits) for logits, bits in SHAPES]
SHAPES += [
    ((70,), (3, 4, 70)),
    ((4, 1, 70), (4, 3, 70)),
    ((1, 4, 7), (3, 4, 7)),
    ((9,), (9,)),
    ((3, 0, 5), (0, 5)),
]
# Triton's interpreter takes a millisecond per row.
SMALL = [shapes for shapes in SHAPES if math.prod(torch.broadcast_shapes(*shapes)[:-1]) <= 70]
CASES = [("reference", *shapes) for shapes in SHAPES] + [("fused", *shapes) for shapes in SMALL]
CASES += [("compiled", *shapes) for shapes in SHAPES]
CASES += [pytest.param("fused", *shapes, marks=pytest.mark.slow) for shapes in SHAPES if shapes not in SMALL]


def naive_leave_one_out(log_w):
    """O(K^2): each row replaces one particle by the mean of the others."""
    k = len(log_w)
    rows = []
    for i in range(k):
        others = torch.cat([log_w[:i], log_w[i + 1 :]])
        rows.append(torch.cat([others, others.mean(0, keepdim=True)]).logsumexp(0) - math.log(k))
    return torch.stack(rows)


def naive_log_prob(logits, bits):
    return (bits * logits - F.softplus(logits, threshold=60)).sum(-1)


@settings(max_examples=60)
@given(
    st.integers(2, 8).flatmap(
        lambda k: st.lists(
            st.lists(st.one_of(st.floats(-1e4, 1e4), st.sampled_from([0.0, 1e4, -1e4])), min_size=k, max_size=k),
            min_size=1,
            max_size=3,
        )
    )
)
def test_leave_one_out_is_the_naive_definition(columns):
    log_w = torch.tensor(columns, dtype=torch.float64).T
    got, expected = kernels.leave_one_out(log_w), naive_leave_one_out(log_w)
    assert got.isfinite().all()
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("k", [2, 5, 50])
@pytest.mark.parametrize("batch", [1, 7, 33])
def test_leave_one_out_twin(fused, device, k, batch):
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-11)):
        log_w = (torch.randn(k, batch, dtype=dtype) * 30 - 500).to(device(fused))
        log_w[0, 0] = 9000.0  # one particle dominates
        got, expected = fused.leave_one_out(log_w), reference.leave_one_out(log_w)
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def test_leave_one_out_memory_is_linear():
    k = 4096  # [K, K] in float64 would take 128 MiB a column
    with torch.profiler.profile(profile_memory=True) as profile:
        kernels.leave_one_out(torch.zeros(k, 4, dtype=torch.float64))
    assert max(event.self_cpu_memory_usage for event in profile.key_averages()) < 100 * k * 4 * 8


def test_leave_one_out_needs_two():
    with pytest.raises(ValueError, match="at least 2 particles"):
        kernels.leave_one_out(torch.zeros(1, 3))


@pytest.mark.parametrize(("name", "logits_shape", "bits_shape"), CASES)
def test_log_prob_and_gradients(name, request, logits_shape, bits_shape):
    module = reference if name == "reference" else request.getfixturevalue(name)
    device = "cuda" if name == "fused" and torch.cuda.is_available() else "cpu"
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5))[name == "compiled" :]:
        logits = (torch.randn(logits_shape, dtype=dtype, device=device) * 10).requires_grad_()
        bits = torch.rand(bits_shape, dtype=dtype, device=device).round().requires_grad_()
        got, expected = module.bernoulli_log_prob(logits, bits), naive_log_prob(logits, bits)
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
        weight = torch.randn_like(got)
        pairs = zip(*(torch.autograd.grad(out, (logits, bits), weight) for out in (got, expected)), strict=True)
        for got_grad, expected_grad in pairs:
            torch.testing.assert_close(got_grad, expected_grad, rtol=tolerance, atol=tolerance)


def test_log_prob_gradcheck_to_second_order():
    logits = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    bits = torch.rand(4, 5, dtype=torch.float64, requires_grad=True)
    for first, second in ((logits, bits), (bits, logits)):
        assert torch.autograd.gradcheck(kernels.bernoulli_log_prob, (first, second))
        assert torch.autograd.gradgradcheck(kernels.bernoulli_log_prob, (first, second))


def test_log_prob_under_vmap():
    logits, bits = torch.randn(6, 5), torch.rand(6, 5).round()
    per_row = vmap(grad(kernels.bernoulli_log_prob))(logits, bits)
    torch.testing.assert_close(per_row, bits - logits.sigmoid())
    shared = vmap(grad(kernels.bernoulli_log_prob), in_dims=(None, 0))(logits[0], bits)
    torch.testing.assert_close(shared, bits - logits[0].sigmoid())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_prob_of_extreme_logits(dtype):
    logits = torch.tensor([-1e4, -100.0, -30.0, 0.0, 30.0, 100.0, 1e4], dtype=dtype)[:, None]
    ones, zeros = torch.ones(1, dtype=dtype), torch.zeros(1, dtype=dtype)
    for bits, sign in ((ones, 1), (zeros, -1)):
        got = kernels.bernoulli_log_prob(logits, bits)
        torch.testing.assert_close(got, F.logsigmoid(sign * logits[:, 0].double()).to(dtype), rtol=1e-6, atol=1e-13)
    assert kernels.bernoulli_log_prob(logits, torch.tensor([True])).dtype == dtype


@pytest.mark.parametrize("suffix", [(1000, 200), (200,)])
def test_log_prob_of_many_bits_in_one_pass(compiled, suffix):
    """Where bits ask for no gradient; to the second derivative, under vmap, and of strided tensors too."""
    logits = torch.randn(1000, 200, 2).mul(8).requires_grad_()
    bits = (torch.rand(suffix) < 0.3).float()
    assert choice.backend("bernoulli_log_prob", logits) is compiled
    assert choice.backend("bernoulli_log_prob", logits[:3]) is reference
    y, weights = logits.movedim(-1, 0), torch.rand(2, 1000)  # [2, 1000, 200], strided
    got, expected = kernels.bernoulli_log_prob(y, bits), naive_log_prob(y, bits)
    torch.testing.assert_close(got, expected, rtol=2e-6, atol=1e-4)
    for deeper in (False, True):
        slopes = [torch.autograd.grad((out * weights).sum(), logits, create_graph=True)[0] for out in (got, expected)]
        if deeper:
            slopes = [torch.autograd.grad(slope.square().sum(), logits, retain_graph=True)[0] for slope in slopes]
        else:
            slopes[0] = torch.autograd.grad((got * weights).sum(), logits, retain_graph=True)[0]
        torch.testing.assert_close(*slopes, rtol=0, atol=3e-7)
    each = vmap(grad(lambda y: kernels.bernoulli_log_prob(y, bits).sum()))(y.detach())
    torch.testing.assert_close(each, (bits - y.sigmoid()).detach(), rtol=0, atol=3e-7)


def test_log_prob_makes_no_particle_sized_temporary():
    k, b, d = 64, 50, 2000
    logits, bits = torch.randn(b, d, requires_grad=True), torch.rand(k, b, d).round()
    with torch.profiler.profile(profile_memory=True) as profile:
        kernels.bernoulli_log_prob(logits, bits).sum().backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < k * b * d * 4  # one slab of it at most


def test_last_axes_must_agree():
    with pytest.raises(ValueError, match="last axis"):
        kernels.bernoulli_log_prob(torch.zeros(2, 3), torch.zeros(2, 4))
