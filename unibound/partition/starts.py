"""Where chains or draws of a posterior begin: q, a flattened q, the prior, even values, or a blend of them.

Shapes: M chains, B data, *Z one latent, L layers. Everything is in nats, float64.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection

import attrs
import torch
from torch import Tensor
from torch.distributions import Distribution

from unibound import support
from unibound.distributions import PointMass
from unibound.distributions.flattening import flatten
from unibound.draws import draw, pieces
from unibound.generation import Generation

FLATTER = 4.0
"""Factor by which q is flattened."""
TRIED = 10
"""Even values per datum that tell whether p allows any."""


class Start(ABC):
    """A normalized distribution over tau, one for each of B data, to begin at.

    Args:
        name: in words.
    """

    name: str

    @abstractmethod
    def draw(self, count: int) -> Tensor:
        """Independent draws [count, B, *Z]."""

    @abstractmethod
    def log_prob(self, tau: Tensor, log_terms: Tensor) -> Tensor:
        """log-density of tau [M, B, *Z], of which p has the terms [L + 1, M, B]: [M, B] nats."""

    def place(self, tau: Tensor, log_terms: Tensor) -> Tensor:
        """Which of the draws a given tau [B, *Z], with p's terms [L + 1, B], may stand in for: [B]."""
        del log_terms
        return torch.zeros(len(tau), dtype=torch.long, device=tau.device)


@attrs.frozen(eq=False)
class Given(Start):
    """A torch distribution of batch shape [B]: q(tau | x), or what was made of it."""

    name: str
    distribution: Distribution

    def draw(self, count: int) -> Tensor:
        return draw(self.distribution, count)[0]

    def log_prob(self, tau: Tensor, log_terms: Tensor) -> Tensor:
        del log_terms
        return self.distribution.log_prob(tau).double()


@attrs.frozen(eq=False)
class FromPrior(Start):
    """p(tau) of a normalized p that knows its terms; the datum plays no part."""

    p: Generation
    num_data: int
    name: str = "the prior"

    def draw(self, count: int) -> Tensor:
        return self.p.dream(count * self.num_data)[1].unflatten(0, (count, self.num_data))

    def log_prob(self, tau: Tensor, log_terms: Tensor) -> Tensor:
        del tau
        return log_terms[1:].sum(0).double()


@attrs.frozen(eq=False)
class Even(Start):
    """Every value of every element alike, where these are finitely many; those that are held stay as they are.

    Args:
        like: one tau for each datum [B, *Z].
        listed: the values.
        held: which elements of a row have no value but that of `like` [Z].
    """

    like: Tensor
    listed: tuple[float, ...]
    held: Tensor
    name: str = "even values"

    def draw(self, count: int) -> Tensor:
        index = torch.randint(len(self.listed), (count, *self.like.shape), device=self.like.device)
        even = torch.tensor(self.listed).to(self.like)[index]
        return torch.where(self.held, self.like.flatten(1), even.flatten(2)).view_as(even)

    def log_prob(self, tau: Tensor, log_terms: Tensor) -> Tensor:
        del log_terms
        moved = ((tau != self.like).flatten(2) & self.held).any(-1)  # [M, B]
        log_p = -(~self.held).sum().double() * math.log(len(self.listed))
        return log_p.expand(moved.shape).masked_fill(moved, -math.inf)


@attrs.frozen(eq=False)
class Blend(Start):
    """So many draws of each of several starts, all weighed by the mixture of them.

        log (1/K) sum_k p*(x, tau_k) / q_mix(tau_k),   q_mix = sum_s (K_s / K) q_s

    is a lower bound of log p*(x) in expectation for every split K_s, and no weight exceeds K / K_s times what it would
    be under the start that suits it best.

    Args:
        parts: each start with its number of draws K_s, at least one.

    Source: Owen and Zhou, "Safe and effective importance sampling" (2000), https://doi.org/10.1080/01621459.2000.10473909
    """

    parts: tuple[tuple[Start, int], ...]

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        *most, last = [start.name for start, _ in self.parts]
        return f"{', '.join(most)} and {last} together" if most else last

    def draw(self, count: int) -> Tensor:
        assert count == sum(share for _, share in self.parts)
        return torch.cat([start.draw(share) for start, share in self.parts])

    def log_prob(self, tau: Tensor, log_terms: Tensor) -> Tensor:
        total = math.log(sum(share for _, share in self.parts))
        return self._each(tau, log_terms).logsumexp(0) - total

    def place(self, tau: Tensor, log_terms: Tensor) -> Tensor:
        each = self._each(tau.unsqueeze(0), log_terms.unsqueeze(1)).squeeze(1)  # [S, B]
        chosen = torch.multinomial(each.softmax(0).nan_to_num(1.0).T, 1).squeeze(1)  # [B]
        first = torch.tensor([0, *(share for _, share in self.parts)]).cumsum(0)
        return first.to(chosen)[chosen]

    def _each(self, tau: Tensor, log_terms: Tensor) -> Tensor:
        """Of each start, the log of its number of draws times its density: [S, M, B]."""
        return torch.stack([start.log_prob(tau, log_terms) + math.log(share) for start, share in self.parts])


def starts(p: Generation, x: Tensor, posterior: Distribution, names: Collection[str] | None = None) -> list[Start]:
    """Where to begin for data x [B, *X]: at q(tau | x), and wherever else p and q allow.

    Args:
        p: the generation side.
        x: the data.
        posterior: their q(tau | x).
        names: what to begin at, known of other data; what p allows is found out by chance, and may differ.
    """
    found: list[Start] = [Given("q", posterior)]
    if (flat := flatten(posterior, FLATTER)) is not None and flat is not posterior:
        found.append(Given("a flattened q", flat))
    if p.unnormalized is None and len(p.log_terms(x, posterior.sample())) > 1:
        found.append(FromPrior(p, len(x)))
    found += _even(p, x, posterior, tried=names is None)
    return found if names is None else [start for start in found if start.name in names]


def _even(p: Generation, x: Tensor, posterior: Distribution, tried: bool) -> list[Start]:
    """Even values, where p allows any that are tried, and those of what q leaves open.

    A point mass may be p's own, or q's blindness.
    """
    tau, parts = posterior.sample(), pieces(posterior)  # [B, *Z]
    listed = {support.values(p.support or support.of(made)) for _, made in parts}
    if len(listed) > 1 or (each := listed.pop()) is None:
        return []
    sure = torch.cat([torch.full((size,), isinstance(made, PointMass), device=tau.device) for size, made in parts])
    found: list[Start] = [Even(tau, each, torch.zeros_like(sure))]
    if tried and not p.log_joint(x, found[0].draw(TRIED)).isfinite().any():
        found = []
    if sure.any() and not sure.all():
        found.append(Even(tau, each, sure, "even values of what q leaves open"))
    return found
