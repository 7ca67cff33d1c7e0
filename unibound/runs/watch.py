"""What is watched while a model trains: whether q stays undecided, which units carry something, how the chain mixes."""

from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from unibound.data.rows import Data, spread
from unibound.distributions import Bits
from unibound.energies.energy import EnergyPrior
from unibound.evaluation.diagnose import count_active
from unibound.evaluation.evaluate import Evaluation
from unibound.joint import JointBound
from unibound.runs.carried import DRAWS, LIMIT, carried
from unibound.support import places, values

SURE = 0.05
"""A bit is saturated if its probability is closer than this to 0 or to 1."""
CERTAIN = 0.9
"""Share of saturated bits from which on q hardly chooses any more, and is a code rather than a posterior."""
STILL = 0.02
"""Share of the way to independent draws below which a training step leaves chains where they are."""
CROSSED, SPAN = 0.02, 10
"""Share of the way to independent draws below which so many training steps leave states on the side where they are."""
STARTS, FEWEST = 200, 50
"""Codes that are moved to see that, and states on either side that tell."""


@attrs.frozen
class Watched:
    """What a look at validation data found; None where there is nothing of the kind to be seen.

    Args:
        valid_ess: mean effective sample size of the particles' weights.
        valid_gap: nats by which the bound rises as particles double.
        saturated: share of the bits of q(tau | x) with a probability below 0.05 or above 0.95.
        active: units whose posterior mean varies over the data.
        reconstruction: mean change of an element of a code in one Gibbs step from it; the share of bits that flip.
        code_free_energy: mean F(tau) of codes, tau ~ q(tau | x), in nats.
        chain_free_energy: that of the persistent chains.
        chain_moved: mean squared change of the chains in one training step, relative to that between independent
            draws from them: 1 if a step forgets where it began, 0 if it stays there.
        chain_crossed: of the two sides of the direction in which codes and chains differ most, how readily states leave
            either in ten training steps: 1 if they forget on which they were, 0 where both are phases that no chain
            leaves, however lively it is within its own. None where one side has hardly any.
        swapped: of chains at several temperatures, the least share of swaps accepted between two neighbors, lately.
        round_trips: chains per hundred that came back from the hottest temperature, or the first weights, in one
            training step, lately.
        layers: where latents have layers, mean of what each adds to the bound in nats, the lowest first: minus what it
            carries. For a layer between others it is no divergence, and may be above zero.
        latent_nats: mean KL(q(tau | x) || p(tau)), what all latents together carry.
        datum_nats: mean -log p(x | tau), what a datum costs once they are known.
    """

    valid_ess: float | None = None
    valid_gap: float | None = None
    saturated: float | None = None
    active: int | None = None
    reconstruction: float | None = None
    code_free_energy: float | None = None
    chain_free_energy: float | None = None
    chain_moved: float | None = None
    chain_crossed: float | None = None
    swapped: float | None = None
    round_trips: float | None = None
    layers: tuple[float, ...] | None = None
    latent_nats: float | None = None
    datum_nats: float | None = None

    @property
    def stuck(self) -> str | None:
        """Why the chains are not to be relied on, and what would help; None where nothing speaks against them."""
        if self.round_trips == 0:
            return (
                "no chain has come back lately from the hottest temperature, or the first weights; take more replicas, "
                "or a lower rate"
            )
        if self.round_trips is not None:
            return None  # slow at 1, perhaps, and fed from above
        cure = "take more steps, or replicas at several temperatures"
        if self.chain_moved is not None and self.chain_moved < STILL:
            moved = f"{self.chain_moved:.1%} of what independent draws differ by"
            return f"a training step moves the chains by {moved}; {cure}"
        if self.chain_crossed is not None and self.chain_crossed < CROSSED:
            return (
                f"there are two phases, and {SPAN} training steps go {self.chain_crossed:.1%} of the way to forgetting "
                f"in which a chain was; {cure}"
            )
        return None

    @property
    def certain(self) -> str | None:
        """That q hardly leaves anything open, and what would help; None where it does."""
        if self.saturated is None or self.saturated < CERTAIN:
            return None
        return (
            f"{self.saturated:.0%} of the bits of q are certain: particles are all alike, and the prior has to fit a "
            "code; take a larger weight decay, more latents, or begin with fewer epochs of autoencoder"
        )

    @property
    def numbers(self) -> dict[str, float]:
        """What there is, by name."""
        found = {name: value for name, value in attrs.asdict(self).items() if value is not None}
        layers = found.pop("layers", ())
        return found | {f"nats_of_layer_{layer}": value for layer, value in enumerate(layers, 1)}


