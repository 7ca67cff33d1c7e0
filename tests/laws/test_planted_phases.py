"""Models with phases that data of one of them do not show: what is certified of log Z holds it."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from unibound import EnergyPrior
from unibound.evaluation.certify.bases import Plan
from unibound.evaluation.certify.evidence import certify_log_z
from unibound.partition import annealing, enumeration

rbm = pytest.importorskip("unibound_plugins.priors.rbm")
QUICK = Plan(temperatures=300)


def phases(random: torch.Generator) -> EnergyPrior:
    """All bits on, or all off, and a field that tilts the balance."""
    visible, hidden, strength, tilt = _sizes(random)
    weight = (0.3 + 1.2 * strength) * (1 + 0.2 * torch.randn(visible, hidden, generator=random))
    field = 4 * tilt * torch.randn(1, generator=random) / visible
    return rbm.RBM.from_weights(weight, field - weight.sum(1) / 2, -weight.sum(0) / 2)


def patterns(random: torch.Generator) -> EnergyPrior:
    """Up to four patterns and their mirror images, and bits that depend on nothing."""
    visible, hidden, strength, tilt = _sizes(random)
    visible *= 2
    count, free = (int(torch.randint(low, high, (), generator=random)) for low, high in ((2, 5), (1, 6)))
    there, above = (torch.randn(count, size, generator=random).sign() for size in (visible, hidden))
    weight = (0.6 + 5 * strength) * there.T @ above / (count**0.5 * (visible * hidden) ** 0.25)
    field = 4 * tilt / visible * there[0] - weight.sum(1) / 2
    lonely = 3 * torch.randn(free, generator=random)
    weight = torch.cat([weight, torch.zeros(free, hidden)])
    return rbm.RBM.from_weights(weight, torch.cat([field, lonely]), -weight.sum(0) / 2)


def steep(random: torch.Generator) -> EnergyPrior:
    """Random weights, scaled up to 4."""
    visible, hidden, strength, tilt = _sizes(random)
    shapes, scales = ((visible, hidden), (visible,), (hidden,)), (4 * strength, 4 * tilt, 4 * tilt)
    parts = (scale * torch.randn(shape, generator=random) for shape, scale in zip(shapes, scales, strict=True))
    return rbm.RBM.from_weights(*parts)


def _sizes(random: torch.Generator) -> tuple[int, int, float, float]:
    visible, hidden = (int(torch.randint(low, high, (), generator=random)) for low, high in ((6, 17), (4, 11)))
    return visible, hidden, *torch.rand(2, generator=random).tolist()


def of_one_phase(prior: EnergyPrior) -> Tensor:
    """400 draws of the model near one of them."""
    drawn = enumeration.draw(prior, 2000)
    near = drawn[(drawn - drawn[0]).abs().sum(1) < 0.4 * drawn.shape[1]]
    return near[torch.randint(len(near), (400,))]


@pytest.mark.parametrize("count", [15, pytest.param(300, marks=pytest.mark.slow)])
def test_what_is_certified_holds(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[str] = Counter()
    for seed in range(count):
        prior = (phases, patterns, steep)[seed % 3](torch.Generator().manual_seed(seed))
        torch.manual_seed(seed)
        truth, x = enumeration.log_sum(prior), of_one_phase(prior)
        with monkeypatch.context() as patch:
            if seed % 4:  # draws of the model are exact for every fourth, and for the others those of the chains
                patch.setattr(annealing, "MAX_BITS", 0)
            found = certify_log_z(prior, x, QUICK, {})
        interval = found.both.interval
        if found.reasons:
            seen["refused"] += 1
            continue
        seen["certified"] += 1
        seen["missed"] += truth not in interval
        seen["far off"] += not abs(found.both.middle - truth) < 0.3
        # What a certificate of the data alone would have said, and been sure of.
        alone = next(view.lower for view in found.look.views if view.base == "data")
        seen["fooled by the data"] += alone.trustworthy and alone.value < truth - 0.3
    assert seen["missed"] <= {15: 2, 300: 15}[count], seen
    assert seen["far off"] == 0, seen
    assert seen["certified"] > count / 2, seen
    assert seen["fooled by the data"] > count / 20, seen
