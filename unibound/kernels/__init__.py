"""The few loops where time goes, one name each; this page says what they compute, `choice` who computes it.

`reference` is plain torch and the definition. `fused` holds Triton twins for CUDA tensors, `compiled` numba twins of
what concerns an RBM for CPU tensors, by the products of `lookup`; both are optional and imported when first needed.
The environment variable `UNIBOUND_KERNELS` set to `reference`, `fused` or `compiled` forces one of them.

The RBM here has energy E(v, h) = -v'Wh - b'v - c'h with weight W [V, H], visible_bias b [V] and hidden_bias c
[H]. Its tempered family runs from independent visible bits with base_bias a [V] at beta = 0 to the RBM at
beta = 1:

    log f_beta(v) = (1 - beta) a'v + beta b'v + sum_j softplus(beta (c_j + (v'W)_j))
    T_beta:  h_j ~ sigmoid(beta (c + v'W)_j),  then  v_i ~ sigmoid((1 - beta) a_i + beta (b + W h)_i)

T_beta leaves f_beta invariant. States are tensors of zeros and ones in the dtype of the weight; nothing a sweep
returns carries a gradient. All draws follow `torch.manual_seed`; equal seeds give equal draws on one backend, not
across backends.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from unibound.kernels.choice import SWEEPS, backend

__all__ = [
    "bernoulli_log_prob",
    "leave_one_out",
    "rbm_ais",
    "rbm_contrast",
    "rbm_free_energy",
    "rbm_gibbs",
    "rbm_reverse_ais",
]


def rbm_gibbs(
    v: Tensor,
    weight: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    steps: int,
    *,
    beta: float = 1.0,
    base_bias: Tensor | None = None,
) -> Tensor:
    """Advance M chains by `steps` block Gibbs steps T_beta of a (tempered) RBM.

    Args:
        v: [M, V] states; not modified.
        weight: [V, H].
        visible_bias: [V].
        hidden_bias: [H].
        steps: block Gibbs steps, at least 0.
        beta: inverse temperature; 1 is the RBM itself.
        base_bias: [V] biases at beta = 0, in logits; zeros if omitted. They do not matter at beta = 1.

    Returns:
        [M, V] new states of zeros and ones.

    Raises:
        ValueError: `steps` is negative or the shapes do not fit.

    Source:
        Geoffrey Hinton, 2002, Training Products of Experts by Minimizing Contrastive Divergence,
        https://www.cs.toronto.edu/~hinton/absps/tr00-004.pdf
    """
    _check_rbm(v, weight, visible_bias, hidden_bias, base_bias)
    _check_steps(steps)
    twin = backend("rbm_gibbs", weight)
    return twin.rbm_gibbs(v, weight, visible_bias, hidden_bias, steps, beta=beta, base_bias=base_bias)


def rbm_free_energy(
    v: Tensor,
    weight: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    *,
    beta: float = 1.0,
    base_bias: Tensor | None = None,
) -> Tensor:
    """Free energy -log f_beta(v) of states of a (tempered) RBM, the hidden units summed out.

    The gradient at beta = 1 is -v h' in the weight, -v and -h in the biases, where h = sigmoid(c + v'W). `compiled`
    gives it once; for a second derivative use float64.

    Args:
        v: [..., V] states, zeros and ones or relaxed; the rest as in `rbm_gibbs`.

    Returns:
        [...] nats, with gradients.

    Raises:
        ValueError: the shapes do not fit.

    Source:
        Geoffrey Hinton, 2010, A Practical Guide to Training Restricted Boltzmann Machines, section 16.1,
        https://www.cs.toronto.edu/~hinton/absps/guideTR.pdf
    """
    _check_rbm(v, weight, visible_bias, hidden_bias, base_bias)
    twin = backend("rbm_free_energy", weight)
    return twin.rbm_free_energy(v, weight, visible_bias, hidden_bias, beta=beta, base_bias=base_bias)


def rbm_contrast(
    v: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Free energies of states and of where `steps` Gibbs steps take them, whose difference CD-k descends.

    As `rbm_free_energy` of both, but what the first step needs of the states is found once for both.

    Args:
        v: [M, V] states of zeros and ones; the rest as in `rbm_gibbs`.

    Returns:
        [M] of the states and [M] of the ends of their chains, which are detached; nats, with gradients.

    Raises:
        ValueError: `steps` is negative or the shapes do not fit.

    Source:
        As `rbm_gibbs`.
    """
    _check_rbm(v, weight, visible_bias, hidden_bias, None)
    _check_steps(steps)
    return backend("rbm_contrast", weight).rbm_contrast(v, weight, visible_bias, hidden_bias, steps)


