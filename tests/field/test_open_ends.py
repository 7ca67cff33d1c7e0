"""Every reason for which the far end of a likelihood is left open occurs, and is said by all who claim such ends."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution

from unibound import Directed, Generator, Inference, JointBound, UsageError, registries
from unibound.cli.evaluate import documents
from unibound.distributions import Bits
from unibound.draws import Drawn
from unibound.evaluation.certify import certify_joint
from unibound.evaluation.evaluate import evaluate
from unibound.support import boolean


class Fixed(Inference):
    """The same q for every datum."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor) -> Distribution:
        return Bits(self.logits.expand(len(x), -1))


class Linear(Generator):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, tau: Tensor) -> Distribution:
        return Bits(tau.sub(0.5) @ self.weight)


def far(latents: int, scale: float, sure: float = 8.0) -> tuple[JointBound, Tensor]:
    """Latents of which q is sure, and wrong, with data of the model."""
    torch.manual_seed(0)
    prior = registries()["prior"]["bernoulli"]((latents,))
    p = Directed(prior, Linear(scale * torch.randn(latents, 60)))
    return JointBound(Fixed(torch.full((latents,), sure)), p).eval(), p.dream(60)[0]


class OneTerm(Drawn):
    partial = True
    support = boolean

    def __init__(self, size: torch.Size) -> None:
        super().__init__(size, torch.Size([4]), validate_args=False)

    def draw(self, count: int, *, reparameterized: bool) -> tuple[Tensor, Tensor]:
        tau = torch.randint(2, (count, *self.batch_shape, 4)).float()
        return tau, torch.full((count, *self.batch_shape), -4 * math.log(2))

    def log_prob(self, value: Tensor) -> Tensor:
        return torch.full(value.shape[:-1], -4 * math.log(2))


class Partly(Inference):
    def forward(self, x: Tensor) -> Distribution:
        return OneTerm(x.shape[:-1])


class Mute(Directed):
    """A p that gives no data of its own."""

    def dream(self, count: int, **_: bool) -> tuple[Tensor, Tensor]:
        raise UsageError("mute gives no data")


class Copy(Bits):
    """x is a copy of tau; with the probability of `floor`, even bits instead. Nothing but tau itself leads to it."""

    def __init__(self, tau: Tensor, floor: float) -> None:
        super().__init__(torch.zeros_like(tau))
        self.tau, self.floor = tau, torch.tensor(floor)

    def log_prob(self, value: Tensor) -> Tensor:
        same = torch.where((value == self.tau).all(-1), (1 - self.floor).log(), -math.inf)
        return torch.logaddexp(same, self.floor.log() + super().log_prob(value))

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        even = torch.rand(*sample_shape, *self.tau.shape[:-1], 1) < self.floor
        return torch.where(even, super().sample(sample_shape), self.tau)


class Copies(Generator):
    def __init__(self, floor: float) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, tau: Tensor) -> Distribution:
        return Copy(tau, self.floor)


def copies(latents: int, floor: float) -> tuple[JointBound, Tensor]:
    torch.manual_seed(0)
    p = Directed(registries()["prior"]["bernoulli"]((latents,)), Copies(floor))
    return JointBound(Fixed(torch.zeros(latents)), p).eval(), p.dream(60)[0]


def unlooked() -> tuple[JointBound, Tensor]:
    return far(4, 1.0)


def in_terms() -> tuple[JointBound, Tensor]:
    joint, x = far(4, 1.0)
    return JointBound(Partly(), joint.p).eval(), x


def without_dreams() -> tuple[JointBound, Tensor]:
    joint, x = far(4, 1.0)
    return JointBound(joint.q, Mute(joint.p.prior, joint.p.generator)).eval(), x


def many_latents() -> tuple[JointBound, Tensor]:
    """So many that each doubling of the draws finds better ones."""
    return far(30, 1.0, sure=0.0)


CASES: dict[str, tuple[Callable[[], tuple[JointBound, Tensor]], str, str]] = {
    "not looked": (unlooked, "none", "nothing was looked at beyond q's own draws"),
    "terms": (in_terms, "draws", "a draw of q stands for one term of tau"),
    "no dreams": (without_dreams, "draws", "the model gives no data of its own to try the bound on (mute gives"),
    "rises": (many_latents, "draws", "still rises by "),
    # No draw finds the latent of a datum, whether there are a hundred or two; that of a dream is known.
    "lacks": (lambda: copies(30, 0.5), "draws", "on data of the model's own, where log p is known from both sides"),
    # One draw in 32 has any weight: of all of them some have, and of half of them for some data none.
    "infinite": (lambda: copies(5, 0.0), "draws", "bounds of it from elsewhere are not finite"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_reason_occurs_and_is_said(case: str) -> None:
    make, posterior, why = CASES[case]
    joint, x = make()
    found = evaluate(joint, x, num_particles=200, posterior=posterior)
    assert found.interval.low is None
    assert found.interval.high is not None
    assert "no lower end: " in found.conclusion
    assert why in found.conclusion
    assert why in documents({"none": found})[0]["no_lower_end"]
    certificate = certify_joint(joint, x, x, num_particles=200, posterior=posterior, raise_cases=0)
    assert certificate.test_ll_high is None
    assert any("no upper end: " in reason and why in reason for reason in certificate.reasons)


def test_of_one_datum_it_is_said_that_it_is_one() -> None:
    joint, x = far(4, 1.0)
    assert "one datum" in evaluate(joint, x[:1], num_particles=200).conclusion
    certificate = certify_joint(joint, x[:1], x, num_particles=200, posterior="draws", raise_cases=0)
    assert certificate.test_ll_high is None
    assert any("no upper end: one datum" in reason for reason in certificate.reasons)
