"""What the surrogate must do: its expected gradient, parameter group by parameter group."""

import torch
from torch import Tensor

from unibound.energies.energy import EnergyPrior
from unibound.estimator import Estimator
from unibound.testing.laws.candidate import Candidate, bound_of, claims_bound, objective
from unibound.testing.listing import gradients, uneven
from unibound.testing.replay import Rehearsal, count_rows, expected_gradient, rehearse
from unibound.testing.verdict import TOLERANCE, demand, in_words
from unibound.testing.worlds import World
from unibound.weights import log_mean_exp

STEP = 2e-3  # of a numerical derivative whose error is its fourth power
LOOSE = 1e-6
ROUNDING = 1e-12  # relative to the largest group: a gradient that small is none


def expected_gradient_is_exact(candidate: Candidate) -> str:
    """For every group declared unbiased, the expected gradient is that of the expected bound."""
    lines = []
    for name, world in candidate.worlds.items():
        truth = _exact_gradient(world, candidate.estimator)
        if truth is None:
            return "does not apply: it claims no bound"
        what, exact, tolerance = truth
        got = expected_gradient(world, candidate.estimator)
        for group in sorted(candidate.estimator.unbiased & exact.keys()):
            off = (got[group] - exact[group]).abs().max().item()
            demand(
                off <= tolerance * max(1.0, exact[group].norm().item()),
                f"{name}: {group} is declared unbiased, but its expected gradient is not that of {what}: "
                f"{_compare(got[group], exact[group])}{_suspect(world, candidate.estimator, group, got, exact)}",
            )
            lines.append(f"{name}, {group}: {off:.1e}")
    return f"largest difference from the exact gradient, by group: {'; '.join(lines)}"


def declared_bias_is_real(candidate: Candidate) -> str:
    """A group left out of `unbiased` is measured, and is biased somewhere."""
    measured: dict[str, dict[str, float]] = {}
    for name, world in candidate.worlds.items():
        if not (declared := world.groups().keys() - candidate.estimator.unbiased):
            continue
        truth = _exact_gradient(world, candidate.estimator)
        if truth is None:
            return "does not apply: it claims no bound"
        _, true, tolerance = truth
        got = expected_gradient(world, candidate.estimator)
        for group in declared:
            off = (got[group] - true[group]).norm().item() / max(true[group].norm().item(), tolerance)
            measured.setdefault(group, {})[name] = off
    exact = sorted(group for group, biases in measured.items() if max(biases.values()) <= LOOSE)
    demand(
        not exact,
        f"{' and '.join(exact)}: not in `unbiased`, but the expected gradient is exact in every world; add to it",
    )
    lines = [f"{group}: {in_words(biases)}" for group, biases in sorted(measured.items())]
    return f"bias relative to the exact gradient: {'; '.join(lines)}" if lines else "no group is declared biased"


def every_group_is_trained(candidate: Candidate) -> str:
    """Every group declared unbiased, and the auxiliary, gets a gradient, and a finite one.

    The draws are weighed unevenly: a gradient that is zero in expectation reaches its group all the same, and whether
    it should be zero is another law's business.
    """
    lines = []
    for name, world in candidate.worlds.items():
        rehearsal = rehearse(world, candidate.estimator)
        value = (uneven(len(rehearsal.datum), seed=0).exp() * rehearsal.estimate.surrogate).sum()
        sizes = {group: slope.norm().item() for group, slope in gradients(value, rehearsal.groups()).items()}
        least = ROUNDING * max(sizes.values())
        for group, size in sizes.items():
            demand(size < float("inf"), f"{name}: the gradient of {group} is not finite")
            wanted = group == "auxiliary" or group in candidate.estimator.unbiased
            demand(
                size > least or not wanted,
                f"{name}: no gradient reaches {group} ({in_words(sizes)}); is a tensor detached too early?",
            )
        lines.append(f"{name}: {in_words(sizes)}")
    return f"norms of the gradient, draws weighed unevenly: {'; '.join(lines)}"


