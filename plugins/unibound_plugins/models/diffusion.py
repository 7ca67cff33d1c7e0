"""Diffusion: tau is the trajectory along which a datum becomes noise, q is fixed, and p undoes it step by step."""

import math
from itertools import pairwise

import attrs
import torch
from attrs.validators import deep_iterable, ge, min_len
from torch import Tensor, nn
from torch.distributions import Distribution

from unibound import Generator, JointBound, Layered, Likelihood, Model, Prior, Upward, UsageError, hookimpl
from unibound.sequences.noise import Binomial, Noise, Normals
from unibound.sequences.trajectory import Noisier, Reverse, StepGeneration, StepInference
from unibound.support import boolean, describe, real, require_within, same

LEFT = 1e-3
"""What a schedule that is not given leaves of x in the last step."""
TOO_MUCH = 0.1
"""A schedule that leaves as much of x does not end in noise."""
WAVES = 8
"""Frequencies by which networks see time."""


class Denoiser(Reverse):
    """p(x_0 | x_t) by one network for all t, and p(x_{t-1} | x_t) as if x_0 were drawn from it element by element.

    What an element of x_t says by itself of x_0 is added to what the network says.
    """

    frequencies: Tensor

    def __init__(self, noise: Noise, likelihood: Likelihood, hidden: tuple[int, ...], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.noise, self.likelihood, self.shape = noise, likelihood, shape
        widths = [math.prod(shape) + 2 * WAVES, *hidden]
        pairs = [(nn.Linear(fan_in, fan_out), nn.SiLU()) for fan_in, fan_out in pairwise(widths)]
        last = nn.Linear(widths[-1], math.prod(likelihood.outputs(shape)))
        self.network = nn.Sequential(*(module for pair in pairs for module in pair), last)
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(WAVES) / 2, persistent=False)

    def first(self, noisy: Tensor, t: Tensor) -> Distribution:
        phase = (t / len(self.noise)).to(noisy).unsqueeze(-1) * self.frequencies  # [..., WAVES]
        said = self.network(torch.cat([2 * noisy - 1, phase.sin(), phase.cos()], -1))
        size = noisy.shape[-1]
        said = torch.cat([said[..., :size] + self.noise.own(noisy, t), said[..., size:]], -1)
        return self.likelihood(said.view(*said.shape[:-1], *self.likelihood.outputs(self.shape)), self.shape)

    def later(self, noisy: Tensor, t: Tensor, first: Distribution) -> Distribution:
        return self.noise.guess(noisy, first, t)


class Undo(Generator):
    """p(x_{t-1} | x_t) of one step, or p(x_0 | x_1). All steps share their network, which one of them owns."""

    def __init__(self, reverse: Reverse, t: int) -> None:
        super().__init__()
        self.t, self.owned = t, reverse if t == 1 else None
        self._reverse = (reverse,)  # in a tuple, so that it is saved once

    def forward(self, tau: Tensor) -> Distribution:
        (reverse,) = self._reverse
        t = torch.full(tau.shape[:-1], self.t, device=tau.device)
        first = reverse.first(tau, t)
        return first if self.t == 1 else reverse.later(tau, t, first)


class Trajectory(Layered):
    """p(x_T) p(x_{T-1} | x_T) ... p(x | x_1), of vectors x_t [D] and data [*X]."""

    def __init__(self, prior: Prior, reverse: Reverse, noise: Noise, shape: tuple[int, ...]) -> None:
        steps, size = len(noise), math.prod(shape)
        super().__init__(prior, [Undo(reverse, t) for t in range(1, steps + 1)], [size] * steps)
        self.noise, self.shape = noise, torch.Size(shape)
        self._reverse = (reverse,)  # in a tuple, so that it is saved once

    @torch.no_grad()
    def stages(self, count: int, steps: int | None = None) -> Tensor:
        (reverse,) = self._reverse
        return reverse.retrace(self.prior.visible(self.prior.sample(count)), self.noise, self.shape, steps)


