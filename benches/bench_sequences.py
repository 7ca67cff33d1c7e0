"""Steps of recurrent models against the same mathematics by hand; draws of flows scored in one pass and in two."""

import math

import pytest
import torch
from hand import Loop, log_bits
from torch import Tensor, nn
from torch.nn.functional import softplus

from unibound import registries
from unibound.distributions import flows
from unibound.draws import draw
from unibound.runs.train import Training
from unibound.settings.records import Optimizer, Stage
from unibound.testing.listing import scatter

STEPS, FEATURES, LATENTS, WIDTH, BATCH = 8, 8, 8, 32, 100
"""Rows of small pictures."""


def normal(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and scale, as likelihood gaussian reads them."""
    mean, raw = outputs.chunk(2, -1)
    return mean, 1e-3 + softplus(raw)


def log_normal(z: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    return -(((z - mean) / scale).square() / 2 + scale.log() + math.log(2 * math.pi) / 2).sum(-1)


def hidden(fan_in: int, width: int, fan_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(fan_in, width), nn.ELU(), nn.Linear(width, fan_out))


class VRNN(Loop):
    """One pass over the steps, states shared by q and p; particles are resampled after each of them, or never."""

    def __init__(self, num_particles: int, resampled: bool) -> None:
        self.k, self.resampled = num_particles, resampled
        self.cell = nn.GRUCell(FEATURES + LATENTS, WIDTH)
        self.prior, self.encoder = hidden(WIDTH, WIDTH, 2 * LATENTS), hidden(WIDTH + FEATURES, WIDTH, 2 * LATENTS)
        self.generator = hidden(WIDTH + LATENTS, WIDTH, FEATURES)
        self.prepare()

    def loss(self, x: Tensor) -> Tensor:
        state = x.new_zeros(self.k, len(x), WIDTH)
        log_w, total = x.new_zeros(self.k, len(x)), x.new_zeros(len(x))
        for t in range(STEPS):
            seen = x[:, t].expand(self.k, -1, -1)
            mean, scale = normal(self.encoder(torch.cat([state, seen], -1)))
            z = mean + scale * torch.randn_like(mean)
            log_p = log_bits(self.generator(torch.cat([state, z], -1)), seen)
            log_w = log_w + log_p + log_normal(z, *normal(self.prior(state))) - log_normal(z, mean, scale)
            if t + 1 < STEPS:
                state = self.cell(torch.cat([seen, z], -1).flatten(0, 1), state.flatten(0, 1)).view_as(state)
                if self.resampled:
                    chosen = torch.multinomial(log_w.detach().softmax(0).T, self.k, replacement=True).T
                    state = state.gather(0, chosen.unsqueeze(-1).expand_as(state))
                    total, log_w = total + log_w.logsumexp(0) - math.log(self.k), torch.zeros_like(log_w)
        return -(total + log_w.logsumexp(0) - math.log(self.k)).mean()


@pytest.mark.parametrize("num_particles", [1, 10])
def bench_vrnn(race, num_particles):
    x = (torch.rand(BATCH, STEPS, FEATURES) < 0.3).float()
    torch.manual_seed(0)
    plain, filtering = VRNN(num_particles, resampled=False), VRNN(num_particles, resampled=True)
    systems = {"hand": lambda: plain.step(x), "hand, resampled": lambda: filtering.step(x)}
    for name in ("iwae", "fivo"):
        ours, estimator = training("vrnn", name, num_particles, x, num_latents=LATENTS, width=WIDTH)
        systems[name] = lambda ours=ours, estimator=estimator: ours.step(estimator, x)
    race(systems, targets={"iwae": 1.15})


class DRAW(Loop):
    """One pass over the canvas, which q looks at before each step and p adds to; without attention."""

    def __init__(self, num_particles: int, x_mean: Tensor, width: int) -> None:
        size = len(x_mean)
        self.k, self.x_mean, self.width = num_particles, x_mean, width
        self.blank = nn.Parameter(torch.zeros(size))
        self.painter, self.viewer = nn.GRUCell(LATENTS, width), nn.GRUCell(2 * size + width, width)
        self.paint, self.encoder = nn.Linear(width, size), nn.Linear(width, 2 * LATENTS)
        self.prepare()

    def loss(self, x: Tensor) -> Tensor:
        x = x.flatten(1).expand(self.k, -1, -1).flatten(0, 1)  # [K B, X]
        canvas, nothing = self.blank.expand_as(x), x.new_zeros(len(x), self.width)
        painting, seen = nothing, nothing
        log_w, centered = x.new_zeros(len(x)), x - self.x_mean
        for _ in range(STEPS):
            seen = self.viewer(torch.cat([centered, x - canvas.sigmoid(), painting], -1), seen)
            mean, scale = normal(self.encoder(seen))
            z = mean + scale * torch.randn_like(mean)
            log_w = log_w + log_normal(z, torch.zeros(()), torch.ones(())) - log_normal(z, mean, scale)
            painting = self.painter(z, painting)
            canvas = canvas + self.paint(painting)
        log_w = (log_w + log_bits(canvas, x)).view(self.k, -1)
        return -(log_w.logsumexp(0) - math.log(self.k)).mean()


@pytest.mark.parametrize(("num_particles", "side", "width"), [(1, 8, WIDTH), (10, 8, WIDTH), (1, 28, 256)])
def bench_draw(race, num_particles, side, width):
    x = (torch.rand(BATCH, side, side) < 0.3).float()
    torch.manual_seed(0)
    plain = DRAW(num_particles, x.flatten(1).mean(0), width)
    ours, iwae = training("draw", "iwae", num_particles, x, num_latents=LATENTS, width=width, steps=STEPS)
    race({"hand": lambda: plain.step(x), "iwae": lambda: ours.step(iwae, x)}, targets={"iwae": 1.15})


def training(model, name, num_particles, x, **settings):
    """The same model from the registry."""
    plugins = registries()
    likelihood, posterior = (plugins["likelihood"][one]() for one in ("bernoulli", "gaussian"))
    joint = plugins["model"][model](**settings).build(
        plugins["prior"]["gaussian"]((LATENTS,)), likelihood, posterior, x.mean(0)
    )
    stage = Stage(optimizer=Optimizer(learning_rate=1e-3))
    return Training(joint, [stage], x, batch_size=len(x)), plugins["estimator"][name](num_particles=num_particles)


@pytest.mark.parametrize("size", [10, 40])
def bench_flow_posterior(race, size):
    """Draws of an autoregressive flow that are scored while they are made, and those that are scored afterwards."""
    torch.manual_seed(0)
    layers = scatter(flows.layers("iaf", 2, size, 20, (32,)), 1, 0.1).float()
    context = torch.randn(BATCH, 20)
    base = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(BATCH, size), 1.0), 1)

    def posterior() -> flows.Flow:
        return flows.Flow(base, [layer(context) for layer in layers])

    def twice() -> None:
        made = posterior()
        made.log_prob(made.rsample()).sum().backward()

    def at_once() -> None:
        draw(posterior(), 1, reparameterized=True)[1].sum().backward()

    targets = {"at once": 1 / 15} if size == 40 else {}
    race({"drawn, then scored": twice, "at once": at_once}, rounds=20, targets=targets)
