"""What goes on inside a trained joint: weights and their tails, what the bound lacks, idle units, noisy gradients."""

import copy
import math

import attrs
import torch
from torch import Tensor

from unibound.data.splits import spread
from unibound.errors import UsageError
from unibound.estimator import Estimator
from unibound.evaluation.composition import Composition
from unibound.joint import JointBound
from unibound.partition.log_z import HEAVY_TAIL
from unibound.tails import LEAST, pareto_tail_index
from unibound.weights import effective_sample_size, log_mean_exp

ACTIVE = 0.01
"""Variance over the data of a unit's posterior mean from which on it counts as active."""


@attrs.frozen
class Group:
    """The gradient of one parameter group, over repeated draws for one batch.

    Args:
        variance: of the gradient about its mean, summed over parameters.
        signal_to_noise: norm of the mean gradient over the root of that variance.
        parameters: how many there are.
    """

    variance: float
    signal_to_noise: float
    parameters: int


@attrs.frozen(eq=False)
class Diagnosis:
    """What was found, per datum where it says [N]; nats.

    Args:
        ess: effective sample sizes of the particles' weights [N], between 1 and K.
        tail: their Pareto tail indices [N]; NaN where K is too small.
        gap: mean of L_2K - L_K: about what the bound at 2K particles still lacks.
        gap_stderr: its standard error over the data.
        num_particles: particles 2K per datum.
        active: number of active units.
        units: number of units of tau.
        groups: noise of the gradient, by parameter group.
        composition: what the NLL is made of, where that was asked for.
    """

    ess: Tensor
    tail: Tensor
    gap: float
    gap_stderr: float
    num_particles: int
    active: int
    units: int
    groups: dict[str, Group]
    composition: Composition | None = None

    @property
    def heavy(self) -> float:
        """Share of the data whose weights have a tail too heavy for an estimate to be relied on."""
        known = self.tail[~self.tail.isnan()]
        return (known > HEAVY_TAIL).double().mean().item() if len(known) else math.nan


