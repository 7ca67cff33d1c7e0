"""DRAW: a picture that is painted on a canvas, a latent at every step, by q that sees what is still missing."""

import math
from collections.abc import Sequence

import attrs
import torch
from attrs.validators import ge
from torch import Tensor, nn
from torch.distributions import Distribution

from unibound import Inference, JointBound, Likelihood, Model, Prior, UsageError, hookimpl
from unibound.draws import Drawn
from unibound.sequences.recurrent import Follower, Recurrence, RecurrentGeneration, RecurrentInference
from unibound.support import Constraint


class Each(Drawn):
    """A prior of its own for each latent of a batch."""

    has_rsample = False

    def __init__(self, prior: Prior, batch_shape: torch.Size) -> None:
        self.prior = prior
        super().__init__(batch_shape, prior.event_shape, validate_args=False)

    def draw(self, count: int, *, reparameterized: bool) -> tuple[Tensor, Tensor]:
        z = self.prior.sample(count * self.batch_shape.numel()).view(count, *self.batch_shape, *self.event_shape)
        return z, self.prior.log_prob(z)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z) [...] in nats."""
        return self.prior.log_prob(value)


class Window(nn.Module):
    """A grid of N x N Gaussian filters on images [..., P, H, W], placed by a state [..., S].

    Five numbers say where its center is, how far apart its filters are and how wide each, and how strong they are.
    """

    def __init__(self, width: int, points: int, height: int, breadth: int) -> None:
        super().__init__()
        self.place, self.points, self.sides = nn.Linear(width, 5), points, (height, breadth)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Filters of rows [..., 1, N, H] and columns [..., 1, N, W], of sum one each; their strength [..., 1, 1, 1]."""
        down, across, log_variance, log_stride, log_strength = self.place(hidden)[..., None, None, None].unbind(-4)
        stride = (max(self.sides) - 1) / max(self.points - 1, 1) * log_stride.exp()
        steps = torch.arange(self.points).to(hidden).unsqueeze(-1) - (self.points - 1) / 2  # [N, 1]
        filters = []
        for side, at in zip(self.sides, (down, across), strict=True):
            middle = (side - 1) / 2 * (at + 1) + steps * stride  # [..., 1, N, 1]
            apart = torch.arange(side).to(hidden) - middle  # [..., 1, N, side]
            filters.append((-apart.square() / (2 * log_variance.exp())).softmax(-1))
        return filters[0], filters[1], log_strength.exp()

    def read(self, hidden: Tensor, images: Tensor) -> Tensor:
        """What the filters see of images [..., P, H, W]: [..., P N N]."""
        rows, columns, strength = self(hidden)
        return (strength * (rows @ images @ columns.mT)).flatten(-3)

    def write(self, hidden: Tensor, patch: Tensor) -> Tensor:
        """What a patch [..., P, N, N] looks like where the filters are [..., P H W]."""
        rows, columns, strength = self(hidden)
        return (rows.mT @ patch @ columns / strength).flatten(-3)


