"""Mixtures of rounded logistics: exact masses, to the last one in a tail."""

import pytest
import torch
from golden import Item, items, tensor
from torch import Tensor

LogisticMixture = pytest.importorskip("unibound_plugins.likelihoods.levels").LogisticMixture
SMALLEST = 1e-9  # scales are this and a softplus


def raw(scale: Tensor) -> Tensor:
    """What a softplus makes a scale of."""
    above = scale - SMALLEST
    return above + torch.log(-torch.expm1(-above))


@pytest.mark.parametrize("item", items("13_discretized_logistic_mixture"))
def test_masses(item: Item) -> None:
    given, levels = item.input, item.input["levels"]
    channels, components = len(given["x"]), len(given["logit_probs"])
    likelihood = LogisticMixture(levels=levels, num_components=components, min_scale=SMALLEST)
    rows = [[given["logit_probs"]], given["means"], raw(tensor(given["log_scales"]).exp()), given["coeffs"] or []]
    outputs = torch.cat([tensor(row).view(-1, components) for row in rows]).T  # [M, numbers]
    pixel = (channels, 1, 1) if channels > 1 else (1,)
    made = likelihood(outputs.reshape(likelihood.outputs(pixel)), pixel)
    item.check(logp=made.log_prob((tensor(given["x"]) / (levels - 1)).view(pixel)))
