"""The variational recurrent net: a latent for each step of a sequence, p(z_t) and q(z_t) given all that came before."""

import math

import attrs
import torch
from attrs.validators import ge
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import pad

from unibound import JointBound, Likelihood, Model, Prior, UsageError, hookimpl
from unibound.sequences.recurrent import Follower, Recurrence, RecurrentGeneration, RecurrentInference


def network(fan_in: int, width: int, reads: Likelihood, shape: tuple[int, ...]) -> nn.Sequential:
    """One hidden layer, and outputs that a likelihood reads as events of a shape."""
    return nn.Sequential(nn.Linear(fan_in, width), nn.ELU(), nn.Linear(width, math.prod(reads.outputs(shape))))


def read(outputs: Tensor, reads: Likelihood, shape: tuple[int, ...]) -> Distribution:
    """Outputs [..., O] as a distribution of events of a shape."""
    return reads(outputs.view(*outputs.shape[:-1], *reads.outputs(shape)), shape)


class GRU(Recurrence):
    """The state is what a gated unit remembers of x_<t and z_<t. With flags, the first number of a step says whether it
    is there."""

    steady = True
    x_mean: Tensor

    def __init__(
        self, x_mean: Tensor, size: int, width: int, latents: Likelihood, likelihood: Likelihood, flags: bool
    ) -> None:
        super().__init__(len(x_mean), size, x_mean.dim())
        self.latents, self.likelihood, self.flags, self.shape = latents, likelihood, flags, tuple(x_mean.shape[1:])
        self.width, self.num_seen = width, x_mean[0].numel() - flags
        self.cell = nn.GRUCell(self.num_seen + size, width)
        self.priors = network(width, width, latents, (size,))
        self.generator = network(width + size, width, likelihood, (self.num_seen,))
        self.register_buffer("x_mean", x_mean.flatten(1)[:, int(flags) :].mean(0))

    def start(self, lead: torch.Size) -> Tensor:
        return self.x_mean.new_zeros(*lead, self.width)

    def prior(self, state: Tensor, t: int) -> Distribution:
        return read(self.priors(state), self.latents, (self.size,))

    def data(self, state: Tensor, z: Tensor, t: int) -> Distribution:
        return read(self.generator(torch.cat([state, z], -1)), self.likelihood, (self.num_seen,))

    def step(self, x: Tensor, t: int) -> Tensor:
        """Step t of a datum, with its flag if it has one [..., F]."""
        return x.select(-self.x_dims, t).flatten(-(self.x_dims - 1)) if self.x_dims > 1 else x[..., t : t + 1]

    def part(self, x: Tensor, t: int) -> Tensor:
        return self.step(x, t)[..., int(self.flags) :]

    def join(self, parts: list[Tensor]) -> Tensor:
        whole = pad(torch.stack(parts, -2), (int(self.flags), 0), value=1.0)  # dreams are of full length
        whole = pad(whole, (0, 0, 0, self.steps - len(parts)))
        return whole.view(*whole.shape[:-2], self.steps, *self.shape)

    def there(self, x: Tensor, t: int) -> Tensor | None:
        return self.step(x, t)[..., 0] if self.flags else None

    def move(self, state: Tensor, z: Tensor, x: Tensor, t: int) -> Tensor:
        seen = (self.part(x, t) - self.x_mean).expand(*z.shape[:-1], -1)
        inputs = torch.cat([seen, z], -1)
        return self.cell(inputs.flatten(0, -2), state.flatten(0, -2)).view(*inputs.shape[:-1], self.width)


class Encoder(Follower):
    """q(z_t | x_t, what came before)."""

    def __init__(self, p: GRU) -> None:
        super().__init__()
        self._p = (p,)  # in a tuple, so that its parameters are p's
        self.network = network(p.width + p.num_seen, p.width, p.latents, (p.size,))

    def forward(self, state: Tensor, x: Tensor, memory: Tensor | None, t: int) -> Distribution:
        (p,) = self._p
        seen = (p.part(x, t) - p.x_mean).expand(*state.shape[:-1], -1)
        return read(self.network(torch.cat([state, seen], -1)), p.latents, (p.size,))


@attrs.frozen
class VRNN(Model):
    """Sequences [T, *X] with a latent for every step; what is known of it before x_t is seen is learned.

        p(x, tau) = prod_t p(z_t | x_<t, z_<t) p(x_t | x_<t, z_<=t),   q(tau | x) = prod_t q(z_t | x_<=t, z_<t)

    A datum's first dimension is time; rows of a picture will do. There is no p(tau) apart from x, so of the prior it
    counts only what it is over: latents are read by the posterior's likelihood on both sides.

    Args:
        num_latents: elements of z_t.
        width: of the state, and of the hidden layers.
        flags: take the first number of each step for a flag: 1 where the step is there, 0 where it is padding, which
            then counts for nothing; how long a sequence is has no probability.

    Source: Chung et al., "A recurrent latent variable model for sequential data" (2015),
    https://arxiv.org/abs/1506.02216
    """

    num_latents: int = attrs.field(default=8, validator=ge(1))
    width: int = attrs.field(default=32, validator=ge(1))
    flags: bool = False

    def prior_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.num_latents,)

    def assemble(self, prior: Prior, likelihood: Likelihood, posterior: Likelihood, x_mean: Tensor) -> JointBound:
        if self.flags and (x_mean.dim() < 2 or x_mean[0].numel() < 2):
            raise UsageError(
                f"vrnn with flags is of sequences [T, 1 + F], a flag first, but a datum is {list(x_mean.shape)}"
            )
        if prior.log_z is None:
            raise UsageError(
                f"vrnn has a prior of its own at every step, and no place for {type(prior).__name__.lower()}; use "
                "bernoulli or gaussian, to say what its latents are made of"
            )
        p = GRU(x_mean, self.num_latents, self.width, posterior, likelihood, self.flags)
        return JointBound(RecurrentInference(Encoder(p)), RecurrentGeneration(p))


@hookimpl
def register_models(register):
    register("vrnn", VRNN)