def rbm_ais(
    v: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, base_bias: Tensor, betas: Tensor
) -> tuple[Tensor, Tensor]:
    """Anneal M chains upward and collect the log importance weights of their paths.

    For each successive pair of temperatures the weight is taken at the present state, and then the chain
    moves:

        log_w += log f_{beta_k}(v) - log f_{beta_{k-1}}(v),   v ~ T_{beta_k}

    The move at the last temperature is made too, so a long schedule may be run in blocks: pass the returned v
    on, begin the next block at the temperature where this one ended, and add the log-weights. Over a schedule
    from 0 to 1 begun at exact draws from f_0, E[exp(log_w)] = Z_1 / Z_0 with log Z_0 = H log 2 + sum_i
    softplus(a_i).

    Args:
        v: [M, V] states, distributed as f at betas[0] if the weights are to mean anything; not modified.
        weight: [V, H].
        visible_bias: [V].
        hidden_bias: [H].
        base_bias: [V] biases at beta = 0, in logits.
        betas: [T + 1] float64, not decreasing; need not begin at 0 nor end at 1.

    Returns:
        v [M, V] after the last move, and log_w [M] in nats, float64.

    Raises:
        ValueError: the temperatures decrease somewhere, or the shapes do not fit.

    Source:
        Radford Neal, 2001, Annealed Importance Sampling, https://arxiv.org/abs/physics/9803008;
        Ruslan Salakhutdinov and Iain Murray, 2008, On the Quantitative Analysis of Deep Belief Networks,
        https://www.cs.toronto.edu/~rsalakhu/papers/dbn_ais.pdf
    """
    _check_rbm(v, weight, visible_bias, hidden_bias, base_bias)
    if (betas.diff() < 0).any():
        raise ValueError("rbm_ais anneals upward, but betas decreases somewhere; rbm_reverse_ais goes down")
    return backend("rbm_ais", weight).rbm_ais(v, weight, visible_bias, hidden_bias, base_bias, betas)


def rbm_reverse_ais(
    v: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, base_bias: Tensor, betas: Tensor
) -> tuple[Tensor, Tensor]:
    """Anneal M chains downward and collect the log-weights of the reversed paths.

    For each successive pair (beta_k, beta_{k-1}) the chain moves at the higher temperature, and the weight
    follows:

        v ~ T_{beta_k},   log_w += log f_{beta_{k-1}}(v) - log f_{beta_k}(v)

    Begun at a test state v_K this is RAISE: log f_1(v_K) - log Z_0 + log_w is the log of an unbiased estimate
    of the probability of v_K under the annealing model (not under the RBM). Begun at exact samples of the RBM
    it is the reverse half of a BDMC sandwich: E[exp(log_w)] = Z_0 / Z_1. Blocks of a long schedule chain as
    in `rbm_ais`.

    Args:
        v: [M, V] states at betas[0]; not modified.
        weight: [V, H].
        visible_bias: [V].
        hidden_bias: [H].
        base_bias: [V] biases at beta = 0, in logits.
        betas: [T + 1] float64, not increasing.

    Returns:
        v [M, V] after the last move, and log_w [M] in nats, float64.

    Raises:
        ValueError: the temperatures increase somewhere, or the shapes do not fit.

    Source:
        Yuri Burda, Roger Grosse and Ruslan Salakhutdinov, 2015, Accurate and Conservative Estimates of MRF
        Log-likelihood using Reverse Annealing, https://arxiv.org/abs/1412.8566; Roger Grosse, Zoubin
        Ghahramani and Ryan Adams, 2015, Sandwiching the Marginal Likelihood Using Bidirectional Monte Carlo,
        https://arxiv.org/abs/1511.02543
    """
    _check_rbm(v, weight, visible_bias, hidden_bias, base_bias)
    if (betas.diff() > 0).any():
        raise ValueError("rbm_reverse_ais anneals downward, but betas increases somewhere; rbm_ais goes up")
    return backend("rbm_reverse_ais", weight).rbm_reverse_ais(v, weight, visible_bias, hidden_bias, base_bias, betas)


