"""What a negative log-likelihood is made of, on test data and on training data, and what its parts could save.

Shapes: K particles, B batch, N data. Everything is in nats.
"""

import math
from typing import Literal

import attrs
import torch
from torch import Tensor

from unibound import support
from unibound.claim import Side
from unibound.data.rows import Data, spread
from unibound.distributions import PointMass
from unibound.errors import UsageError
from unibound.evaluation import probe
from unibound.joint import JointBound
from unibound.partition.log_z import LogZ, NormalizedPrior, Sandwich
from unibound.prior import Prior
from unibound.weights import log_mean_exp

PARTS = {
    "nll": "NLL",
    "data": "= data given latents",
    "latents": "+ latents",
    "posterior": "- missed by q",
    "prior": "another prior saves",
    "generator": "another generator saves",
}
"""What each part is called where it is shown; the second to the fourth add up to the first."""
AT_ONCE, DRAWS = 50_000, 20
"""Particles that are held together, and codes of each datum that other priors and generators are judged by."""
Name = Literal["nll", "data", "latents", "posterior", "prior", "generator"]


@attrs.frozen
class Part:
    """A mean over test data, the same over training data, and how they differ, each with its standard error; nats.

    Args:
        name: one of `PARTS`.
        test, test_stderr: over test data.
        side: on which side that errs.
        train, train_stderr: over training data; None of what was fitted to these.
        overfit, overfit_stderr: test less train, in which an error of log Z cancels; None likewise.
    """

    name: Name
    test: float
    test_stderr: float
    side: Side
    train: float | None = None
    train_stderr: float | None = None
    overfit: float | None = None
    overfit_stderr: float | None = None


@attrs.frozen
class Composition:
    """The parts of an NLL, as far as they can be told apart.

    Args:
        parts: in the order of `PARTS`.
        num_particles: K.
        num_data: of test and of training data.
        trouble: why log Z, and with it the first, third and fifth part, is not to be trusted; None where it is.
    """

    parts: tuple[Part, ...]
    num_particles: int
    num_data: tuple[int, int]
    trouble: str | None = None

    def __getitem__(self, name: str) -> Part:
        """A part by its name. Raises KeyError where it could not be told apart, or was not tried."""
        found = {part.name: part for part in self.parts}
        return found[name]

    def __contains__(self, name: str) -> bool:
        return any(part.name == name for part in self.parts)


@torch.no_grad()
def compose(
    joint: JointBound,
    test: Data,
    train: Data,
    valid: Data,
    normalized: NormalizedPrior | None = None,
    *,
    num_particles: int = 500,
    limit: int = 200,
    probe_steps: int = 3000,
) -> Composition:
    """Take the NLL of test data apart.

        -L_K = E_q[-log p(x | tau)] + E_q[log q(tau | x) - log p(tau)] - (L_K - L_1)

    by datum, with L_1 from the same particles, so that the three add up to the NLL exactly, on test data and on
    training data. The last is at most what q misses, log p(x) - L_1, which K particles make up in evaluation.

    Two more parts are what another prior and another generator would add to L_1 on test data. Each is fitted to codes
    of training data, stops by those of validation data, and is no better than the best there is; so these err low.
    The first is a lower bound of KL(q(tau) || p(tau)), with q(tau) that of data like the test data. A part that is
    missing cannot be told apart for this p, or has nothing to try: priors over counts, generators of other than bits.

    Args:
        joint: q and p; each module is left in the mode it was in.
        test, train, valid: data [N, *X].
        normalized: what normalizes p by one log Z, where it is not.
        num_particles: particles K per datum.
        limit: data of each kind whose parts are averaged, evenly spread.
        probe_steps: training steps of another prior and another generator, at most; 0 for neither.
    Raises:
        UsageError: q that draws single terms of a bound, or a p without what normalizes it.
    Source: Cremer, Li and Duvenaud, "Inference suboptimality in variational autoencoders" (2018),
    https://arxiv.org/abs/1801.03558, for what q misses; Hoffman and Johnson, "ELBO surgery" (2016), for q(tau).
    """
    log_z = None if normalized is None else normalized.log_z
    if joint.p.unnormalized is not None and log_z is None:
        raise UsageError("an NLL is taken apart by one log Z; normalize p by one, as enumeration and annealing give it")
    side = Side.EQUAL if normalized is None else Side(normalized.side)
    sides = {"nll": Side.UPPER if side in (Side.EQUAL, Side.LOWER) else Side.NONE, "latents": -side, "data": Side.EQUAL}
    with joint.evaluating():
        some, others = spread(test, limit)[:], spread(train, limit)[:]
        tested, trained = (_columns(joint, x, num_particles, log_z) for x in (some, others))
        parts: list[Part | None] = []
        for name, values in tested.items():
            error = log_z.stderr if log_z is not None and name in ("nll", "latents") else 0.0
            parts.append(_part(name, values, sides.get(name, Side.LOWER), error, trained[name]))
        if probe_steps > 0:
            parts.append(_of_prior(joint, some, train, valid, log_z, probe_steps))
            parts.append(_of_generator(joint, some, train, valid, probe_steps) if "data" in tested else None)
    found = tuple(part for part in parts if part is not None)
    trouble = None if log_z is None else log_z.trouble
    return Composition(found, num_particles, (len(some), len(others)), trouble)


