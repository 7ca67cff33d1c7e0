"""NVIL: the evidence lower bound for latents that cannot be reparameterized, with a learned baseline."""

from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn

from unibound import Estimate, Estimator, JointBound, UsageError, hookimpl


class Baseline(nn.Module):
    """What log w is expected to be before anything is drawn: b(x) = mean + scale * network(x).

    Mean and scale run over previous batches, so that neither depends on the draws they judge.

    Args:
        num_inputs: elements of a datum.
        hidden: width of the network's one hidden layer.
        decay: what a batch leaves of the running mean and variance.
    """

    mean: Tensor
    variance: Tensor
    num_batches: Tensor

    def __init__(self, num_inputs: int, hidden: int, decay: float) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(num_inputs, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.decay = decay
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("variance", torch.ones(()))
        self.register_buffer("num_batches", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor, log_w: Tensor) -> Tensor:
        """How much log_w [K, B] exceeds b(x), in units of the running scale [K, B]."""
        # Never below 1, as in the paper: small signals mean that q is nearly right, and stay small.
        scale = self.variance.sqrt().clamp(min=1.0)
        return (log_w - self.mean) / scale - self.network(x.flatten(1)).squeeze(-1)

    @torch.no_grad()
    def update(self, log_w: Tensor) -> None:
        """Let the running mean and variance see log_w [K, B]; after it was judged."""
        rate = (1 / (self.num_batches + 1.0)).clamp(min=1 - self.decay).to(log_w.dtype)
        deviation = log_w - self.mean  # from the old mean: a mean that moves counts as variance
        self.mean += rate * deviation.mean()
        self.variance += rate * (deviation.square().mean() - self.variance)
        self.num_batches += 1


@attrs.frozen
class NVIL(Estimator):
    """Evidence lower bound with a score-function gradient and a baseline that knows the datum.

        q:  E_q[(log w - b(x)) grad log q(tau | x)] / c,   generator and prior:  E_q[grad log p(x, tau)]

    Both are unbiased for the ELBO: b depends on the datum alone and is fitted to log w by least squares,
    and c = max(1, running standard deviation) is known from previous batches. So c changes the length of
    q's step and not its expected direction; it is 1 in the first batch. The log Z of an unnormalized prior
    shifts log w, and the baseline takes it up.

    Args:
        num_particles: draws per datum, averaged; they lower the variance and leave the bound as it is.
        hidden: width of the baseline's hidden layer.
        decay: what each batch leaves of the running mean and variance of log w.

    Source: Mnih and Gregor, "Neural variational inference and learning in belief networks" (2014),
    https://arxiv.org/abs/1402.0030
    """

    needs: ClassVar[str] = "any q that can be sampled and scored; any p"

    num_particles: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    hidden: int = attrs.field(default=100, validator=attrs.validators.ge(1))
    decay: float = attrs.field(default=0.9, validator=[attrs.validators.ge(0.0), attrs.validators.lt(1.0)])

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        baseline = joint.auxiliary
        if not isinstance(baseline, Baseline):
            raise UsageError(
                "nvil needs its baseline: set joint.auxiliary = estimator.auxiliary(x) before the first step"
            )
        particles = joint.particles(x, self.num_particles, whole=False)
        log_w = particles.log_weights.detach()  # [K, B]
        surprise = baseline(x, log_w)  # [K, B]
        if baseline.training:
            baseline.update(log_w)
        ascent = particles.log_p + surprise.detach() * particles.log_q
        surrogate = (surprise.square() / 2 - ascent).mean(0)  # [B]
        return Estimate(surrogate, log_w.mean(0), log_w, side="lower")

    def auxiliary(self, x: Tensor) -> Baseline:
        return Baseline(x[0].numel(), self.hidden, self.decay)


@hookimpl
def register_estimators(register):
    register("nvil", NVIL)
