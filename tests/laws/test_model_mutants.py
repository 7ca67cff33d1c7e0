"""Wrong models, their q and p of layers, and likelihoods and priors that lie about what they are over."""

from collections.abc import Sequence

import attrs
import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal
from torch.types import _size

from unibound import Downward, JointBound, Layered, Likelihood, Model, Prior, Upward
from unibound.distributions import Bits
from unibound.draws import Chain, draw
from unibound.sequences.recurrent import RecurrentGeneration
from unibound.support import boolean, real, spin
from unibound.testing import examine_likelihood, examine_model, examine_prior
from unibound.testing.priors import Bell, Rates

SBN = pytest.importorskip("unibound_plugins.models.sbn").SBN
LADDER = pytest.importorskip("unibound_plugins.models.ladder").Ladder
VRNN = pytest.importorskip("unibound_plugins.models.vrnn").VRNN


class OutOfOrder(Chain):
    """Each piece is drawn given the one below, and scored given the lowest."""

    def log_probs(self, value: Tensor) -> Tensor:
        pieces = list(value.split(self.sizes, -1))
        later = [make(pieces[:index][::-1]).log_prob(pieces[index]) for index, make in enumerate(self.rest, 1)]
        return torch.stack([self.first.log_prob(pieces[0]), *later])


class ManyPerLayer(Chain):
    """K draws of every layer given one draw of the layer below."""

    def draw(self, count: int, *, reparameterized: bool) -> tuple[Tensor, Tensor]:
        piece, _ = draw(self.first, count, reparameterized=reparameterized)
        pieces = [piece]
        for make in self.rest:
            piece, _ = draw(make([piece[0] for piece in pieces]), count, reparameterized=reparameterized)
            pieces.append(piece)
        tau = torch.cat(pieces, -1)
        return tau, self.log_prob(tau)


