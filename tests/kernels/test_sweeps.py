"""Gibbs and annealing sweeps: exact transition laws, exact log Z, and twins against the reference."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import kstest

from unibound import kernels
from unibound.kernels import reference
from unibound.testing.verdict import FALSE_ALARM, chi_square

SIZES = [(3, 2, 1), (1, 1, 7), (5, 40, 33), (33, 17, 50), pytest.param(200, 400, 7, marks=pytest.mark.slow)]


def random_rbm(visible, hidden, chains, *, dtype=torch.float32, device="cpu", scale=0.5):
    tensors = (
        (torch.rand(chains, visible) < 0.5).to(dtype),
        torch.randn(visible, hidden, dtype=dtype) * scale,
        torch.randn(visible, dtype=dtype),
        torch.randn(hidden, dtype=dtype),
        torch.randn(visible, dtype=dtype),
    )
    return tuple(t.to(device) for t in tensors)


def saturated_rbm(visible, hidden, chains, device="cpu"):
    """Every activation is at least 100 from zero at beta 1/2 and 1, so every draw is certain."""
    v = (torch.rand(chains, visible) < 0.5).float()
    weight, b, c = (torch.randint(-2, 3, size).float() for size in ((visible, hidden), (visible,), (hidden,)))
    b = 1000 * b + 400
    return tuple(t.to(device) for t in (v, 1000 * weight, b, 1000 * c + 400, b))


def states(size):
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * size).reshape(-1, size)


def log_f(v, weight, b, c, a, beta):
    return v @ ((1 - beta) * a + beta * b) + torch.nn.functional.softplus(beta * (c + v @ weight), threshold=60).sum(-1)


def transition(weight, b, c, a, beta):
    """T_beta[v, v'] by summing over every hidden state, [2^V, 2^V]."""
    weight, b, c, a = (t.double().cpu() for t in (weight, b, c, a))
    v, h = states(len(b)), states(len(c))
    p_h = torch.sigmoid(beta * (c + v @ weight))  # [2^V, H]
    p_v = torch.sigmoid((1 - beta) * a + beta * (b + h @ weight.T))  # [2^H, V]
    to_h = torch.where(h[None] > 0, p_h[:, None], 1 - p_h[:, None]).prod(-1)  # [2^V, 2^H]
    to_v = torch.where(v[None] > 0, p_v[:, None], 1 - p_v[:, None]).prod(-1)  # [2^H, 2^V]
    return to_h @ to_v


def index(v):
    return (v.cpu().long() * 2 ** torch.arange(v.shape[1] - 1, -1, -1)).sum(1)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("beta", [1.0, 0.6])
def test_gibbs_draws_follow_the_exact_transition_matrix(backend, device, steps, beta):
    chains = 1000
    _, weight, b, c, a = random_rbm(3, 2, 1, scale=1.5, device=device(backend))
    exact = torch.linalg.matrix_power(transition(weight, b, c, a, beta), steps)
    for start in (0, 5):
        v = states(3)[start].float().repeat(chains, 1).to(weight.device)
        end = backend.rbm_gibbs(v, weight, b, c, steps, beta=beta, base_bias=a)
        statistic, limit = chi_square(index(end), exact[start])
        assert statistic < limit


@pytest.mark.parametrize("sweep", ["rbm_ais", "rbm_reverse_ais"])
def test_annealed_states_follow_the_exact_transition_matrices(backend, device, sweep):
    chains, betas = 1000, torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    _, weight, b, c, a = random_rbm(3, 2, 1, scale=1.5, device=device(backend))
    betas = betas if sweep == "rbm_ais" else betas.flip(0)
    moves = betas[1:] if sweep == "rbm_ais" else betas[:-1]
    exact = transition(weight, b, c, a, moves[0].item()) @ transition(weight, b, c, a, moves[1].item())
    v = states(3)[2].float().repeat(chains, 1).to(weight.device)
    end, _ = getattr(backend, sweep)(v, weight, b, c, a, betas)
    statistic, limit = chi_square(index(end), exact[2])
    assert statistic < limit


def test_reverse_weights_are_ratios_at_the_state_moved_to(backend, device):
    # One pair at a time, the state weighed is the state returned.
    v, weight, b, c, a = random_rbm(7, 5, 40, device=device(backend))
    end, log_w = backend.rbm_reverse_ais(v, weight, b, c, a, torch.tensor([0.8, 0.3], dtype=torch.float64))
    wide = [t.double() for t in (end, weight, b, c, a)]
    torch.testing.assert_close(log_w, log_f(*wide, 0.3) - log_f(*wide, 0.8), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("visible", "hidden", "chains"), SIZES)
def test_twin_weighs_as_the_reference(twin, device, visible, hidden, chains):
    v, weight, *biases = random_rbm(visible, hidden, chains, device=device(twin))
    # Exact in two bfloat16 parts; what weights lose in them otherwise is told by a test of its own.
    rbm = (v, (weight * 2**12).round() / 2**12, *biases)
    for betas in ([0.0, 1.0], [0.25, 0.2500001], [0.9, 0.95]):
        betas = torch.tensor(betas, dtype=torch.float64)
        _, got = twin.rbm_ais(*rbm, betas)
        _, expected = reference.rbm_ais(*(t.double() for t in rbm), betas.float().double())
        torch.testing.assert_close(got, expected, rtol=2e-5, atol=2e-7 * hidden * visible**0.5)


@pytest.mark.parametrize(("visible", "hidden", "chains"), SIZES)
def test_twin_moves_as_the_reference_where_draws_are_certain(twin, device, visible, hidden, chains):
    rbm = saturated_rbm(visible, hidden, chains, device(twin))
    up = torch.tensor([0.5, 0.5, 1.0, 1.0, 1.0], dtype=torch.float64)
    for sweep, betas in (("rbm_ais", up), ("rbm_reverse_ais", up.flip(0))):
        v, log_w = getattr(twin, sweep)(*rbm, betas)
        expected_v, expected_log_w = getattr(reference, sweep)(*rbm, betas)
        assert torch.equal(v, expected_v)
        torch.testing.assert_close(log_w, expected_log_w, rtol=1e-6, atol=1e-6)
    many = rbm[0].repeat(1 + 134 // chains, 1)  # enough that no twin hands a short sweep to the reference
    assert torch.equal(twin.rbm_gibbs(many, *rbm[1:4], 3), reference.rbm_gibbs(many, *rbm[1:4], 3))


def test_log_z_within_its_error_bar(backend, device):
    chains, temperatures = (128, 40) if backend.__name__.endswith("fused") else (300, 300)
    _, weight, b, c, _ = random_rbm(8, 6, 1, scale=1.0, device=device(backend))
    exact = log_f(states(8), *(t.double().cpu() for t in (weight, b, c, b)), 1.0).logsumexp(0).item()
    a = b / 2
    v = (torch.rand(chains, len(b)).to(a.device) < torch.sigmoid(a)).float()
    betas = torch.linspace(0, 1, temperatures + 1, dtype=torch.float64)
    half = temperatures // 2
    v, first = backend.rbm_ais(v, weight, b, c, a, betas[: half + 1])
    v, second = backend.rbm_ais(v, weight, b, c, a, betas[half:])
    log_w = first + second
    log_z = (
        len(c) * math.log(2) + torch.nn.functional.softplus(a.double()).sum() + log_w.logsumexp(0) - math.log(chains)
    )
    stderr = (log_w - log_w.logsumexp(0)).exp().mul(chains).std() / chains**0.5
    assert abs(log_z.item() - exact) < FALSE_ALARM * stderr.item()
    _, back = backend.rbm_reverse_ais(v, weight, b, c, a, betas.flip(0))
    assert back.dtype == torch.float64
    assert abs(back.mean().item() + log_w.mean().item()) < 1.5


def test_forward_and_reverse_bracket_by_enumeration_of_one_step():
    # E[w] = Z_1 / Z_0 exactly, by summing over every path of a two-temperature schedule.
    v, weight, b, c, a = random_rbm(3, 2, 8, dtype=torch.float64)
    v = states(3)
    betas = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
    start = torch.softmax(log_f(v, weight, b, c, a, 0.0), 0)
    _, one = reference.rbm_ais(v, weight, b, c, a, betas[:2])
    _, two = reference.rbm_ais(v, weight, b, c, a, betas[1:])
    mean = (start * one.exp()) @ transition(weight, b, c, a, 0.4) @ two.exp()
    log_z = [log_f(v, weight, b, c, a, beta).logsumexp(0) for beta in (0.0, 1.0)]
    assert mean.log().item() == pytest.approx((log_z[1] - log_z[0]).item(), rel=1e-12)


def test_small_steps_are_not_lost_in_float32(backend, device):
    # 50 increments of about 1e-6: a difference of two float32 softpluses would be all rounding.
    v, weight, b, c, _ = random_rbm(4, 30, 3, device=device(backend))
    b = b * 0 + 200.0  # the visible state is certain, so the path is known
    v, betas = torch.ones_like(v), 0.5 + torch.arange(51, dtype=torch.float64) * 2**-20
    _, log_w = backend.rbm_ais(v, weight, b, c, b, betas)
    wide = [t.double() for t in (v, weight, b, c, b)]
    exact = log_f(*wide, betas[-1].item()) - log_f(*wide, betas[0].item())
    torch.testing.assert_close(log_w, exact, rtol=0, atol=3e-6)


def test_gibbs_leaves_its_input_and_follows_the_seed(backend, device):
    v, weight, b, c, _ = random_rbm(6, 4, 500, device=device(backend))
    kept = v.clone()
    torch.manual_seed(5)
    first = backend.rbm_gibbs(v, weight.requires_grad_(), b, c, 2)
    torch.manual_seed(5)
    again = backend.rbm_gibbs(v, weight, b, c, 2)
    other = backend.rbm_gibbs(v, weight, b, c, 2)
    assert torch.equal(v, kept)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not first.requires_grad
    assert set(first.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(backend.rbm_gibbs(v, weight, b, c, 0), v)


def test_two_bfloat16_parts_keep_log_z_and_one_does_not(fused):
    _, weight, b, c, _ = random_rbm(12, 10, 1, scale=2.0)
    one, two, three = (fused.split(weight, parts).double().sum(0) for parts in (1, 2, 3))
    v, zero = states(12), torch.zeros(12, dtype=torch.float64)
    exact, rounded, kept = (
        log_f(v, w.double(), b.double(), c.double(), zero, 1.0).logsumexp(0).item() for w in (weight, one, two)
    )
    assert torch.equal(three, weight.double())
    assert abs(kept - exact) < 5e-5 < 1e-3 < abs(rounded - exact)


def test_triton_uniforms_resolve_more_than_their_sixteen_bits(fused):
    import triton
    import triton.language as tl

    @triton.jit
    def draw(out, seed, UNIFORM: tl.constexpr, ROWS: tl.constexpr, N: tl.constexpr):
        row = tl.arange(0, ROWS)
        u = UNIFORM(seed, row, 0, N // 8, 3, 1, N)
        tl.store(out + row[:, None] * N + tl.arange(0, N)[None, :], u)

    out = torch.empty(256, 256, device="cuda" if torch.cuda.is_available() else "cpu")
    draw[(1,)](out, 123456789012345, UNIFORM=fused._uniform, ROWS=256, N=256)
    assert out.min() > 0
    assert out.max() < 1
    assert kstest(out.flatten().cpu().numpy(), "uniform").pvalue > 1e-4
    # 2^16 draws of 23 bits collide about 256 times; of 16 bits, 24000 times.
    assert len(out.unique()) > 2**16 - 400
    correlation = torch.corrcoef(out.reshape(-1, 8).T.cpu()) - torch.eye(8)
    assert correlation.abs().max() < 5 / 2**6.5


@pytest.mark.parametrize("direction", [1, -1])
def test_bad_input_is_named(direction):
    v, weight, b, c, a = random_rbm(3, 2, 4)
    sweep = kernels.rbm_ais if direction > 0 else kernels.rbm_reverse_ais
    betas = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    with pytest.raises(ValueError, match="betas"):
        sweep(v, weight, b, c, a, betas.flip(0) if direction > 0 else betas)
    with pytest.raises(ValueError, match="visible_bias must be"):
        sweep(v, weight, c, c, a, betas)
    with pytest.raises(ValueError, match="steps"):
        kernels.rbm_gibbs(v, weight, b, c, -1)
