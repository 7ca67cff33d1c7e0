"""Fully connected networks, and a posterior that flows: reals drawn from a simple q and bent, how depends on x."""

import math
from typing import Literal

import attrs
from attrs.validators import deep_iterable, ge, min_len
from torch import Tensor, nn
from torch.distributions import Distribution

from unibound import Directed, Generator, JointBound, Likelihood, Model, Prior, UsageError, hookimpl
from unibound.distributions import flows
from unibound.networks import Bent, hidden_layers
from unibound.support import describe, real, same


class FlowGenerator(Generator):
    """p(x | tau)."""

    def __init__(self, widths: list[int], likelihood: Likelihood, x_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.likelihood, self.x_shape = likelihood, x_shape
        self.network = nn.Sequential(
            hidden_layers(widths), nn.Linear(widths[-1], math.prod(likelihood.outputs(x_shape)))
        )

    def forward(self, tau: Tensor) -> Distribution:
        outputs = self.network(tau).view(*tau.shape[:-1], *self.likelihood.outputs(self.x_shape))
        return self.likelihood(outputs, self.x_shape)


@attrs.frozen
class Flow(Model):
    """Fully connected q(tau | x) and p(x | tau), and q is bent by a flow, drawn and scored in one pass.

        tau = t_n(... t_1(z; x) ...; x),  z ~ q_0(z | x),  log q(tau | x) = log q_0(z | x) - sum_i log |det dt_i|

    Without layers it is q_0 that is the posterior. Scoring what was not drawn, as `rws` and `vimco` do, and estimators
    that leave the score out, take one pass for each latent under `iaf`, and a search under `planar`. Needs the extra
    `flows`.

    Args:
        num_latents: elements of tau.
        hidden: widths of the inference network's hidden layers; the generator has them reversed.
        kind: of the flow: planar, maf, iaf, coupling or spline.
        num_layers: maps one after another.
        flow_hidden: widths of the networks inside each of them.
        context: numbers by which each of them sees x.

    Source: Rezende and Mohamed, "Variational inference with normalizing flows" (2015),
    https://arxiv.org/abs/1505.05770; Kingma et al., "Improving variational inference with inverse autoregressive flow"
    (2016), https://arxiv.org/abs/1606.04934
    """

    num_latents: int = attrs.field(default=10, validator=ge(1))
    hidden: tuple[int, ...] = attrs.field(default=(200, 200), validator=[min_len(1), deep_iterable(ge(1))])
    kind: Literal["planar", "maf", "iaf", "coupling", "spline"] = "iaf"
    num_layers: int = attrs.field(default=2, validator=ge(0))
    flow_hidden: tuple[int, ...] = attrs.field(default=(32,), validator=deep_iterable(ge(1)))
    context: int = attrs.field(default=20, validator=ge(1))

    def prior_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.num_latents,)

    def assemble(self, prior: Prior, likelihood: Likelihood, posterior: Likelihood, x_mean: Tensor) -> JointBound:
        over = posterior.support if prior.support is None else prior.support
        if not same(over, real):
            raise UsageError(f"flow bends reals, but its latents are {describe(over)}; use a prior over reals")
        size, up = self.num_latents, list(self.hidden)
        layers = flows.layers(self.kind, self.num_layers, size, self.context, self.flow_hidden)
        q = Bent(self.hidden, posterior, size, layers, self.context, x_mean, undo=self.kind == "maf")
        return JointBound(q, Directed(prior, FlowGenerator([size, *reversed(up)], likelihood, tuple(x_mean.shape))))


@hookimpl
def register_models(register):
    register("flow", Flow)
