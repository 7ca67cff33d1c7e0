"""The posterior of a datum by draws and by annealing: log-weights have the mean they should, from both sides."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from unibound import Generation, Layered, registries
from unibound.distributions import Bits
from unibound.draws import Chain, pieces
from unibound.generation import Directed
from unibound.networks import Generator
from unibound.partition import posterior
from unibound.partition.posterior import Drift, Flip, Path, Redraw, moves
from unibound.partition.starts import Blend, Even, FromPrior, Given, Start
from unibound.support import boolean, integer_interval, nonnegative_integer, real, spin
from unibound.testing.listing import all_bits
from unibound.testing.verdict import FALSE_ALARM
from unibound.testing.worlds import World

BETAS = torch.tensor([0.0, 0.3, 0.6, 1.0], dtype=torch.float64)
COUNT = 20_000


class Line(Generator):
    """Reals about twice the latent."""

    def forward(self, tau: Tensor) -> Independent:
        return Independent(Normal(2 * tau, 0.7), 1)


class Reals:
    """A linear model of reals, whose posteriors and likelihood are known."""

    p = Directed(registries()["prior"]["gaussian"]((1,)), Line())
    x = torch.tensor([[0.5], [2.0]])
    log_p = Normal(0.0, math.sqrt(4 + 0.49)).log_prob(x).squeeze(1).double()
    posterior = Independent(Normal(2 * x / 4.49, math.sqrt(0.49 / 4.49)), 1)
    q = Independent(Normal(torch.tensor([[0.0], [1.5]]), 0.3), 1)
    over = real


def of_bits() -> tuple[World, Tensor, Tensor]:
    """A world, its data, and an exact draw of the posterior of each, for as many as asked."""
    torch.manual_seed(0)
    world = World.of_bits()
    log_p = world.p.log_joint(world.xs, world.taus.unsqueeze(1).expand(-1, len(world.xs), -1)).double()
    return world, log_p, log_p.softmax(0)


def close(log_w: Tensor, log_p: Tensor) -> bool:
    """Whether the mean of weights [M, B] is exp(log_p) [B] up to noise."""
    ratio = (log_w - log_p).exp()
    return bool(((ratio.mean(0) - 1).abs() < FALSE_ALARM * ratio.std(0) / len(ratio) ** 0.5 + 1e-9).all())


def starts(p: Generation, x: Tensor, q: object, over: object) -> dict[str, Start]:
    own = Given("q", q)  # pyright: ignore[reportArgumentType]
    found: dict[str, Start] = {"q": own, "prior": FromPrior(p, len(x))}
    if over is boolean:
        tau = q.sample()  # pyright: ignore[reportAttributeAccessIssue]
        found["even"] = Even(tau, (0.0, 1.0), torch.zeros(tau[0].numel(), dtype=torch.bool))
    return found | {"blend": Blend(tuple((one, COUNT // len(found)) for one in found.values()))}


@pytest.mark.parametrize(
    ("start", "annealed"),
    [("blend", False), *((name, walk) for name in ("q", "prior", "even") for walk in (False, True))],
)
@torch.no_grad()
def test_weights_over_bits_have_the_mean_of_p(start: str, annealed: bool) -> None:
    world, log_p, _ = of_bits()
    chosen = starts(world.p, world.xs, world.joint.q(world.xs), boolean)[start]
    path = Path(world.p, world.xs, chosen, moves(world.joint.q(world.xs), chosen, boolean) if annealed else (), 7000)
    count = sum(share for _, share in chosen.parts) if isinstance(chosen, Blend) else COUNT
    log_w = path.rise(count, BETAS if annealed else BETAS[[0, -1]])
    assert close(log_w, log_p.logsumexp(0))


@pytest.mark.parametrize(("start", "annealed"), [("blend", False), ("prior", False), ("q", True), ("prior", True)])
def test_so_they_have_over_reals(start: str, annealed: bool) -> None:
    chosen = starts(Reals.p, Reals.x, Reals.q, real)[start]
    path = Path(Reals.p, Reals.x, chosen, moves(Reals.q, chosen, real) if annealed else ())
    assert close(path.rise(COUNT, BETAS if annealed else BETAS[[0, -1]]), Reals.log_p)


@pytest.mark.parametrize("annealed", [False, True])
@torch.no_grad()
def test_from_exact_draws_the_bounds_hold_log_p_between_them(annealed: bool) -> None:
    # E[1 / W] = 1 / p*(x) is the law; the order of the two means follows.
    world, log_p, weights = of_bits()
    x = world.xs.repeat(2000, 1)
    exact = log_p.logsumexp(0).repeat(2000)
    q = world.joint.q(x)
    blend = Blend(((Given("q", q), 3), (FromPrior(world.p, len(x)), 2)))
    for chosen in (Given("q", q), FromPrior(world.p, len(x)) if annealed else blend):
        tau = world.taus[torch.multinomial(weights.T, 2000, replacement=True).T.flatten()]
        path = Path(world.p, x, chosen, moves(q, chosen, boolean) if annealed else ())
        low, high = path.both(tau, 5, BETAS if annealed else BETAS[[0, -1]])
        inverse = (exact - high).exp()
        assert abs(inverse.mean() - 1) < FALSE_ALARM * inverse.std() / len(inverse) ** 0.5
        for gap in (exact - low, high - exact):
            assert gap.mean() > -FALSE_ALARM * gap.std() / len(gap) ** 0.5


def test_so_they_do_over_reals() -> None:
    x = Reals.x.repeat(4000, 1)
    q = Independent(Normal(torch.zeros(len(x), 1), 0.5), 1)
    exact, chosen = Reals.log_p.repeat(4000), Given("q", q)
    tau = Independent(Normal(2 * x / 4.49, math.sqrt(0.49 / 4.49)), 1).sample()
    low, high = Path(Reals.p, x, chosen, moves(q, chosen, real)).both(tau, 4, BETAS)
    inverse = (exact - high).exp()
    assert abs(inverse.mean() - 1) < FALSE_ALARM * inverse.std() / len(inverse) ** 0.5
    assert (exact - low).mean() > 0


@torch.no_grad()
def test_moves_leave_the_posterior_as_it_is() -> None:
    world, _, weights = of_bits()
    x, q = world.xs[:1].expand(COUNT, -1), world.joint.q(world.xs[:1].expand(COUNT, -1))
    start = Given("q", q)
    tau = world.taus[torch.multinomial(weights[:, 0], COUNT, replacement=True)]
    for chosen in (moves(q, start, boolean), (Redraw(start),)):
        path = Path(world.p, x, start, chosen)
        at = path.at(tau.unsqueeze(0))
        for _ in range(3):
            at = path._move(at, 1.0, path.moves)
        met = (at.tau[0].unsqueeze(1) == world.taus).all(-1).double().mean(0)
        assert (met - weights[:, 0]).abs().max() < FALSE_ALARM * 0.5 / COUNT**0.5


def test_steps_over_reals_leave_the_posterior_as_it_is() -> None:
    x, q = Reals.x[:1].expand(COUNT, -1), Independent(Normal(torch.zeros(COUNT, 1), 1.0), 1)
    start, right = Given("q", q), Normal(2 * 0.5 / 4.49, math.sqrt(0.49 / 4.49))
    path = Path(Reals.p, x, start, moves(q, start, real))
    at = path.at(right.sample((1, COUNT, 1)))
    for _ in range(3):
        at = path._move(at, 1.0, path.moves)
    uniform = right.cdf(at.tau.flatten())
    assert abs(uniform.mean() - 0.5) < FALSE_ALARM * 0.29 / COUNT**0.5
    assert abs(uniform.var() - 1 / 12) < FALSE_ALARM * 0.075 / COUNT**0.5


def test_each_piece_is_moved_by_what_it_is_made_of() -> None:
    q = Chain(
        Independent(Normal(torch.zeros(2, 3), 1.0), 1),
        [lambda pieces: Bits(torch.zeros(*pieces[0].shape[:-1], 2))],
        (3, 2),
    )
    assert [size for size, _ in pieces(q)] == [3, 2]
    downward = Chain(q.first, q.rest, (2, 3), downward=True)
    for made, bits, reals in ((q, [3, 4], [True] * 3 + [False] * 2), (downward, [0, 1], [False] * 2 + [True] * 3)):
        flips, drift = moves(made, Given("q", made), None)
        assert isinstance(flips, Flip)
        assert flips.index.tolist() == bits
        assert isinstance(drift, Drift)
        assert (drift.scale > 0).tolist() == [reals] * 2
    for over, kind in ((nonnegative_integer, Redraw), (None, Redraw), (spin, Flip), (integer_interval(0, 2), Flip)):
        point = torch.distributions.Independent(torch.distributions.Poisson(torch.ones(2, 3)), 1)
        assert isinstance(moves(point, Given("q", point), over)[0], kind)


def test_a_flip_goes_to_every_other_value_alike() -> None:
    flip = Flip(torch.tensor([1]), torch.tensor([0.0, 1.0, 2.0]))
    tau = torch.tensor([[[5.0, 1.0]]]).expand(COUNT, 1, 2)
    at = posterior.Point(tau, torch.zeros(COUNT, 1), torch.zeros(COUNT, 1), None)
    new, _ = flip.propose(at, 1.0)
    assert (new[..., 0] == 5).all()
    assert not (new[..., 1] == 1).any()
    assert (new[..., 1] == 2).double().mean() == pytest.approx(0.5, abs=FALSE_ALARM * 0.5 / COUNT**0.5)


@torch.no_grad()
def test_layers_of_bits_and_reals_are_annealed_together() -> None:
    class Down(Generator):
        def forward(self, tau: Tensor) -> Bits:
            return Bits(torch.cat([tau, -tau], -1))

    prior = registries()["prior"]["gaussian"]((1,))
    p = Layered(prior, [Down(), Down()], [2, 1])
    x = torch.tensor([[1.0, 0.0, 1.0, 1.0]])
    line = torch.linspace(-8, 8, 2001).view(-1, 1)
    log_p = torch.stack(
        [
            p.log_joint(x, torch.cat([state.expand(len(line), 2), line], -1).unsqueeze(1)).double().logsumexp(0)
            + math.log(0.008)
            for state in all_bits((2,))
        ]
    ).logsumexp(0)
    q = Chain(
        Bits(torch.zeros(1, 2)),
        [lambda pieces: Independent(Normal(torch.zeros(*pieces[0].shape[:-1], 1), 1.0), 1)],
        (2, 1),
    )
    start = Given("q", q)
    assert close(Path(p, x, start, moves(q, start, p.support)).rise(COUNT, BETAS), log_p)
