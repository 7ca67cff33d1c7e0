"""The networks of the worlds, as small as they can be without a symmetry."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from unibound.distributions import Bits
from unibound.distributions.discrete import Spins
from unibound.draws import Drawn, draw
from unibound.networks import Generator, Inference
from unibound.sequences.recurrent import Follower, Recurrence
from unibound.support import Constraint, of


class Perceptron(nn.Sequential):
    """Two linear layers with a bend between them, so that no gradient is linear in a weight."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__(nn.Linear(fan_in, 4), nn.Tanh(), nn.Linear(4, fan_out))


class BitInference(Inference):
    """q(tau | x) over independent bits."""

    def __init__(self, x_size: int, tau_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network = Perceptron(x_size, math.prod(tau_shape))
        self.tau_shape = tau_shape

    def forward(self, x: Tensor) -> Distribution:
        return Bits(self.network(x).view(*x.shape[:-1], *self.tau_shape), len(self.tau_shape))


class AffineInference(Inference):
    """q(tau | x) over independent bits whose logits are affine in x."""

    def __init__(self, x_size: int, tau_size: int) -> None:
        super().__init__()
        self.network = nn.Linear(x_size, tau_size)

    def forward(self, x: Tensor) -> Distribution:
        return Bits(self.network(x))


class AffineGenerator(Generator):
    """p(x | tau) over independent bits whose logits are affine in tau."""

    def __init__(self, tau_size: int, x_size: int) -> None:
        super().__init__()
        self.network = nn.Linear(tau_size, x_size)

    def forward(self, tau: Tensor) -> Distribution:
        return Bits(self.network(tau))


class BitGenerator(Generator):
    """p(x | tau) over independent bits."""

    def __init__(self, tau_size: int, x_size: int) -> None:
        super().__init__()
        self.network = Perceptron(tau_size, x_size)

    def forward(self, tau: Tensor) -> Distribution:
        return Bits(self.network(tau))


class SpinInference(BitInference):
    """q(tau | x) over independent spins."""

    def forward(self, x: Tensor) -> Distribution:
        return Spins(self.network(x).view(*x.shape[:-1], *self.tau_shape), len(self.tau_shape))


class LinearInference(Inference):
    """q(tau | x) normal, its mean linear in x."""

    def __init__(self, x_size: int, tau_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.mean = nn.Linear(x_size, math.prod(tau_shape))
        self.log_scale = nn.Parameter(torch.zeros(tau_shape))

    def forward(self, x: Tensor) -> Distribution:
        mean = self.mean(x).view(*x.shape[:-1], *self.log_scale.shape)
        return Independent(Normal(mean, self.log_scale.exp().expand_as(mean)), self.log_scale.dim())


class LinearGenerator(Generator):
    """p(x | tau) normal, its mean linear in tau: with a normal prior, p(x) is known in closed form."""

    def __init__(self, tau_size: int, x_size: int) -> None:
        super().__init__()
        self.mean = nn.Linear(tau_size, x_size)
        self.log_scale = nn.Parameter(torch.zeros(x_size))

    def forward(self, tau: Tensor) -> Distribution:
        mean = self.mean(tau)
        return Independent(Normal(mean, self.log_scale.exp().expand_as(mean)), 1)


class Steps(Recurrence):
    """Two steps of a latent and a number each, normal, their means linear in the step before and bent once."""

    def __init__(self) -> None:
        super().__init__(2, 1, 1)
        self.priors, self.generator = nn.Linear(2, 1), nn.Linear(3, 1)
        self.log_scales = nn.Parameter(torch.zeros(2))

    def start(self, lead: torch.Size) -> Tensor:
        return self.log_scales.new_zeros(*lead, 2)

    def prior(self, state: Tensor, t: int) -> Distribution:
        return _normal(self.priors(state), self.log_scales[:1])

    def data(self, state: Tensor, z: Tensor, t: int) -> Distribution:
        return _normal(self.generator(torch.cat([state, z], -1)), self.log_scales[1:])

    def part(self, x: Tensor, t: int) -> Tensor:
        return x[..., t : t + 1]

    def join(self, parts: list[Tensor]) -> Tensor:
        return nn.functional.pad(torch.cat(parts, -1), (0, self.steps - len(parts)))

    def move(self, state: Tensor, z: Tensor, x: Tensor, t: int) -> Tensor:
        return torch.cat([z, self.part(x, t).expand_as(z)], -1).tanh()


class StepFollower(Follower):
    """q(z_t | x, z_<t) normal, its mean linear in the state and in all of x."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.log_scale = nn.Linear(4, 1), nn.Parameter(torch.zeros(1))

    def forward(self, state: Tensor, x: Tensor, memory: Tensor | None, t: int) -> Distribution:
        return _normal(self.mean(torch.cat([state, x.expand(*state.shape[:-1], -1)], -1)), self.log_scale)


def _normal(mean: Tensor, log_scale: Tensor) -> Distribution:
    return Independent(Normal(mean, log_scale.exp().expand_as(mean)), 1)


class Terms(Drawn):
    """Draws of another distribution, each said to stand for one random term of a tau too large to keep."""

    partial = True

    def __init__(self, base: Distribution) -> None:
        self.base, self.has_rsample = base, base.has_rsample
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> Constraint | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return of(self.base)

    @property
    def mean(self) -> Tensor:
        return self.base.mean

    @property
    def stddev(self) -> Tensor:
        return self.base.stddev

    def draw(self, count: int, *, reparameterized: bool) -> tuple[Tensor, Tensor]:
        return draw(self.base, count, reparameterized=reparameterized)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.base.log_prob(value)


class TermInference(Inference):
    """q(tau | x) of another network, term by term."""

    def __init__(self, whole: Inference) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, x: Tensor) -> Distribution:
        return Terms(self.whole(x))