@torch.no_grad()
def watch(joint: JointBound, x: Data, valid: Evaluation, *, seed: int) -> Watched:
    """Look at a joint; weights, chains and the random numbers of training are left as they are.

    Args:
        joint: q and p; left in the mode they are in.
        x: validation data [N, *X], of which 500 are looked at, evenly spread.
        valid: what evaluation on them came to.
        seed: of the random numbers drawn here.
    """
    prior = joint.p.unnormalized
    with joint.evaluating(), torch.random.fork_rng():
        torch.manual_seed(seed)
        codes, found = _posterior(joint, spread(x, LIMIT))
        made = carried(joint, spread(x, LIMIT), 0.0 if valid.log_z is None else valid.log_z.value)
        if made is not None:
            layers = made.layers if len(made.layers) > 1 else None
            found |= {"layers": layers, "latent_nats": made.latents, "datum_nats": made.datum}
        if isinstance(prior, EnergyPrior):
            found |= _chains(prior, codes)
    return Watched(valid_ess=valid.ess, valid_gap=valid.gap, **found)


def _posterior(joint: JointBound, x: Data) -> tuple[Tensor, dict[str, Any]]:
    """One state of the prior per datum [N, *Z], and what q(tau | x) looks like."""
    codes, means, noise, sure = [], [], [], []
    for batch in x.split(50):
        posterior = joint.q(batch)
        tau = posterior.sample((DRAWS,))  # [K, B, *Z]
        codes.append(joint.p.state(batch, tau[0]).clone())  # or else all draws are kept
        draws = tau.double().flatten(2)  # [K, B, Z]
        means.append(draws.mean(0))
        noise.append(draws.var(0) / DRAWS)
        if isinstance(posterior, Bits):
            sure.append(((posterior.mean - 0.5).abs() > 0.5 - SURE).double().flatten())
    learned = len(x) > 1 and any(True for _ in joint.q.parameters())
    return torch.cat(codes), {
        "saturated": torch.cat(sure).mean().item() if sure else None,
        "active": count_active(torch.cat(means), torch.cat(noise).mean(0)) if learned else None,
    }


def _chains(prior: EnergyPrior, codes: Tensor) -> dict[str, Any]:
    """How the prior sees codes [N, *Z] and its own chains, and how both move."""
    chains = prior.chains
    step, moved = prior.move(codes, 1), prior.move(chains, prior.steps)
    # Independent draws differ by twice their variance; for bits that is how often two of them disagree.
    anew = 2 * chains.double().var(0).mean().item() if len(chains) > 1 else 0.0
    return {
        "reconstruction": (step - codes).abs().mean().item(),
        "code_free_energy": prior.free_energy(codes).double().mean().item(),
        "chain_free_energy": prior.free_energy(chains).double().mean().item(),
        "chain_moved": (moved - chains).square().double().mean().item() / anew if anew > 0 else None,
        "chain_crossed": _crossed(prior, codes),
        "swapped": None if prior.flow is None else prior.flow.shares.min().item(),
        "round_trips": None if prior.flow is None else 100 * prior.flow.trips.item(),
    }


def _crossed(prior: EnergyPrior, codes: Tensor) -> float | None:
    """How readily states leave either side of where codes [N, *Z] and chains differ most, under the prior's own moves.

    The rates of leaving the two sides add up to 1 less the autocorrelation of the side: whatever their shares.
    """
    listed = values(prior.support)
    begin = torch.cat([codes[:: -(-len(codes) // STARTS)], prior.chains])
    both = torch.stack([begin, prior.move(begin, SPAN * prior.steps)]).flatten(2)  # [2, N + M, Z]
    if listed is not None and len(listed) > 2:  # whose numbers are but names
        both = one_hot(places(both, listed), len(listed)).flatten(2)
    both = both.double()
    _, spread, axes = torch.pca_lowrank(both[0], q=1)
    beyond = (both - both[0].mean(0)) @ axes[:, 0] > 0  # [2, N + M]
    sides = [beyond[0], ~beyond[0]]
    if spread[0] == 0 or min(int(side.sum()) for side in sides) < FEWEST:
        return None
    left = beyond[0] != beyond[1]
    return sum(left[side].double().mean().item() for side in sides)
