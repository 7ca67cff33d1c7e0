"""Pieces drawn one after another are one distribution: their log-probabilities, draws and gradients."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from unibound import UsageError
from unibound.distributions import Bits
from unibound.draws import Chain, Drawn, draw
from unibound.testing.listing import all_bits, number
from unibound.testing.verdict import chi_square

SIZES = [1, 2, 1]


def chain(batch: int = 2) -> Chain:
    """Three pieces of bits, each given all before it."""
    random = torch.Generator().manual_seed(3)
    first = Bits(torch.randn(batch, 1, generator=random).double())
    weights = [torch.randn(below, size, generator=random).double() for below, size in ((1, 2), (3, 1))]
    rest = [lambda pieces, weight=weight: Bits(torch.cat(pieces, -1) @ (2 * weight) - 0.4) for weight in weights]
    return Chain(first, rest, SIZES)


def normals(mean: Tensor) -> Chain:
    """Two normals, the second around the first."""
    first = Independent(Normal(mean, torch.ones_like(mean)), 1)
    return Chain(first, [lambda pieces: Independent(Normal(2 * pieces[-1], torch.ones_like(pieces[-1])), 1)], [1, 1])


def test_it_sums_to_one_piece_by_piece():
    made, taus = chain(), all_bits((4,)).unsqueeze(1)
    log_probs = made.log_probs(taus)
    assert log_probs.shape == (3, 16, 2)
    torch.testing.assert_close(log_probs.sum(0), made.log_prob(taus))
    torch.testing.assert_close(made.log_prob(taus).logsumexp(0), torch.zeros(2).double())
    # Of each piece, too, whatever lies below it.
    given = taus[taus[:, 0, :3].sum(1) == 0]
    torch.testing.assert_close(made.log_probs(given)[2].logsumexp(0), torch.zeros(2).double())


def test_draws_are_as_frequent_as_it_says_and_scored_on_the_way():
    torch.manual_seed(0)
    made = chain()
    tau, log_q = draw(made, 20_000)
    assert tau.shape == (20_000, 2, 4)
    torch.testing.assert_close(log_q, made.log_prob(tau))
    for datum in range(2):
        expected = made.log_prob(all_bits((4,)).unsqueeze(1))[:, datum].exp()
        statistic, limit = chi_square(number(tau[:, datum]), expected)
        assert statistic <= limit


@pytest.mark.parametrize("shape", [(), (3,), (3, 5)])
def test_samples_have_the_shape_that_is_asked_for(shape: tuple[int, ...]):
    made = chain()
    assert made.sample(shape).shape == (*shape, 2, 4)
    assert made.log_prob(made.sample(shape)).shape == (*shape, 2)
    assert not made.sample(shape).requires_grad


def test_gradients_flow_through_every_piece():
    mean = torch.zeros(4, 1, dtype=torch.float64, requires_grad=True)
    tau, log_q = draw(normals(mean), 3, reparameterized=True)
    (slope,) = torch.autograd.grad(tau.sum(), mean, retain_graph=True)
    assert torch.equal(slope, torch.full_like(slope, 3 * (1 + 2)))
    # The noise is what it is: log q does not change with the mean.
    (still,) = torch.autograd.grad(log_q.sum(), mean)
    torch.testing.assert_close(still, torch.zeros_like(still), atol=1e-12, rtol=0)
    tau, log_q = draw(normals(mean), 3)
    assert not tau.requires_grad
    (score,) = torch.autograd.grad(log_q.sum(), mean)
    torch.testing.assert_close(score, (tau[..., :1] - mean).sum(0).detach())


def test_bits_have_no_reparameterized_draws():
    with pytest.raises(UsageError, match="Bits has no reparameterized draws"):
        draw(chain(), 2, reparameterized=True)


@pytest.mark.parametrize("sizes", [[1, 2], [2, 2, 1], [1, 2, 1, 1]])
def test_sizes_that_do_not_fit_are_refused_in_one_line(sizes: list[int]):
    made = chain()
    with pytest.raises(UsageError, match="a chain of sizes") as caught:
        Chain(made.first, made.rest, sizes)
    assert len(str(caught.value).splitlines()) == 1


def test_any_distribution_can_be_drawn_from_and_one_that_scores_is_asked_once():
    class Once(Drawn):
        calls = 0

        def draw(self, count: int, *, reparameterized: bool) -> tuple[Tensor, Tensor]:
            self.calls += 1
            return torch.zeros(count, *self.batch_shape, 3), torch.zeros(count, *self.batch_shape)

        def log_prob(self, value: Tensor) -> Tensor:
            raise AssertionError("scored again")

    made: Distribution = Once(torch.Size([2]), torch.Size([3]), validate_args=False)
    tau, log_q = draw(made, 5)
    assert (tau.shape, log_q.shape, made.calls) == ((5, 2, 3), (5, 2), 1)
    normal = Independent(Normal(torch.zeros(2, 3), 1.0), 1)
    tau, log_q = draw(normal, 5)
    torch.testing.assert_close(log_q, normal.log_prob(tau))
