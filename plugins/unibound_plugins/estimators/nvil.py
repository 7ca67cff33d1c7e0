"""NVIL: the evidence lower bound for latents that cannot be reparameterized, with a learned baseline."""

from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn

from unibound import Estimate, Estimator, JointBound, Layered, Particles, UsageError, hookimpl
from unibound.draws import Chain


class Baseline(nn.Module):
    """What a signal is expected to be before what it judges is drawn: b(x) = mean + scale * network(x).

    Mean and scale run over previous batches, so that neither depends on the draws they judge.

    Args:
        num_inputs: elements of a datum, or of the layer below.
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

    @property
    def scale(self) -> Tensor:
        """The running standard deviation: never below 1, as in the paper, so that small signals stay small."""
        return self.variance.sqrt().clamp(min=1.0)

    def forward(self, x: Tensor, signal: Tensor, scale: Tensor | None = None) -> Tensor:
        """How much a signal [K, B] exceeds b(x), in units of a scale, by default its own [K, B]; x is [..., B, D]."""
        return (signal - self.mean) / (self.scale if scale is None else scale) - self.network(x).squeeze(-1)

    @torch.no_grad()
    def update(self, signal: Tensor) -> None:
        """Let the running mean and variance see a signal [K, B]; after it was judged."""
        rate = (1 / (self.num_batches + 1.0)).clamp(min=1 - self.decay).to(signal.dtype)
        deviation = signal - self.mean  # from the old mean: a mean that moves counts as variance
        self.mean += rate * deviation.mean()
        self.variance += rate * (deviation.square().mean() - self.variance)
        self.num_batches += 1


def sizes_upward(joint: JointBound, x: Tensor) -> list[int] | None:
    """Sizes of the layers that q draws one upon the other and p one below the other; None where they do not."""
    posterior, p = joint.q(x), joint.p
    same = isinstance(p, Layered) and isinstance(posterior, Chain) and posterior.sizes == p.sizes
    return posterior.sizes if same and not posterior.downward else None


def signals_by_layer(particles: Particles) -> tuple[Tensor, Tensor]:
    """The signal of each layer, and log q of it: [L, K, B] twice, nats.

    It leaves out what is known before the layer is drawn; that of the lowest lacks nothing, and is log w.
    """
    assert particles.layers is not None
    log_p, log_q = particles.layers.log_p, particles.layers.log_q  # [L + 1, K, B], [L, K, B]
    from_here_up = (log_p[1:] - log_q).flip(0).cumsum(0).flip(0)
    return log_p[:-1] + from_here_up, log_q


@attrs.frozen
class NVIL(Estimator):
    """Evidence lower bound with a score-function gradient and a baseline that knows the datum.

        q:  E_q[(log w - b(x)) grad log q(tau | x)] / c,   generator and prior:  E_q[grad log p(x, tau)]

    Both are unbiased for the ELBO: b depends on the datum alone and is fitted to log w by least squares,
    and c = max(1, running standard deviation) is known from previous batches. So c changes the length of
    q's step and not its expected direction; it is 1 in the first batch. The log Z of an unnormalized prior
    shifts log w, and the baseline takes it up.

    With `local` every layer of q has a signal of its own, and a baseline that sees the layer below. For

        log w = log p(x | tau_1) + sum_l [log p(tau_l | tau_{l+1}) - log q(tau_l | tau_{l-1})],   x = tau_0

    that of layer l begins at log p(tau_{l-1} | tau_l). What is left out does not depend on tau_l given tau_{l-1}, so
    that its product with the score has mean zero, and the gradient stays unbiased; c is that of log w, for all layers.

    Args:
        num_particles: draws per datum, averaged; they lower the variance and leave the bound as it is.
        hidden: width of the hidden layer of a baseline.
        decay: what each batch leaves of the running mean and variance of log w.
        local: judge each layer by the terms that it has a say in; for layers that q draws upwards.

    Source: Mnih and Gregor, "Neural variational inference and learning in belief networks" (2014),
    https://arxiv.org/abs/1402.0030, which has the local signals, too
    """

    needs: ClassVar[str] = "any q that can be sampled and scored; any p"

    num_particles: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    hidden: int = attrs.field(default=100, validator=attrs.validators.ge(1))
    decay: float = attrs.field(default=0.9, validator=[attrs.validators.ge(0.0), attrs.validators.lt(1.0)])
    local: bool = False

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        particles = joint.particles(x, self.num_particles, whole=False, by_layer=self.local)
        log_w = particles.log_weights.detach()  # [K, B]
        if self.local:
            assert isinstance(particles.posterior, Chain)
            signals, log_q = signals_by_layer(particles)
            known = [x.flatten(1), *particles.tau.split(particles.posterior.sizes, -1)[:-1]]
        else:
            signals, log_q, known = log_w.unsqueeze(0), particles.log_q.unsqueeze(0), [x.flatten(1)]
        baselines = self._baselines(joint, len(known))
        scale, surrogate = baselines[0].scale, -particles.log_p
        for baseline, below, signal, log_layer in zip(baselines, known, signals.detach(), log_q, strict=True):
            surprise = baseline(below, signal, scale)  # [K, B]
            surrogate = surrogate + surprise.square() / 2 - surprise.detach() * log_layer
        for baseline, signal in zip(baselines, signals.detach(), strict=True):
            if baseline.training:
                baseline.update(signal)
        return Estimate(surrogate.mean(0), log_w.mean(0), log_w, side="lower")

    def _baselines(self, joint: JointBound, count: int) -> list[Baseline]:
        modules = joint.auxiliary.children() if isinstance(joint.auxiliary, nn.ModuleList) else [joint.auxiliary]
        found = [each for each in modules if isinstance(each, Baseline)]
        if len(found) != count:
            raise UsageError(
                "nvil needs its baseline: set joint.auxiliary = estimator.auxiliary(joint, x) before the first step"
            )
        return found

    def check(self, joint: JointBound, x: Tensor) -> None:
        if self.local and sizes_upward(joint, x) is None:
            raise UsageError(
                "nvil's local signals need layers that q draws upwards and p downwards; "
                "leave local out, or use model sbn, or ladder with reading upwards"
            )

    def auxiliary(self, joint: JointBound, x: Tensor) -> nn.Module:
        first = Baseline(x[0].numel(), self.hidden, self.decay)
        if not self.local:
            return first
        below = (sizes_upward(joint, x) or [])[:-1]
        return nn.ModuleList([first, *(Baseline(size, self.hidden, self.decay) for size in below)])


@hookimpl
def register_estimators(register):
    register("nvil", NVIL)
