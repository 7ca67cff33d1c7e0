"""p(x, tau): the generative model, directed or not.

Shapes: *X one datum, *Z one latent, L layers. Everything is in nats.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from unibound import support
from unibound.errors import UsageError
from unibound.networks import Generator, Inference
from unibound.prior import Prior
from unibound.support import Constraint

ROLES = ("q", "generator", "prior", "auxiliary")
"""What a part of a joint can be, which is the name of its parameter group: estimators speak of groups by these."""


class Generation(nn.Module, ABC):
    """p(x, tau), up to the partition function of at most one prior."""

    @property
    def unnormalized(self) -> Prior | None:
        """The prior whose log Z `log_joint` lacks; None where p(x, tau) is normalized."""
        return None

    @property
    def support(self) -> Constraint | None:
        """What one element of tau is made of; None where its pieces differ, or are whatever q is over."""
        return None

    def state(self, x: Tensor, tau: Tensor) -> Tensor:
        """What `unnormalized` is a distribution over, of x [..., *X] and tau [..., *Z]: tau, unless said otherwise."""
        del x
        return tau

    def complete(self, state: Tensor) -> Tensor:
        """Draw the rest of tau given its state: [..., *S] to [..., *Z], detached. By default the state is all of it."""
        return state

    @abstractmethod
    def log_joint(self, x: Tensor, tau: Tensor) -> Tensor:
        """Map x [..., *X] and tau [..., *Z] (broadcast) to log p*(x, tau) [...] nats."""

    def log_joint_along(self, x: Tensor, tau: Tensor, drawn: Distribution) -> Tensor:
        """`log_joint` of latents that q just drew, which may spare p what was computed on the way to them.

        Its gradient then finds the parameters of q past tau, and must not be weighed there. By default nothing is
        spared.

        Args:
            x: data [B, *X] that q was given.
            tau: latents [K, B, *Z].
            drawn: the q(tau | x) that drew them.
        """
        del drawn
        return self.log_joint(x, tau)

    def log_terms(self, x: Tensor, tau: Tensor) -> Tensor:
        """The terms that `log_joint` sums: [L + 1, ...] nats, that of p(x | ...) first, then those of log p*(tau).

        One term, and it is all, where nothing is known of them, which is the default.
        """
        return self.log_joint(x, tau).unsqueeze(0)

    def conditional(self, tau: Tensor) -> Distribution:
        """p(x | tau) for tau [..., *Z]: batch shape [...], event shape [*X].

        Raises:
            UsageError: where there is none to ask for.
        """
        raise UsageError(f"{type(self).__name__} has no p(x | tau) of its own; use what asks for log p(x, tau) alone")

    @abstractmethod
    def dream(self, count: int, *, persistent: bool = False) -> tuple[Tensor, Tensor]:
        """Draw (x [count, *X], tau [count, *Z]) from p, detached.

        With `persistent`, the state of tau is that of the prior's chains as they stand.
        """

    def stages(self, count: int, steps: int | None = None) -> Tensor:
        """What data look like while p draws them, from the first stage to the datum itself: [S, count, *X], detached.

        Args:
            count: of data.
            steps: of a p that may take few or many; by default as many as it takes for a dream.
        Raises:
            UsageError: a p that draws a datum at once, or not in so many steps.
        """
        raise UsageError(f"{type(self).__name__} draws data at once, and has no stages to show; use samples")

    def parts(self) -> dict[str, nn.Module]:
        """The modules with parameters of their own, by the role they play (see `ROLES`), which names their group."""
        return {"generator": self}

    def advance(self) -> None:
        """Move sampler state on; called once before each training step."""

    def bind(self, q: Inference, x: Tensor) -> None:
        """Get to know q and the training data x [N, *X], once."""
        del q, x


class Directed(Generation):
    """p(x, tau) = p(tau) p(x | tau)."""

    def __init__(self, prior: Prior, generator: Generator) -> None:
        super().__init__()
        self.prior = prior
        self.generator = generator

    @property
    def unnormalized(self) -> Prior | None:
        return self.prior if self.prior.log_z is None else None

    @property
    def support(self) -> Constraint | None:
        return self.prior.support

    def conditional(self, tau: Tensor) -> Distribution:
        return self.generator(self.prior.visible(tau))

    def log_joint(self, x: Tensor, tau: Tensor) -> Tensor:
        log_x, log_tau = self._terms(x, tau)
        return log_tau + log_x

    def log_terms(self, x: Tensor, tau: Tensor) -> Tensor:
        return torch.stack(torch.broadcast_tensors(*self._terms(x, tau)))

    def _terms(self, x: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        lead = tau.shape[: tau.dim() - len(self.prior.state_shape)]
        log_tau = _of_each(self.prior, tau, lead)
        return _log_prob(self.conditional(tau), x, lead, "p(x | tau)"), log_tau

    def dream(self, count: int, *, persistent: bool = False) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            tau = self.prior.persistent(count) if persistent else self.prior.sample(count)
            return self.conditional(tau).sample(), tau

    def parts(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "prior": self.prior}

    def advance(self) -> None:
        self.prior.advance()

    def bind(self, q: Inference, x: Tensor) -> None:
        self.prior.bind(q, x)


class Layered(Generation):
    """p(x, tau) = p(tau_L) p(tau_{L-1} | tau_L) ... p(tau_1 | tau_2) p(x | tau_1): layers above one another.

    The pieces lie side by side in one tensor [..., Z_1 + ... + Z_L], that of the lowest layer first, as `Upward` draws
    them. With an energy on top this is a deep belief net: its state is the top piece.

    Args:
        prior: p(tau_L), of event shape [Z_L].
        generators: p(x | tau_1), p(tau_1 | tau_2), ..., from the datum upwards.
        sizes: Z_1 .. Z_L.
    Raises:
        UsageError: numbers of layers or sizes that do not fit.

    Source: Hinton, Osindero and Teh, "A fast learning algorithm for deep belief nets" (2006),
    https://www.cs.toronto.edu/~hinton/absps/fastnc.pdf
    """

    def __init__(self, prior: Prior, generators: Sequence[Generator], sizes: Sequence[int]) -> None:
        super().__init__()
        if len(generators) != len(sizes) or tuple(prior.event_shape) != (sizes[-1],):
            raise UsageError(
                f"layers of sizes {list(sizes)} need {len(sizes)} generators and a prior of shape [{sizes[-1]}], not "
                f"{len(generators)} and {list(prior.event_shape)}; give one generator per size, and the prior the last"
            )
        self.prior = prior
        self.generators = nn.ModuleList(generators)
        self.sizes = [*sizes[:-1], prior.state_shape.numel()]

    @property
    def unnormalized(self) -> Prior | None:
        return self.prior if self.prior.log_z is None else None

    def state(self, x: Tensor, tau: Tensor) -> Tensor:
        del x
        return tau[..., -self.sizes[-1] :]

    def conditional(self, tau: Tensor) -> Distribution:
        below = tau[..., : self.sizes[0]]
        return self.generators[0](self.prior.visible(below) if len(self.sizes) == 1 else below)

    def log_terms(self, x: Tensor, tau: Tensor) -> Tensor:
        pieces, lead = tau.split(self.sizes, -1), tau.shape[:-1]
        seen = (*pieces[:-1], self.prior.visible(pieces[-1]))
        below = zip(self.generators, (x, *pieces[:-1]), seen, strict=True)
        terms = [
            _log_prob(generator(piece), value, lead, f"p(tau_{layer} | tau_{layer + 1})" if layer else "p(x | tau_1)")
            for layer, (generator, value, piece) in enumerate(below)
        ]
        return torch.stack(torch.broadcast_tensors(*terms, _of_each(self.prior, pieces[-1], lead)))

    def log_joint(self, x: Tensor, tau: Tensor) -> Tensor:
        return self.log_terms(x, tau).sum(0)

    @torch.no_grad()
    def complete(self, state: Tensor) -> Tensor:
        pieces, seen = [state], self.prior.visible(state)
        for generator in reversed(self.generators[1:]):
            seen = generator(seen).sample()
            pieces.append(seen)
        return torch.cat(pieces[::-1], -1)

    @torch.no_grad()
    def dream(self, count: int, *, persistent: bool = False) -> tuple[Tensor, Tensor]:
        tau = self.complete(self.prior.persistent(count) if persistent else self.prior.sample(count))
        return self.conditional(tau).sample(), tau

    def parts(self) -> dict[str, nn.Module]:
        return {"generator": self.generators, "prior": self.prior}

    def advance(self) -> None:
        self.prior.advance()

    def bind(self, q: Inference, x: Tensor) -> None:
        self.prior.bind(q, x)


def _of_each(prior: Prior, tau: Tensor, lead: torch.Size) -> Tensor:
    """log p*(tau), one number for each latent."""
    log_p = prior.log_prob(tau)
    if log_p.shape != lead:
        raise UsageError(
            f"log p(tau) of latents {list(lead)}, each {list(prior.state_shape)}, has shape {list(log_p.shape)}, not "
            f"{list(lead)}: let log_prob of {type(prior).__name__} sum over the dimensions of one latent, and no others"
        )
    return log_p


def _log_prob(conditional: Distribution, value: Tensor, lead: torch.Size, name: str) -> Tensor:
    """log-probability of a value that a conditional is indeed over; what is no value of it has no log-probability.

    A batch of another shape than that of the latents would broadcast, and sum over too little or too much.
    """
    if conditional.batch_shape != lead:
        raise UsageError(
            f"{name} of latents {list(lead)} has events of shape {list(conditional.event_shape)} in a batch of "
            f"{list(conditional.batch_shape)}, not {list(lead)}: wrap its distribution in Independent(..., n), with n "
            "the dimensions of one event"
        )
    support.require(support.of(conditional), value, name)
    return conditional.log_prob(value)