def log_z_drops_out(candidate: Candidate) -> str:
    """Adding a constant to every energy of the prior leaves the expected gradient as it is."""
    for name, world in candidate.worlds.items():
        prior = world.p.unnormalized
        if not isinstance(prior, EnergyPrior):
            continue
        torch.manual_seed(0)  # for one that draws by itself
        before = expected_gradient(world, candidate.estimator)
        with torch.no_grad():
            prior.get_parameter("energies").add_(3.7)
        torch.manual_seed(0)
        after = expected_gradient(world, candidate.estimator)
        for group, gradient in before.items():
            off = (after[group] - gradient).abs().max().item()
            demand(
                off <= 1e-8 or group == "auxiliary",
                f"{name}: scaling p* by a constant moves the gradient of {group} by {off:.3g}; a learning signal must "
                "multiply something of mean zero, and an unnormalized prior has no absolute log-weights",
            )
        return f"3.7 nats on every energy change nothing ({name})"
    return "does not apply: it works with no energy prior here"


def _exact_gradient(world: World, estimator: Estimator) -> tuple[str, dict[str, Tensor], float] | None:
    """What the bound is, its exact gradient by group, and how exact that is; None if no bound is claimed."""
    rehearsal = rehearse(world, estimator)
    if not claims_bound(rehearsal):
        return None
    match = objective(world, rehearsal)
    if match is not None:
        return match[0], world.gradient(match[1]), TOLERANCE
    return "its own E[bound]", _numerical_gradient(world, estimator), LOOSE


@torch.no_grad()
def _numerical_gradient(world: World, estimator: Estimator) -> dict[str, Tensor]:
    """Gradient of the exact E_D[E[bound]] - log Z by differences, of a bound that is of a kind of its own."""

    rows = torch.arange(count_rows(world, estimator))

    def value() -> float:
        rehearsal = rehearse(world, estimator, rows)
        return (world.log_data.exp() * (rehearsal.mean(bound_of(rehearsal)) - world.log_z())).sum().item()

    def slope(flat: Tensor, index: int) -> float:
        start, total = flat[index].item(), 0.0
        for steps, weight in ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12)):
            flat[index] = start + steps * STEP
            total += weight * value() / STEP
        flat[index] = start
        return total

    return {
        group: torch.tensor([slope(p.view(-1), i) for p in parameters for i in range(p.numel())]).double()
        for group, parameters in world.groups().items()
    }


def _compare(got: Tensor, exact: Tensor) -> str:
    cosine = torch.nn.functional.cosine_similarity(got, exact, dim=0).item()
    bias = (got - exact).norm().item()
    return f"norm {got.norm():.4g} against {exact.norm():.4g}, difference {bias:.4g}, cosine {cosine:.3f}"


def _suspect(world: World, estimator: Estimator, group: str, got: dict[str, Tensor], exact: dict[str, Tensor]) -> str:
    """Say which well-known mistake it is, if it is one."""
    rehearsal = rehearse(world, estimator)
    pathwise = _pathwise(world, rehearsal, group)
    mine, true = got[group], exact[group]
    ratio = ((mine @ true) / (true @ true)).item()
    if mine.norm() < TOLERANCE:
        return "; no gradient reaches it: draws of a discrete q carry none, a score-function term must"
    if (mine + true).norm() < LOOSE:
        return "; the sign is flipped"
    if pathwise is not None and (mine - pathwise).norm() < LOOSE:
        return "; the score-function term of the draws is missing"
    if (mine - ratio * true).norm() < LOOSE:
        return f"; it is {ratio:.6g} times the exact one: a factor, a 1/K perhaps, is wrong"
    return "; is a learning signal not detached, a term of the score dropped, or a baseline not blind to its own draw?"


def _pathwise(world: World, rehearsal: Rehearsal, group: str) -> Tensor | None:
    """Gradient of the bound with the draws held still: what remains when their score is forgotten."""
    log_w = rehearsal.replay.log_weights()
    if log_w is None:
        return None
    value = (world.log_data.exp() * rehearsal.mean(log_mean_exp(log_w))).sum()
    return gradients(value, {group: world.groups()[group]})[group]


LAWS = (expected_gradient_is_exact, declared_bias_is_real, every_group_is_trained, log_z_drops_out)