class Canvas(Recurrence):
    """The state is what the likelihood is told of the datum so far, the canvas, and what the painter remembers."""

    def __init__(
        self, shape: tuple[int, ...], steps: int, width: int, likelihood: Likelihood, prior: Prior, points: int
    ) -> None:
        super().__init__(steps, prior.event_shape.numel(), len(shape))
        self.shape, self.likelihood, self.width = shape, likelihood, width
        self._prior = (prior,)  # in a tuple, so that its parameters are its own
        self.told = likelihood.outputs(shape)
        self.sizes = [math.prod(self.told), width]  # of the canvas, and of what is remembered
        self.blank = nn.Parameter(torch.zeros(self.sizes[0]))
        self.cell = nn.GRUCell(self.size, width)
        self.window = Window(width, points, *shape[-2:]) if points else None
        side = shape[-2] * shape[-1] if points else 1
        self.paint = nn.Linear(width, self.sizes[0] // side * points**2 if points else self.sizes[0])

    def parts(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """The canvas [..., C], and what is remembered [..., W]."""
        canvas, hidden = state.split(self.sizes, -1)
        return canvas, hidden

    def read(self, canvas: Tensor) -> Distribution:
        """The canvas as a distribution of data."""
        return self.likelihood(canvas.view(*canvas.shape[:-1], *self.told), self.shape)

    def start(self, lead: torch.Size) -> Tensor:
        return torch.cat([self.blank.expand(*lead, -1), self.blank.new_zeros(*lead, self.width)], -1)

    def prior(self, state: Tensor, t: int) -> Distribution:
        return Each(self._prior[0], state.shape[:-1])

    def move(self, state: Tensor, z: Tensor, x: Tensor, t: int) -> Tensor:
        canvas, hidden = self.parts(state)
        lead = z.shape[:-1]
        hidden = self.cell(z.flatten(0, -2), hidden.expand(*lead, -1).flatten(0, -2)).view(*lead, self.width)
        added = self.paint(hidden)
        if self.window is not None:
            points = self.window.points
            added = self.window.write(hidden, added.view(*lead, -1, points, points))
        return torch.cat([canvas + added, hidden], -1)

    def data(self, state: Tensor, z: Tensor, t: int) -> Distribution | None:
        return self.painting(state, z) if t + 1 == self.steps else None

    def painting(self, state: Tensor, z: Tensor) -> Distribution:
        """What is painted by z_t on the canvas of the state before it, as a distribution of data."""
        return self.read(self.parts(self.move(state, z, z, 0))[0])

    def part(self, x: Tensor, t: int) -> Tensor:
        return x

    def join(self, parts: list[Tensor]) -> Tensor:
        return parts[0] if parts else self.blank.new_zeros(0)


class Painting(RecurrentGeneration):
    """p(x, tau) = p(z_1) ... p(z_T) p(x | canvas after T steps)."""

    recurrence: Canvas

    def __init__(self, recurrence: Canvas, prior: Prior) -> None:
        super().__init__(recurrence)
        self.prior = prior

    @property
    def support(self) -> Constraint | None:
        return self.prior.support

    def terms(self, x: Tensor, pieces: Sequence[Tensor], states: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """All latents have one prior, and the datum is drawn in the last step."""
        z, last = torch.stack(list(pieces)), self.recurrence.steps - 1
        latents = self.prior.log_prob(z)
        painted = self.recurrence.painting(states[last].expand(*z.shape[1:-1], -1), z[last])
        return torch.cat([torch.zeros_like(latents[:last]), painted.log_prob(x).unsqueeze(0)]), latents

    def conditional(self, tau: Tensor) -> Distribution:
        return self.paintings(tau)[-1]

    def paintings(self, tau: Tensor) -> list[Distribution]:
        """The canvas as a distribution of data, blank and after each step of tau [..., T Z]."""
        state = self.recurrence.start(tau.shape[:-1])
        canvases = [state]
        for t, z in enumerate(tau.split(self.recurrence.size, -1)):
            state = self.recurrence.move(state, z, z, t)
            canvases.append(state)
        return [self.recurrence.read(self.recurrence.parts(canvas)[0]) for canvas in canvases]

    @torch.no_grad()
    def stages(self, count: int, steps: int | None = None) -> Tensor:
        if steps not in (None, self.recurrence.steps):
            raise UsageError(f"draw paints in {self.recurrence.steps} steps, not in {steps}; leave steps out")
        pieces = [self.prior.sample(count) for _ in range(self.recurrence.steps)]
        return torch.stack([painting.mean for painting in self.paintings(torch.cat(pieces, -1))])

    def parts(self) -> dict[str, nn.Module]:
        return {"generator": self.recurrence, "prior": self.prior}

    def advance(self) -> None:
        self.prior.advance()

    def bind(self, q: Inference, x: Tensor) -> None:
        self.prior.bind(q, x)


class Viewer(Follower):
    """q(z_t | x, z_<t): looks at the datum, and at what the canvas lacks of it, and remembers what it saw."""

    x_mean: Tensor

    def __init__(self, p: Canvas, posterior: Likelihood, x_mean: Tensor, points: int) -> None:
        super().__init__()
        self._p = (p,)  # in a tuple, so that its parameters are p's
        self.posterior = posterior
        self.window = Window(p.width, points, *p.shape[-2:]) if points else None
        seen = x_mean[..., 0, 0].numel() * points**2 if points else x_mean.numel()
        self.cell = nn.GRUCell(2 * seen + p.width, p.width)
        self.network = nn.Linear(p.width, math.prod(posterior.outputs((p.size,))))
        self.register_buffer("x_mean", x_mean.clone())

    def look(self, memory: Tensor | None, before: Tensor | None, state: Tensor, x: Tensor, t: int) -> Tensor:
        (p,) = self._p
        canvas, hidden = p.parts(state)
        both = [x - self.x_mean, x - p.read(canvas).mean]
        if self.window is None:
            seen = [one.flatten(-p.x_dims) for one in both]
        else:
            images = [one.unsqueeze(-3) if p.x_dims == 2 else one for one in both]
            seen = [self.window.read(hidden, one) for one in images]
        lead = hidden.shape[:-1]
        inputs = torch.cat([*(one.expand(*lead, -1) for one in seen), hidden], -1).flatten(0, -2)
        known = hidden.new_zeros(*lead, p.width) if memory is None else memory.expand(*lead, -1)
        return self.cell(inputs, known.flatten(0, -2)).view(*lead, p.width)

    def forward(self, state: Tensor, x: Tensor, memory: Tensor | None, t: int) -> Distribution:
        assert memory is not None
        outputs, size = self.network(memory), (self._p[0].size,)
        return self.posterior(outputs.view(*outputs.shape[:-1], *self.posterior.outputs(size)), size)


@attrs.frozen
class DRAW(Model):
    """A datum that is painted in T steps, each of which adds to a canvas what its latent z_t says.

        p(x, tau) = p(z_1) ... p(z_T) p(x | c_T),   c_t = c_{t-1} + write(h_t),   h_t = GRU(h_{t-1}, z_t)
        q(tau | x) = prod_t q(z_t | g_t),   g_t = GRU(g_{t-1}, read(x, x - E[x | c_{t-1}]), h_{t-1})

    The canvas holds what the likelihood reads, and the prior, a normalized one, is that of every z_t. With attention
    both sides see the image through a small grid of filters that h places, and the datum must be an image [H, W] or
    [C, H, W]; without, it may have any shape. KL is known for each step: `JointBound.log_weight_terms`.

    Args:
        num_latents: elements of z_t.
        steps: T.
        width: of both memories.
        attention: look at, and paint, a part of the image at a time.
        read: filters along a side of what q sees at once.
        write: filters along a side of what p paints at once.

    Source: Gregor, Danihelka, Graves, Rezende and Wierstra, "DRAW: a recurrent neural network for image generation"
    (2015), https://arxiv.org/abs/1502.04623; theirs remembers by LSTM.
    """

    num_latents: int = attrs.field(default=10, validator=ge(1))
    steps: int = attrs.field(default=8, validator=ge(1))
    width: int = attrs.field(default=64, validator=ge(1))
    attention: bool = False
    read: int = attrs.field(default=5, validator=ge(1))
    write: int = attrs.field(default=5, validator=ge(1))

    def prior_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.num_latents,)

    def assemble(self, prior: Prior, likelihood: Likelihood, posterior: Likelihood, x_mean: Tensor) -> JointBound:
        shape, told = tuple(x_mean.shape), likelihood.outputs(tuple(x_mean.shape))
        if prior.log_z is None:
            raise UsageError(
                f"draw has a prior for the latents of each step, which must be normalized, and "
                f"{type(prior).__name__.lower()} is not; use bernoulli or gaussian"
            )
        if self.attention and not (len(shape) in (2, 3) and told[-2:] == shape[-2:]):
            words = " x ".join(map(str, shape))
            raise UsageError(
                f"draw with attention looks at images [H, W] or [C, H, W], but a datum is of shape [{words}]; leave "
                "attention out"
            )
        read, write = (self.read, self.write) if self.attention else (0, 0)
        p = Canvas(shape, self.steps, self.width, likelihood, prior, write)
        try:
            _ = p.read(p.blank).mean
        except NotImplementedError as error:
            raise UsageError(
                f"draw compares a datum with the mean of what is painted, and {type(likelihood).__name__.lower()} "
                "knows none; use bernoulli or discretized_logistic"
            ) from error
        return JointBound(RecurrentInference(Viewer(p, posterior, x_mean, read)), Painting(p, prior))


@hookimpl
def register_models(register):
    register("draw", DRAW)