def diagnose(
    joint: JointBound,
    estimator: Estimator,
    x: Tensor,
    *,
    num_particles: int = 500,
    batch_size: int = 50,
    repeats: int = 30,
) -> Diagnosis:
    """Look into a joint.

    The tail index of the importance weights p*(x, tau) / q(tau | x) says whether their mean can be relied on
    at all; a unit is active if its posterior mean varies over the data; gradients are those of the estimator
    in training mode, for one batch, with the persistent chains as they stand.

    Args:
        joint: q and p; mode, chains and gradients are left as they are.
        estimator: whose gradient is looked at.
        x: data [N, *X].
        num_particles: particles per datum, at least 2.
        batch_size: data in the batch of the gradients.
        repeats: gradients, at least 2.
    Raises:
        UsageError: too few data, particles or repeats.
    Source: Vehtari et al., "Pareto smoothed importance sampling" (2024), https://arxiv.org/abs/1507.02646; active
    units: Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders" (2016),
    https://arxiv.org/abs/1509.00519; signal-to-noise: Rainforth et al., "Tighter variational bounds are not
    necessarily better" (2018), https://arxiv.org/abs/1802.04537
    """
    if len(x) < 2 or num_particles < 2 or repeats < 2:
        raise UsageError(
            f"diagnose needs 2 data, 2 particles and 2 gradients at least, not {len(x)}, {num_particles}, {repeats}"
        )
    joint.check(x)
    ess, tail, gap, means = [], [], [], []
    with torch.no_grad(), joint.evaluating():
        for batch in x.split(max(1, 50_000 // num_particles)):
            particles = joint.particles(batch, num_particles)
            log_w = particles.log_weights.double()  # [K, B]
            ess.append(effective_sample_size(log_w))
            tail.append(pareto_tail_index(log_w))
            halves = [log_w[: num_particles // 2], log_w[num_particles // 2 :]]
            gap.append(log_mean_exp(log_w) - torch.stack([log_mean_exp(half) for half in halves]).mean(0))
            means.append(particles.tau.double().mean(0).flatten(1))  # [B, Z]
        noise = _noise(joint, x, num_particles)
    gaps, mean = torch.cat(gap), torch.cat(means)
    return Diagnosis(
        ess=torch.cat(ess),
        tail=torch.cat(tail),
        gap=gaps.mean().item(),
        gap_stderr=gaps.std().item() / math.sqrt(len(gaps)),
        num_particles=num_particles,
        active=count_active(mean, noise),
        units=mean.shape[1],
        groups=gradient_noise(joint, estimator, spread(x, batch_size), repeats),
    )


def count_active(means: Tensor, noise: Tensor) -> int:
    """Number of active units: those whose posterior mean varies over the data.

    Args:
        means: of K draws of the latents of each datum [N, Z], at least 2 data.
        noise: what these vary by themselves, a K-th of the variance within a datum [Z]; that is not activity.
    """
    return int((means.var(0) - noise > ACTIVE).sum())


def gradient_noise(joint: JointBound, estimator: Estimator, x: Tensor, repeats: int) -> dict[str, Group]:
    """Variance and signal-to-noise ratio of the gradient, over repeated estimates for one batch, by parameter group.

    Every repetition is a training step but for the update: chains move, dropout drops. A group that gets no
    gradient is left out, and the joint is left as it was.

    Args:
        x: batch [B, *X].
        repeats: estimates R, at least 2.
    """
    joint = copy.deepcopy(joint).train()
    mean: dict[str, Tensor] = {}
    spread: dict[str, Tensor] = {}  # sums of squared deviations, by parameter
    for count in range(1, repeats + 1):
        if estimator.persistent:
            joint.advance()
        for group, gradient in _gradients(joint, estimator, x).items():
            before = mean.setdefault(group, torch.zeros_like(gradient))
            mean[group] = before + (gradient - before) / count
            spread[group] = spread.get(group, 0.0) + (gradient - before) * (gradient - mean[group])
    return {group: _group(mean[group], spread[group], repeats) for group in mean}


def resampling_noise(joint: JointBound, estimator: Estimator, x: Tensor, repeats: int) -> dict[str, float]:
    """What sending one particle per datum back for all adds to the variance of the gradient, by parameter group.

        E |g_i - g_j|^2 / 2,   i and j chosen from the same particles

    The rest of the variance is that of the estimator that sends all back, whose gradient is E[g_i given the particles].
    Empty for an estimator that chooses no particle; the joint is left as it was.

    Args:
        x: batch [B, *X].
        repeats: pairs of estimates, at least 1.
    """
    joint, total = copy.deepcopy(joint).train(), {}
    right, choices = joint.choose, 0

    def anew(log_w: Tensor, count: int = 1) -> Tensor:
        """Another choice; what is drawn after it stays as it was."""
        nonlocal choices
        right(log_w, count)
        choices += 1
        with torch.random.fork_rng():
            torch.manual_seed(choices)
            return right(log_w, count)

    for _ in range(repeats):
        if estimator.persistent:
            joint.advance()
        joint.choose = right
        with torch.random.fork_rng():
            first = _gradients(joint, estimator, x)
        joint.choose = anew
        second = _gradients(joint, estimator, x)
        if not choices:
            return {}
        for group, gradient in first.items():
            total[group] = total.get(group, 0.0) + (gradient - second[group]).square().sum().item() / (2 * repeats)
    return total


def _group(mean: Tensor, spread: Tensor, repeats: int) -> Group:
    variance = spread.sum().item() / (repeats - 1)
    # The mean of R draws has a squared norm too large by variance / R.
    signal = max(mean.square().sum().item() - variance / repeats, 0.0)
    return Group(variance, math.sqrt(signal / variance) if variance > 0 else math.inf, len(mean))


def _gradients(joint: JointBound, estimator: Estimator, x: Tensor) -> dict[str, Tensor]:
    """One estimate of the gradient of each group that gets one, flattened, in float64."""
    joint.zero_grad()
    estimator(joint, x).surrogate.mean().backward()
    found = {
        group: [parameter.grad.double().flatten() for parameter in module.parameters() if parameter.grad is not None]
        for group, module in joint.parts().items()
    }
    return {group: torch.cat(parts) for group, parts in found.items() if parts}


def _noise(joint: JointBound, x: Tensor, num_particles: int) -> Tensor:
    tau = joint.particles(spread(x, 100), min(num_particles, LEAST)).tau.double()  # [K, B, *Z]
    return tau.var(0).flatten(1).mean(0) / num_particles