class EachTwice(Chain):
    """Pairs of equal draws, each as frequent as it should be."""

    def draw(self, count: int, *, reparameterized: bool) -> tuple[Tensor, Tensor]:
        tau, log_q = super().draw((count + 1) // 2, reparameterized=reparameterized)
        return tau.repeat_interleave(2, 0)[:count], log_q.repeat_interleave(2, 0)[:count]


class TermForgotten(Layered):
    def log_terms(self, x: Tensor, tau: Tensor) -> Tensor:
        return super().log_terms(x, tau)[:-1]

    def log_joint(self, x: Tensor, tau: Tensor) -> Tensor:
        return super().log_terms(x, tau).sum(0)


class GivenItself(Layered):
    """A deep belief net with the wrong conditional: each layer is scored given the one below where it is drawn given
    the one above."""

    def log_terms(self, x: Tensor, tau: Tensor) -> Tensor:
        low, middle, high = tau.split(self.sizes, -1)
        scored = [
            made.log_prob(value)
            for made, value in (
                (self.generators[0](low), x),
                (self.generators[1](low), middle),
                (self.generators[2](middle), high),
            )
        ]
        return torch.stack([*scored, self.prior.log_prob(high)])


class TopAtTheBottom(Chain):
    """A ladder that scores its pieces in the order in which they are drawn, though they lie the other way about."""

    def log_probs(self, value: Tensor) -> Tensor:
        pieces = list(value.split(self.sizes, -1))
        later = [make(pieces[:index]).log_prob(pieces[index]) for index, make in enumerate(self.rest, 1)]
        return torch.stack(torch.broadcast_tensors(self.first.log_prob(pieces[0]), *later))


class Ladder(Downward):
    """Down a ladder, by a chain that is right, or by one of a given class."""

    chain: type[Chain] = Chain

    def forward(self, x: Tensor) -> Distribution:
        made = super().forward(x)
        assert isinstance(made, Chain)
        return self.chain(made.first, made.rest, made.sizes, downward=True)


class MadeAs(Upward):
    """Upwards, by a chain of a given class."""

    chain: type[Chain] = Chain

    def forward(self, x: Tensor) -> Distribution:
        made = super().forward(x)
        assert isinstance(made, Chain)
        return self.chain(made.first, made.rest, made.sizes)


@attrs.frozen
class Tower(Model):
    """Three layers of bits, right by default."""

    chain: type[Chain] = Chain
    generation: type[Layered] = Layered

    def prior_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (3,)

    def assemble(self, prior: Prior, likelihood: Likelihood, posterior: Likelihood, x_mean: Tensor) -> JointBound:
        joint = SBN(sizes=(3, 3, 3)).assemble(prior, likelihood, posterior, x_mean)
        q = MadeAs(list(joint.q.layers), joint.q.sizes)
        q.chain = self.chain
        return JointBound(q, self.generation(prior, list(joint.p.generators), joint.p.sizes))


@attrs.frozen
class Descent(Model):
    """Three layers of reals of one width, read down a ladder; right by default."""

    chain: type[Chain] = Chain

    def prior_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (3,)

    def assemble(self, prior: Prior, likelihood: Likelihood, posterior: Likelihood, x_mean: Tensor) -> JointBound:
        made = LADDER(sizes=(3, 3, 3), hidden=(4, 4, 4)).assemble(prior, likelihood, posterior, x_mean)
        q = Ladder(made.q.reading, made.q.sizes)
        q.chain = self.chain
        return JointBound(q, made.p)


class Detached(RecurrentGeneration):
    """Takes the states that a draw of q went through for numbers."""

    def terms(self, x: Tensor, pieces: Sequence[Tensor], states: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return super().terms(x, pieces, [state.detach() for state in states])

    def step_terms(self, x: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        pieces = tau.split(self.recurrence.size, -1)
        return super().terms(x, pieces, self.recurrence.states(x, pieces))


class Late(Detached):
    """Takes the state after a step for that before it."""

    def terms(self, x: Tensor, pieces: Sequence[Tensor], states: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return RecurrentGeneration.terms(self, x, pieces, [*states[1:], states[-1]])


@attrs.frozen
class Recurrent(Model):
    """A latent for each row, right by default."""

    generation: type[RecurrentGeneration] = RecurrentGeneration

    def prior_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2,)

    def assemble(self, prior: Prior, likelihood: Likelihood, posterior: Likelihood, x_mean: Tensor) -> JointBound:
        joint = VRNN(num_latents=2, width=3).assemble(prior, likelihood, posterior, x_mean)
        return JointBound(joint.q, self.generation(joint.p.recurrence))


@pytest.mark.parametrize("model", [Tower, Descent, Recurrent])
def test_the_right_one_passes(model: type[Model]) -> None:
    assert [verdict for verdict in examine_model(model) if not verdict.held] == []


@pytest.mark.parametrize(
    ("model", "law", "words"),
    [
        (Tower(OutOfOrder), "draws_are_scored", "pieces scored out of order"),
        (Tower(ManyPerLayer), "draws_follow_log_prob", "another distribution than log_prob's"),
        (Tower(EachTwice), "draws_follow_log_prob", "depend on each other"),
        (Tower(generation=TermForgotten), "draws_are_scored", "log_terms sum to"),
        (Tower(generation=GivenItself), "dreams_follow_log_joint", "given another than it is scored with"),
        (Descent(TopAtTheBottom), "draws_are_scored", "pieces scored out of order"),
        (Recurrent(Late), "draws_are_shared", "is it of another draw?"),
        (Recurrent(Detached), "draws_are_shared", "was something detached?"),
    ],
    ids=repr,
)
def test_wrong_model_dies(model: Model, law: str, words: str) -> None:
    failed = {verdict.law: verdict.detail for verdict in examine_model(model) if not verdict.held}
    assert words in failed[law]


class WideNormal(Normal):
    """Draws spread half as far again as log_prob says, about the right mean."""

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        return self.loc + 1.5 * (super().rsample(sample_shape) - self.loc)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        return self.rsample(sample_shape).detach()


@attrs.frozen
class Wide(Likelihood):
    support = real

    def __call__(self, outputs: Tensor, event_shape: tuple[int, ...]) -> Distribution:
        return Independent(WideNormal(outputs, torch.ones_like(outputs)), len(event_shape))


@attrs.frozen
class CalledReals(Likelihood):
    """Bits that say they are reals."""

    support = real

    def __call__(self, outputs: Tensor, event_shape: tuple[int, ...]) -> Distribution:
        return Bits(outputs, len(event_shape))


@attrs.frozen
class CalledSpins(CalledReals):
    support = spin


class SpinRates(Rates):
    support = spin


class BitBell(Bell):
    support = boolean


@pytest.mark.parametrize(
    ("likelihood", "law", "words"),
    [
        (Wide, "draws_follow_log_prob", "another distribution"),
        (CalledReals, "support_is_true", "it says reals, and its distribution bits"),
        (CalledSpins, "support_is_true", "it says spins, and its distribution bits"),
    ],
)
def test_wrong_likelihood_dies(likelihood: type[Likelihood], law: str, words: str) -> None:
    failed = {verdict.law: verdict.detail for verdict in examine_likelihood(likelihood) if not verdict.held}
    assert words in failed[law]


@pytest.mark.parametrize(("prior", "over"), [(SpinRates, "spins"), (BitBell, "bits")])
def test_a_prior_that_lies_about_its_support_dies(prior: type[Prior], over: str) -> None:
    failed = {verdict.law: verdict.detail for verdict in examine_prior(prior) if not verdict.held}
    assert f"it says it is over {over}, but sample gives other values" in failed["support_is_true"]
