"""Other ways to read the same data, or the same weights: pixels transposed or inverted, W the other way round.

A reading is tried, and refuses only if it explains the data. Those that are merely unlike the model's are strange in
every reading, and likelier in one of them for no reason.
"""

import copy
import math
from collections.abc import Callable

import attrs
from torch import Tensor

from unibound.energies.energy import EnergyPrior
from unibound.evaluation.certify import checks
from unibound.evaluation.certify.bases import Plan, look
from unibound.partition import annealing, enumeration, schedules

LEAST_GAIN = 0.1
"""Nats per datum that another reading must gain to be worth a word."""
SURE = 5.0
"""Standard errors by which it must gain them."""
HOME = 0.25
"""How much of its distance to the model's own draws may be left of a datum that is read rightly."""

COARSER = 8
"""By how many times fewer temperatures other weights are looked at first."""


@attrs.frozen(eq=False)
class Reading:
    """What the data would be under another reading.

    Args:
        name: what would have been done to them, or to the weights.
        gain: log-likelihood of each datum in that reading, less that in this one [N] nats.
        explains: whether a model so read explains the data, and is not only less surprised by them.
    """

    name: str
    gain: Tensor
    explains: bool

    @property
    def mean(self) -> float:
        """Nats per datum that are gained."""
        return self.gain.mean().item()

    @property
    def gains(self) -> bool:
        """Whether the data are surely likelier in it."""
        count = len(self.gain)
        stderr = self.gain.std().item() / math.sqrt(count) if count > 1 else math.inf
        return self.mean > max(LEAST_GAIN, SURE * stderr)

    @property
    def words(self) -> str:
        """The reading, as a cause."""
        return f"{self.name}: with that undone, the mean log-likelihood of the data is {self.mean:.2f} nats higher"

    def beats(self, ll: float, log_base: Tensor | None) -> "Reading":
        """The same, explaining the data if in it they are likelier than under independent pixels, [N] nats.

        Args:
            ll: mean log-likelihood of the data as they are read.
            log_base: log-probabilities under independent pixels.
        """
        return attrs.evolve(self, explains=log_base is None or ll + self.mean > log_base.mean().item())


def of_pixels(prior: EnergyPrior, x: Tensor, image: tuple[int, ...], draws: Tensor) -> Reading | None:
    """Data [N, *Z] with ink and paper exchanged, or as transposed images; None where they are no likelier.

    A difference of free energies is one of log-likelihoods: log Z is the same, and not needed. Data are explained where
    this makes them as likely as what the model draws, to which they are strange as they stand.

    Args:
        prior: a model of the data, over bits.
        x: data.
        image: shape of an image, of which a latent is the row-major list.
        draws: states taken for draws of the model [M, *Z].
    """
    undone = {"inverted pixels": 1 - x}
    if len(image) == 2 and min(image) > 1:
        undone["transposed pixels"] = x.reshape(len(x), *reversed(image)).mT.reshape(x.shape)
        if image[0] == image[1]:
            undone["transposed and inverted pixels"] = 1 - undone["transposed pixels"]
    here, drawn = checks.free_energies(prior, x), checks.free_energies(prior, draws).mean().item()
    found = {name: checks.free_energies(prior, other) for name, other in undone.items()}
    name, there = min(found.items(), key=lambda item: item[1].mean().item())
    left, distance = (abs(each.mean().item() - drawn) for each in (there, here))
    best = Reading(name, here - there, left < HOME * distance)
    return best if best.gains else None


def of_weights(
    name: str,
    prior: EnergyPrior,
    test: Tensor,
    train: Tensor,
    log_p: Tensor,
    plan: Plan,
    on_progress: Callable[[int], object] = lambda done: None,
) -> Reading | None:
    """The same data under other weights, which have a log Z of their own; None where they are no likelier.

    A few chains over few temperatures say so in most cases, as their log Z errs low and flatters the reading.

    Args:
        name: what would have been done to the weights.
        prior: the model of those weights; not modified.
        test: data [N, *Z].
        train: data that its base distribution is fitted to.
        log_p: log-likelihoods of the data as the weights stand [N].
        plan: how log Z is looked for.
        on_progress: called with the number of chain-steps done in each block.
    """
    prior, plan = copy.deepcopy(prior).eval(), attrs.evolve(plan, base="data")
    test, train = (x.to(prior.chains) for x in (test, train))
    log_f = -checks.free_energies(copy.deepcopy(prior).double(), test)
    if annealing.draws_exactly(prior):
        found = Reading(name, log_f - enumeration.log_sum(prior) - log_p, False)
        return found if found.gains else None
    prior.fit_base(train)
    path = schedules.coarser(plan.schedule(prior), COARSER)
    flattered = annealing.lower_bound(prior, annealing.forward(prior, plan.few, path, on_progress)[1])
    if not Reading(name, log_f - flattered.value - log_p, False).gains:
        return None
    both = look(prior, train, plan, on_progress).both
    if not both.trustworthy or both.interval.high is None:
        return None
    found = Reading(name, log_f - both.interval.high - log_p, False)
    return found if found.gains else None


def image_shape(x: Tensor) -> tuple[int, ...]:
    """The shape of one image of x [N, *X]: as it is, or square if it is flat and could be."""
    shape = tuple(x.shape[1:])
    side = math.isqrt(shape[0]) if len(shape) == 1 else 0
    return (side, side) if side > 1 and side * side == shape[0] else shape
