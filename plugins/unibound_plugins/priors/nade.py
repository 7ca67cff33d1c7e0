"""NADE: bits predicted one after another by one layer of hidden units that grows with what is known."""

from unibound import UsageError, hookimpl
from unibound.sequences.autoregressive import Autoregressive
from unibound.sequences.predictor import Tied


class NADE(Autoregressive):
    """p(tau) = prod_d p(tau_d | tau_<d), normalized: with model `identity`, an exact likelihood of the data.

        p(tau_d = 1 | tau_<d) = sigmoid(b_d + V_d . sigmoid(c + sum_{e before d} W_e tau_e))

    With several orderings, log p is that of their mean probability: an ensemble that shares its weights.

    Args:
        event_shape: shape [*Z] of one latent.
        num_hidden: hidden units.
        order: which bit is predicted first, which second, ...; as they lie in memory if it is empty.
        num_orders: orderings that are averaged; those after the first are drawn at random, and kept.
        agnostic: train an ordering drawn anew in each step, and not only those that are kept.
        dropout: fraction of hidden units left out in each training step.

    Source: Larochelle and Murray, "The neural autoregressive distribution estimator" (2011),
    https://proceedings.mlr.press/v15/larochelle11a.html; ensembles over orderings are those of Uria, Murray and
    Larochelle, "A deep and tractable density estimator" (2014), https://arxiv.org/abs/1310.1757
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *,
        num_hidden: int = 100,
        order: tuple[int, ...] = (),
        num_orders: int = 1,
        agnostic: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(event_shape, order, num_orders, agnostic)
        if num_hidden < 1 or not 0 <= dropout < 1:
            raise UsageError(f"nade: needs hidden units and a dropout in [0, 1), not {num_hidden} and {dropout}")
        self.predictor = Tied(len(self.current), num_hidden, dropout)


@hookimpl
def register_priors(register):
    register("nade", NADE)