def _columns(joint: JointBound, x: Tensor, num_particles: int, log_z: LogZ | Sandwich | None) -> dict[Name, Tensor]:
    """The parts that add up, of each datum: [N] each."""
    found: list[Tensor] = []
    shift = 0.0 if log_z is None else log_z.value
    for batch in x.split(max(1, AT_ONCE // num_particles)):
        particles = joint.particles(batch, num_particles)
        log_w = particles.log_weights.double()  # [K, B]
        one, many = log_w.mean(0), log_mean_exp(log_w)
        datum = joint.log_weight_terms(batch, particles.tau).double()  # [L + 1, K, B]
        data = datum[0].mean(0) if len(datum) > 1 else torch.full_like(one, math.nan)
        found.append(torch.stack([shift - many, -data, shift - one + data, many - one]))
    nll, data, latents, posterior = torch.cat(found, 1)
    parts: dict[Name, Tensor] = {"nll": nll, "data": data, "latents": latents, "posterior": posterior}
    return {name: values for name, values in parts.items() if not values.isnan().all()}


def _of_prior(
    joint: JointBound, x: Tensor, train: Data, valid: Data, log_z: LogZ | Sandwich | None, steps: int
) -> Part | None:
    """What another prior would save, by codes of x [N, *X]; with the lower estimate of log Z, so that it errs low."""
    prior = joint.p.unnormalized or joint.parts().get("prior")
    if not isinstance(prior, Prior):
        return None

    def codes(x: Tensor) -> Tensor:
        return joint.p.state(x, joint.q(x).sample())

    if codes(x[:1]).shape[1:] != prior.state_shape:
        return None
    other = probe.of_codes(train, valid, codes, prior.support, steps)
    if other is None:
        return None
    low = log_z.lower if isinstance(log_z, Sandwich) else log_z
    shift, error = (0.0, 0.0) if low is None else (low.value, low.stderr)
    saved = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for _ in range(DRAWS):
        tau = codes(x)
        saved += (other(x, tau).double() - prior.log_prob(tau).double() + shift) / DRAWS
    side = Side.LOWER if low is None or low.side in (Side.EQUAL, Side.LOWER) else Side.NONE
    return _part("prior", saved, side, error)


def _of_generator(joint: JointBound, x: Tensor, train: Data, valid: Data, steps: int) -> Part | None:
    """What another generator would save, of data of bits x [N, *X]."""

    def codes(x: Tensor) -> Tensor:
        return joint.q(x).sample()

    try:
        made = joint.p.conditional(codes(x[:1]))
    except UsageError:  # a p that has no p(x | tau) to ask for
        return None
    if isinstance(made, PointMass) or not support.same(support.of(made), support.boolean):
        return None  # where tau holds the datum, no other could save anything
    other = probe.of_data(train, valid, codes, steps)
    saved = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for _ in range(DRAWS):
        tau = codes(x)
        saved += (other(x, tau).double() - joint.p.log_terms(x, tau)[0].double()) / DRAWS
    return _part("generator", saved, Side.LOWER, 0.0)


def _part(name: Name, test: Tensor, side: Side, error: float, train: Tensor | None = None) -> Part:
    """A part from its values for data [N]; what log Z may add to its error is the same for all of them."""
    mean, stderr = _mean(test)
    if train is None:
        return Part(name, mean, math.hypot(stderr, error), side)
    other, noise = _mean(train)
    seen, trained, between = (math.hypot(*errors) for errors in ((stderr, error), (noise, error), (stderr, noise)))
    return Part(name, mean, seen, side, other, trained, mean - other, between)


def _mean(values: Tensor) -> tuple[float, float]:
    return values.mean().item(), values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