def leave_one_out(log_w: Tensor) -> Tensor:
    """The K-sample bound with each particle's weight replaced by what the others would have guessed.

        L_{-i} = logsumexp_j(log_w_j, but g_i at j = i) - log K,   g_i = mean of log_w_j over j != i

    g_i is the log of the geometric mean of the other weights. L_{-i} does not depend on particle i, hence is
    an unbiased baseline for it. Memory is linear in K; log-weights of any finite size are safe.

    Args:
        log_w: [K, B] log-weights in nats, K >= 2.

    Returns:
        [K, B] nats, detached.

    Raises:
        ValueError: K < 2, where there are no others.

    Source:
        Andriy Mnih and Danilo Rezende, 2016, Variational Inference for Monte Carlo Objectives,
        https://arxiv.org/abs/1602.06725
    """
    if log_w.dim() < 1 or len(log_w) < 2:
        raise ValueError(
            f"leave_one_out needs at least 2 particles on the first axis, but log_w has shape {tuple(log_w.shape)};"
            " with one particle use a learned baseline (nvil)"
        )
    return backend("leave_one_out", log_w).leave_one_out(log_w)


def bernoulli_log_prob(logits: Tensor, bits: Tensor) -> Tensor:
    """Log-probability of D independent bits under their logits, summed over the last axis.

        sum_d bits_d logits_d - softplus(logits_d)

    The two shapes broadcast against each other, and no [K, B, D] intermediate is made where one of them is
    [B, D]: K particles per datum scored by one set of logits cost one softplus per datum. Gradients flow to
    `logits`, and to `bits` where these are relaxed and ask for one.

    Args:
        logits: [..., D] log-odds.
        bits: [..., D] zeros and ones (or relaxed), any dtype.

    Returns:
        [...] nats, the broadcast shape less its last axis.

    Raises:
        ValueError: the last axes differ.

    Source:
        Christopher Bishop, 2006, Pattern Recognition and Machine Learning, section 4.3.2 (sigmoid
        cross-entropy), in the form that does not overflow,
        https://www.microsoft.com/en-us/research/publication/pattern-recognition-machine-learning/
    """
    if logits.shape[-1:] != bits.shape[-1:]:
        raise ValueError(
            f"logits and bits must agree on their last axis, but are {tuple(logits.shape)} and {tuple(bits.shape)}"
        )
    return backend("bernoulli_log_prob", logits).bernoulli_log_prob(logits, bits)


@cache
def leave_untraced() -> None:
    """Let torch.compile call the sweeps, rather than unroll what they loop over."""
    for name in SWEEPS:
        globals()[name] = torch.compiler.disable(globals()[name])


def _check_steps(steps: int) -> None:
    if steps < 0:
        raise ValueError(f"steps counts Gibbs steps and cannot be negative, but is {steps}")


def _check_rbm(v: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, base_bias: Tensor | None) -> None:
    visible, hidden = weight.shape
    expected = {
        "v": (*v.shape[:-1], visible),
        "visible_bias": (visible,),
        "hidden_bias": (hidden,),
        "base_bias": (visible,),
    }
    given = {"v": v, "visible_bias": visible_bias, "hidden_bias": hidden_bias, "base_bias": base_bias}
    for name, tensor in given.items():
        if tensor is not None and tuple(tensor.shape) != expected[name]:
            raise ValueError(
                f"{name} must be {expected[name]} for a weight of {visible} x {hidden}, but is {tuple(tensor.shape)}"
            )