@attrs.frozen
class Diffusion(Model):
    """Bits or reals that lose a share beta_t of what they were in each of T steps, and p that undoes these.

        -log p(x_0) <= E KL(q(x_T | x_0) || p(x_T)) + sum_{t > 1} E KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))
                       + E[-log p(x_0 | x_1)]

    The likelihood reads p(x_0 | x_1), and what it is over says whether the noise flips bits or is normal; the prior is
    p(x_T): a `bernoulli` or a `gaussian`, as q ends in. A few steps are one latent of T D elements, whose weights are
    real: K-particle bounds hold. With `terms` a draw is one step of the trajectory, and its weight one term of the
    bound: any number of steps costs the same, but only means of weights mean anything, and `sgvb` takes them.

    Args:
        steps: T.
        betas: what is lost in each step, each in (0, 1); if empty, what is left falls evenly, to a thousandth.
        terms: draw one step of the trajectory at a time.
        hidden: widths of the network's hidden layers.

    Source: Sohl-Dickstein, Weiss, Maheswaranathan and Ganguli, "Deep unsupervised learning using nonequilibrium
    thermodynamics" (2015), https://arxiv.org/abs/1503.03585; Ho, Jain and Abbeel, "Denoising diffusion probabilistic
    models" (2020), https://arxiv.org/abs/2006.11239
    """

    steps: int = attrs.field(default=10, validator=ge(1))
    betas: tuple[float, ...] = ()
    terms: bool = False
    hidden: tuple[int, ...] = attrs.field(default=(128, 128), validator=[min_len(1), deep_iterable(ge(1))])

    def __attrs_post_init__(self) -> None:
        if not self.betas:
            return
        if len(self.betas) != self.steps:
            raise UsageError(f"diffusion: {self.steps} steps need as many betas, not {len(self.betas)}")
        for beta in self.betas:
            if not 0 < beta < 1:
                raise UsageError(f"diffusion: each beta must lie in (0, 1), but one is {beta:g}")
        if (left := math.prod(1 - beta for beta in self.betas)) >= TOO_MUCH:
            raise UsageError(
                f"diffusion: the schedule does not end in noise, but with {left:.0%} of x left; raise betas or steps"
            )

    def schedule(self) -> Tensor:
        """beta_1 .. beta_T [T]."""
        if self.betas:
            return torch.tensor(self.betas)
        kept = torch.linspace(1, 0, self.steps + 1, dtype=torch.float64).clamp(min=LEFT)
        return (1 - kept[1:] / kept[:-1]).to(torch.get_default_dtype())

    def prior_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (math.prod(x_shape),)

    def assemble(self, prior: Prior, likelihood: Likelihood, posterior: Likelihood, x_mean: Tensor) -> JointBound:
        shape, size = tuple(x_mean.shape), x_mean.numel()
        noise = self.noise(likelihood, shape)
        over = boolean if isinstance(noise, Binomial) else real
        cure = "use a prior such as bernoulli for bits, gaussian for reals"
        require_within(over, "the end of the diffusion", prior.support, "the prior is", cure)
        reverse = Denoiser(noise, likelihood, self.hidden, shape)
        if self.terms:
            if prior.inner is not None:
                raise UsageError(
                    f"diffusion by terms has no place for the latents that {type(prior).__name__.lower()} keeps of its "
                    "own; leave terms out, or choose a prior without such"
                )
            return JointBound(StepInference(noise, len(shape)), StepGeneration(prior, reverse, noise, shape))
        sizes, every = [size] * self.steps, range(1, self.steps + 1)
        q = Upward([Noisier(noise, t, len(shape) if t == 1 else 1) for t in every], sizes)
        return JointBound(q, Trajectory(prior, reverse, noise, shape))

    def noise(self, likelihood: Likelihood, shape: tuple[int, ...]) -> Noise:
        """What bits, or reals, become noise by."""
        if same(likelihood.support, boolean) and likelihood.outputs(shape) == shape:
            return Binomial(self.schedule())
        if same(likelihood.support, real):
            return Normals(self.schedule())
        raise UsageError(
            f"diffusion is of bits by their logits, or of reals, but the likelihood is over "
            f"{describe(likelihood.support)}; use bernoulli or gaussian"
        )


@hookimpl
def register_models(register):
    register("diffusion", Diffusion)
