"""MADE: all bits predicted at once by one net, masked so that none sees itself or a later one."""

from unibound import UsageError, hookimpl
from unibound.sequences.autoregressive import Autoregressive
from unibound.sequences.predictor import Masked


class MADE(Autoregressive):
    """p(tau) = prod_d p(tau_d | tau_<d), normalized: with model `identity`, an exact likelihood of the data.

    Scoring takes one pass, and so does drawing, where each hidden unit is computed once, when what it sees is known.
    Without hidden layers and with direct weights this is a fully visible belief net.

    Args:
        event_shape: shape [*Z] of one latent.
        hidden: widths of the hidden layers.
        direct: let every bit see those before it by weights of their own, too.
        order: which bit is predicted first, which second, ...; as they lie in memory if it is empty.
        num_orders: orderings that are averaged; those after the first are drawn at random, and kept.
        agnostic: train an ordering drawn anew in each step, and not only those that are kept.
        dropout: fraction of hidden units left out in each training step.

    Source: Germain, Gregor, Murray and Larochelle, "MADE: Masked autoencoder for distribution estimation" (2015),
    https://arxiv.org/abs/1502.03509; without hidden layers Frey, Hinton and Dayan, "Does the wake-sleep algorithm
    produce good density estimators?" (1996)
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *,
        hidden: tuple[int, ...] = (500,),
        direct: bool = False,
        order: tuple[int, ...] = (),
        num_orders: int = 1,
        agnostic: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(event_shape, order, num_orders, agnostic)
        if any(width < 1 for width in hidden) or not 0 <= dropout < 1:
            raise UsageError(f"made: needs hidden units and a dropout in [0, 1), not {list(hidden)} and {dropout}")
        if not hidden and not direct:
            raise UsageError("made: without hidden layers its bits are independent; give some, or direct weights")
        self.predictor = Masked(len(self.current), hidden, direct=direct, dropout=dropout)


@hookimpl
def register_priors(register):
    register("made", MADE)
