"""What every estimate must be, whatever it estimates."""

import torch
from torch import Tensor

from unibound.claim import Side
from unibound.estimator import Estimate
from unibound.testing.laws.candidate import Candidate, bound_of, claims_bound, trial
from unibound.testing.listing import gradients
from unibound.testing.replay import Rehearsal, rehearse
from unibound.testing.verdict import TOLERANCE, demand, gap


def check_refuses_what_cannot_work(candidate: Candidate) -> str:
    """A pair that `check` accepts can be run."""
    demand(
        not candidate.surprises,
        f"check accepted what then failed: {'; '.join(candidate.surprises)}; raise UsageError in check, and say "
        "what would work",
    )
    return f"runs in: {', '.join(candidate.worlds)}"


def shapes_and_dtypes(candidate: Candidate) -> str:
    """It returns an Estimate of one value per datum, in the dtype of the data."""
    for name, world in candidate.worlds.items():
        for dtype in (torch.float32, torch.float64):
            same = world.to(dtype)
            estimate = trial(same, candidate.estimator, same.xs[torch.arange(5) % len(same.xs)])
            demand(isinstance(estimate, Estimate), f"returned {type(estimate).__name__}, not an Estimate")
            demand(
                estimate.side is not Side.UPPER, "side is `upper`, but a bound is maximized; say lower, equal or none"
            )
            for field in ("surrogate", "bound", "log_weights"):
                value: Tensor | None = getattr(estimate, field)
                if value is None and field != "surrogate":
                    continue
                demand(isinstance(value, Tensor), f"{name}: {field} is {type(value).__name__}, not a Tensor")
                assert value is not None
                dims, wanted = (2, "[K, 5]") if field == "log_weights" else (1, "[5]")
                right = value.dim() == dims and value.shape[-1] == 5
                demand(right, f"{name}: {field} of 5 data has shape {list(value.shape)}, not {wanted}")
                demand(value.dtype == dtype, f"{name}: {field} is {value.dtype} for data in {dtype}")
                demand(bool(value.isfinite().all()), f"{name}: {field} is not finite in {dtype}")
    return "[B] and [K, B], in float32 and float64"


def bound_is_detached(candidate: Candidate) -> str:
    """The bound and the log-weights carry no gradient, the surrogate does."""
    for name, world in candidate.worlds.items():
        estimate = trial(world, candidate.estimator, world.xs)
        demand(estimate.surrogate.requires_grad, f"{name}: the surrogate carries no gradient; was it detached?")
        for field in ("bound", "log_weights"):
            value: Tensor | None = getattr(estimate, field)
            attached = value is not None and value.requires_grad
            demand(not attached, f"{name}: {field} carries a gradient and so keeps the graph alive; detach it")
    return "bound and log_weights are detached, the surrogate is not"


def same_seed_same_estimate(candidate: Candidate) -> str:
    """Under one seed of torch it says the same twice."""
    for name, world in candidate.worlds.items():
        first, second = (trial(world, candidate.estimator, world.xs).surrogate for _ in range(2))
        demand(
            torch.equal(first, second),
            f"{name}: two surrogates differ by {gap(first, second):.3g} after the same torch.manual_seed; does it "
            "draw by another generator, or keep state in itself?",
        )
    return "bitwise the same"


def same_draws_same_bound(candidate: Candidate) -> str:
    """Given the draws of joint.particles and joint.p.dream, bound and surrogate are functions of x."""
    for name, world in candidate.worlds.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(21)
            first, second = (rehearse(world, candidate.estimator) for _ in range(2))
        if not claims_bound(first):
            return "does not apply: it claims no bound"
        pairs = {
            "bound": (bound_of(first), bound_of(second)),
            "surrogate": (first.estimate.surrogate, second.estimate.surrogate),
        }
        for field, (one, other) in pairs.items():
            demand(
                gap(one, other) <= TOLERANCE,
                f"{name}: the {field} of the same x with the same particles changes by {gap(one, other):.3g} from "
                "one call to the next: it is random; draw only through joint.particles and joint.p.dream",
            )
    return "two runs on the same draws agree"


def each_datum_on_its_own(candidate: Candidate) -> str:
    """Permuting the batch permutes the results, and splitting it changes nothing."""
    worst = 0.0
    for name, world in candidate.worlds.items():
        whole = rehearse(world, candidate.estimator)
        if not claims_bound(whole):
            return "does not apply: it claims no bound"
        count = len(whole.datum)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(31))
        thirds = list(torch.arange(count).split(count // 3 + 1))
        for what, pieces in {"permuting": [order], "splitting": thirds}.items():
            parts = [rehearse(world, candidate.estimator, rows) for rows in pieces]
            off = gap(torch.cat([bound_of(part) for part in parts]), bound_of(whole)[torch.cat(pieces)])
            demand(
                off <= TOLERANCE,
                f"{name}: {what} a batch of {count} changes the bound of a datum by {off:.3g} nats; are weights "
                "normalized or averaged over the batch, and not over the K particles (dim 0) alone?",
            )
            off = gap(_slope(parts, pieces), _slope([whole], [torch.arange(count)]))
            demand(
                off <= 1e-8,
                f"{name}: {what} a batch of {count} changes the gradient of a datum's surrogate by {off:.3g}; is a "
                "weight, a baseline or a scale shared over the batch?",
            )
            worst = max(worst, off)
    return f"largest change {worst:.1e}"


def _slope(parts: list[Rehearsal], pieces: list[Tensor]) -> Tensor:
    """Gradient of the mean surrogate, each row weighed by its number, as one vector."""
    total = torch.zeros(())
    count = sum(map(len, pieces))
    for part, rows in zip(parts, pieces, strict=True):
        value = ((1 + rows % 7) * part.estimate.surrogate).sum() / count
        total = total + torch.cat(list(gradients(value, part.groups()).values()))
    return total


LAWS = (
    check_refuses_what_cannot_work,
    shapes_and_dtypes,
    bound_is_detached,
    same_seed_same_estimate,
    same_draws_same_bound,
    each_datum_on_its_own,
)
