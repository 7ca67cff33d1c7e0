"""Diffusion in continuous time: reals that dissolve in noise, and a net that says what they were."""

import math
from itertools import pairwise
from typing import ClassVar, Literal

import attrs
import torch
from attrs.validators import deep_iterable, ge, min_len
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from unibound import Generation, Inference, JointBound, Likelihood, Model, Prior, UsageError, hookimpl
from unibound.draws import Drawn
from unibound.sequences.trajectory import even_times
from unibound.support import describe, real, require_within, same

WAVES = 6
"""Frequencies by which networks see how much noise there is."""


@attrs.frozen
class Schedule:
    """gamma(t), minus the logarithm of the signal to noise, from t = 0 to 1: z_t = alpha x + sigma noise.

        alpha^2 = sigmoid(-gamma),  sigma^2 = sigmoid(gamma)

    Args:
        first: gamma(0).
        last: gamma(1).
        shape: linear, or bent: slow at first, by 0.3 t + 0.7 t^3.
    """

    first: float
    last: float
    shape: Literal["linear", "bent"] = "linear"

    def gamma(self, t: Tensor) -> Tensor:
        """gamma(t) [...]."""
        return self.first + (self.last - self.first) * (t if self.shape == "linear" else 0.3 * t + 0.7 * t**3)

    def slope(self, t: Tensor) -> Tensor:
        """d gamma / dt [...]."""
        return (self.last - self.first) * (torch.ones_like(t) if self.shape == "linear" else 0.3 + 2.1 * t**2)

    def noisy(self, x: Tensor, t: Tensor) -> Distribution:
        """q(z_t | x) of vectors x [..., D] and t [...]."""
        alpha, sigma = self.scales(t)
        return _normal(alpha * x, sigma)

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma [..., 1]."""
        gamma = self.gamma(t).unsqueeze(-1)
        return (-gamma).sigmoid().sqrt(), gamma.sigmoid().sqrt()


def _normal(mean: Tensor, scale: Tensor) -> Distribution:
    return Independent(Normal(mean, scale.expand_as(mean), validate_args=False), 1, validate_args=False)


class Moment(Drawn):
    """A time t in [0, 1), z_t, z_0 and z_1 given x: [..., 1 + 3 D]. Times are spread evenly over all draws."""

    partial: ClassVar[bool] = True
    has_rsample = True  # of nothing that has parameters

    def __init__(self, x: Tensor, schedule: Schedule) -> None:
        self.x, self.schedule = x, schedule
        super().__init__(x.shape[:-1], torch.Size([1 + 3 * x.shape[-1]]), validate_args=False)

    def draw(self, count: int, *, reparameterized: bool) -> tuple[Tensor, Tensor]:
        shape = torch.Size([count, *self.batch_shape])
        with torch.no_grad():
            t, x = even_times(shape, self.x), self.x.expand(*shape, -1)
            points = [self.schedule.noisy(x, time).sample() for time in (t, torch.zeros_like(t), torch.ones_like(t))]
            tau = torch.cat([t.unsqueeze(-1), *points], -1)
        return tau, tau.new_zeros(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """0: what there is to weigh is in p."""
        return value.new_zeros(value.shape[:-1])


class MomentInference(Inference):
    """q of a trajectory in continuous time, one moment of it at a time."""

    center: Tensor

    def __init__(self, schedule: Schedule, center: Tensor) -> None:
        super().__init__()
        self.schedule = schedule
        self.register_buffer("center", center.clone())

    def forward(self, x: Tensor) -> Distribution:
        return Moment((x - self.center).flatten(-self.center.dim()), self.schedule)


class Denoiser(nn.Module):
    """What x is taken to be, given z_t: alpha z plus sigma times what a network says."""

    def __init__(self, schedule: Schedule, size: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.schedule = schedule
        widths = [size + 2 * WAVES, *hidden]
        pairs = [(nn.Linear(fan_in, fan_out), nn.SiLU()) for fan_in, fan_out in pairwise(widths)]
        self.network = nn.Sequential(*(module for pair in pairs for module in pair), nn.Linear(widths[-1], size))

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """Map z_t [..., D] and t [...] to x [..., D]."""
        alpha, sigma = self.schedule.scales(t)
        gamma = self.schedule.gamma(t).unsqueeze(-1)
        phase = gamma * 2.0 ** torch.arange(WAVES, device=z.device) / 8
        return alpha * z + sigma * self.network(torch.cat([z, phase.sin(), phase.cos()], -1))


class MomentGeneration(Generation):
    """p of a trajectory, one moment at a time: its log_joint is an unbiased estimate of the bound.

        log p(z_1) - log q(z_1 | x) + log p(x | z_0) - loss_t(z_t),  p(x | z_0) = N(z_0, sigma_0^2) / alpha_0

    loss_t is half of d gamma / dt times the signal to noise times |x - x(z_t)|^2, and in T steps that of the step.

    Args:
        prior: p(z_1), of event shape [D].
        denoiser: maps z_t [..., D] and t [...] to what x is taken to be.
        schedule: of the noise.
        center: what is taken off the data [*X].
        steps: T of the bound; 0 for its limit as they grow.
        sample_steps: of a dream.
    """

    center: Tensor

    def __init__(
        self, prior: Prior, denoiser: nn.Module, schedule: Schedule, center: Tensor, steps: int, sample_steps: int
    ) -> None:
        super().__init__()
        self.prior, self.denoiser, self.schedule = prior, denoiser, schedule
        self.steps, self.sample_steps = steps, sample_steps
        self.register_buffer("center", center.clone())

    @property
    def unnormalized(self) -> Prior | None:
        return self.prior if self.prior.log_z is None else None

    def state(self, x: Tensor, tau: Tensor) -> Tensor:
        del x
        return tau[..., 1 + 2 * self.center.numel() :]

    def flat(self, x: Tensor) -> Tensor:
        """Data [..., *X], centered, as vectors [..., D]."""
        return (x - self.center).flatten(-self.center.dim())

    def log_joint(self, x: Tensor, tau: Tensor) -> Tensor:
        t, z, first, last = tau.split([1, *[self.center.numel()] * 3], -1)
        t, flat = t.squeeze(-1), self.flat(x)
        end = self.prior.log_prob(last) - self.schedule.noisy(flat, torch.ones_like(t)).log_prob(last)
        return end + self.likelihood(first).log_prob(flat) - self.loss(flat, z, t)

    def likelihood(self, first: Tensor) -> Distribution:
        """p(x | z_0) of centered vectors."""
        alpha, sigma = self.schedule.scales(first.new_zeros(first.shape[:-1]))
        return _normal(first / alpha, sigma / alpha)

    def loss(self, x: Tensor, z: Tensor, t: Tensor) -> Tensor:
        """loss_t(z_t) of centered vectors x [..., D]; its mean over t, or over steps, is the diffusion loss: [...]."""
        t = self.upper(t)
        rate = self.schedule.slope(t)
        if self.steps > 0:  # the difference of two ratios, where their own difference would cancel
            fall = self.schedule.gamma(t) - self.schedule.gamma(t - 1 / self.steps)
            rate = self.steps * torch.expm1(fall)
        ratio = (-self.schedule.gamma(t)).exp()
        return rate * ratio * (x - self.denoiser(z, t)).square().sum(-1) / 2

    def upper(self, t: Tensor) -> Tensor:
        """The end of the step that t is in, in T steps; t itself in continuous time."""
        return (torch.floor(t * self.steps) + 1).clamp(max=self.steps) / self.steps if self.steps else t

    def back(self, z: Tensor, t: Tensor, s: Tensor) -> Distribution:
        """p(z_s | z_t) for s < t, [...] each: that of q where x is what the denoiser takes it to be."""
        (alpha_s, sigma_s), (alpha_t, _) = self.schedule.scales(s), self.schedule.scales(t)
        share = -torch.expm1(self.schedule.gamma(s) - self.schedule.gamma(t)).unsqueeze(-1)
        mean = alpha_s * ((1 - share) * z / alpha_t + share * self.denoiser(z, t))
        return _normal(mean, sigma_s * share.sqrt())

    @torch.no_grad()
    def dream(self, count: int, *, persistent: bool = False) -> tuple[Tensor, Tensor]:
        last = self.prior.persistent(count) if persistent else self.prior.sample(count)
        path = self.retrace(last, self.sample_steps)
        x = self.likelihood(path[-1]).sample().view(count, *self.center.shape) + self.center
        index = torch.randint(len(path), (count,), device=last.device)
        t, z = 1 - index.to(last) / self.sample_steps, path[index, torch.arange(count, device=last.device)]
        return x, torch.cat([t.unsqueeze(-1), z, path[-1], last], -1)

    def retrace(self, last: Tensor, steps: int) -> Tensor:
        """Go back from z_1 [N, D] in some steps: z_1, ..., z_0 [S + 1, N, D]."""
        path, times = [last], torch.linspace(1, 0, steps + 1).to(last)
        for t, s in pairwise(times.unsqueeze(1).expand(-1, len(last))):
            path.append(self.back(path[-1], t, s).sample())
        return torch.stack(path)

    @torch.no_grad()
    def stages(self, count: int, steps: int | None = None) -> Tensor:
        if steps is not None and steps < 1:
            raise UsageError(f"a trajectory is gone back in at least one step, not {steps}")
        path = self.retrace(self.prior.sample(count), self.sample_steps if steps is None else steps)
        whole = torch.cat([path, self.likelihood(path[-1:]).sample()])
        return whole.view(len(whole), count, *self.center.shape) + self.center

    def parts(self) -> dict[str, nn.Module]:
        return {"generator": self.denoiser, "prior": self.prior}

    def advance(self) -> None:
        self.prior.advance()

    def bind(self, q: Inference, x: Tensor) -> None:
        self.prior.bind(q, x)


@attrs.frozen
class VDM(Model):
    """Reals that dissolve in normal noise from t = 0 to 1, and p that says at each t what they were.

        -log p(x) <= KL(q(z_1 | x) || p(z_1)) + E[-log p(x | z_0)] + 1/2 int gamma'(t) snr(t) E|x - x(z_t; t)|^2 dt

    A draw is a single moment, and its weight one term of the bound: only means of weights mean anything, and `sgvb`
    takes them. The limit does not depend on how gamma goes from its first to its last value; its variance does. p(x |
    z_0) is a density: levels under it have bits per dimension of a density, and no likelihood plays a part.

    Args:
        first: gamma(0), minus the log of the signal to noise; the scale of the last noise is about exp(gamma / 2).
        last: gamma(1).
        schedule: how gamma goes from one to the other: linear, or bent.
        steps: T of the bound in discrete time; 0 for continuous time.
        sample_steps: steps by which data are dreamed.
        hidden: widths of the network's hidden layers.

    Source: Kingma, Salimans, Poole and Ho, "Variational diffusion models" (2021), https://arxiv.org/abs/2107.00630
    """

    first: float = -6.0
    last: float = 5.0
    schedule: Literal["linear", "bent"] = "linear"
    steps: int = attrs.field(default=0, validator=ge(0))
    sample_steps: int = attrs.field(default=100, validator=ge(1))
    hidden: tuple[int, ...] = attrs.field(default=(128, 128), validator=[min_len(1), deep_iterable(ge(1))])

    def __attrs_post_init__(self) -> None:
        if self.last < 3:
            raise UsageError(
                f"vdm: the schedule does not end in noise, but with {math.exp(-self.last):.2g} times as much signal; "
                "let last be at least 3"
            )
        if self.first >= 0:
            raise UsageError(f"vdm: the schedule begins in noise, at first = {self.first:g}; let it be below 0")

    def prior_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (math.prod(x_shape),)

    def assemble(self, prior: Prior, likelihood: Likelihood, posterior: Likelihood, x_mean: Tensor) -> JointBound:
        require_within(
            real, "the end of vdm", prior.support, "the prior is", "use a prior over reals, such as gaussian"
        )
        if not same(likelihood.support, real):
            raise UsageError(
                f"vdm is of reals, but the likelihood is over {describe(likelihood.support)}; use gaussian, or model "
                "diffusion for bits"
            )
        schedule = Schedule(self.first, self.last, self.schedule)
        denoiser = Denoiser(schedule, x_mean.numel(), self.hidden)
        p = MomentGeneration(prior, denoiser, schedule, x_mean, self.steps, self.sample_steps)
        return JointBound(MomentInference(schedule, x_mean), p)


@hookimpl
def register_models(register):
    register("vdm", VDM)
