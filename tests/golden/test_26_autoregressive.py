"""Fully visible models: every conditional, every mask, orderings and what is made of several, and the gradient."""

from itertools import chain
from typing import Any

import pytest
import torch
from golden import Item, items, tensor
from listing import bits, gradients
from torch import Tensor, nn

from unibound.sequences.autoregressive import Autoregressive

MADE = pytest.importorskip("unibound_plugins.priors.made").MADE
NADE = pytest.importorskip("unibound_plugins.priors.nade").NADE
Bernoulli = pytest.importorskip("unibound_plugins.priors.bernoulli").Bernoulli


def tied(given: dict[str, Any]) -> dict[str, Tensor]:
    names = {"weight": "W", "output_weight": "V", "bias": "c", "output_bias": "b"}
    return {name: tensor(given[key]) for name, key in names.items()}


def load(prior: Autoregressive, values: dict[str, Tensor]) -> Autoregressive:
    prior.double().predictor.load_state_dict(values)
    return prior.eval()


def nade(given: dict[str, Any], order: list[int]) -> Any:
    values = tied(given)
    hidden, size = values["weight"].shape
    return load(NADE((size,), num_hidden=hidden, order=tuple(order)), values)


def in_order(prior: Autoregressive, states: Tensor) -> Tensor:
    """log-probability of each variable, the first in the ordering first [S, D]."""
    order = prior.orders[0]
    logits = prior.distribution_in(order).logits(states)
    return nn.functional.logsigmoid((2 * states - 1) * logits)[:, order]


def check_nade(item: Item) -> None:
    given, order = item.input, item.input["order"]
    prior, turned, states = nade(given, order), nade(given, order[::-1]), bits(len(order))
    both = NADE((len(order),), num_hidden=prior.predictor.num_hidden, num_orders=2)
    values = {f"predictor.{name}": value for name, value in tied(given).items()}
    orders = torch.tensor([order, order[::-1]])
    both.double().load_state_dict({**values, "orders": orders, "current": orders[0]})
    parameters = {"W": "weight", "V": "output_weight", "b": "output_bias", "c": "bias"}
    x = tensor([given["x"]])
    named = {name: getattr(prior.predictor, own) for name, own in parameters.items()}
    mean = (prior.log_prob(states) + turned.log_prob(states)) / 2
    item.check(
        log_p_by_state=prior.log_prob(states),
        conditionals_by_state_in_order=in_order(prior, states),
        log_p_reversed_by_state=turned.log_prob(states),
        log_p_ensemble_by_state=both.eval().log_prob(states),
        mean_log_p_by_state=mean,
        grad_log_p=gradients(prior.log_prob(x).sum(), named),
    )
    assert torch.equal(both.train().log_prob(states), prior.log_prob(states)), "one ordering in each training step"


def check_made(item: Item) -> None:
    given, order = item.input, item.input["order"]
    widths, direct = [len(bias) for bias in given["b"]], given["W_direct"]
    values = {f"layers.{i}.weight": tensor(w) for i, w in enumerate(given["W"])}
    values |= {f"layers.{i}.bias": tensor(b) for i, b in enumerate(given["b"])}
    values |= {"output_weight": tensor(given["W_out"]), "output_bias": tensor(given["b_out"])}
    values |= {"direct": tensor(direct)} if direct else {}
    values["degrees"] = torch.tensor([*chain(*given["degrees_hidden"])])
    prior = load(MADE((len(order),), hidden=tuple(widths), direct=bool(direct), order=tuple(order)), values)
    states, found = bits(len(order)), torch.tensor(order)
    item.check(
        masks=[mask.double() for mask in prior.predictor.masks(found)],
        logits_by_state=prior.distribution_in(found).logits(states),
        log_p_by_state=prior.log_prob(states),
    )


def check_fvsbn(item: Item) -> None:
    given, order = item.input, item.input["order"]
    made = MADE((len(order),), hidden=(), direct=True, order=tuple(order))
    values = {"direct": tensor(given["A"]), "output_bias": tensor(given["b"])}
    values |= {"output_weight": torch.zeros(len(order), 0), "degrees": torch.zeros(0).long()}
    item.check(log_p_by_state=load(made, values).log_prob(bits(len(order))))


@pytest.mark.parametrize("item", items("26_autoregressive"))
def test_fully_visible_models(item: Item) -> None:
    {"nade": check_nade, "made": check_made, "fvsbn": check_fvsbn}[item.input["family"]](item)
