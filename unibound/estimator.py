"""An estimator: a rule that turns (the two joints, a batch) into a gradient and, where it claims one, a bound."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import attrs
from torch import Tensor, nn

from unibound.claim import Side
from unibound.joint import JointBound
from unibound.record import Record


@attrs.define(init=False, eq=False)  # neither frozen nor with a converter: Dynamo could not trace how it is made
class Estimate:
    """What an estimator says of a batch.

    Args:
        surrogate: one value per datum [B], to be minimized; only its gradient means anything.
        bound: nats [B], detached, an estimate of (a bound on) log p*(x); None where the method claims none.
        log_weights: log p*(x, tau) - log q(tau | x) [K, B], nats, detached; None where there are none.
        side: where E[bound] lies relative to log p*(x): `lower`, `equal` or `none`.
    """

    surrogate: Tensor
    bound: Tensor | None
    log_weights: Tensor | None
    side: Side

    def __init__(self, surrogate: Tensor, bound: Tensor | None, log_weights: Tensor | None, side: Side | str) -> None:
        self.surrogate, self.bound, self.log_weights, self.side = surrogate, bound, log_weights, Side(side)


class Estimator(Record, ABC):
    """A stateless record of settings, called once per training step.

    Final subclasses are `attrs.frozen`. They draw one per datum, and only from q, p and the prior, as
    `joint.particles` and `joint.p.dream` do, so that a test can hand them chosen draws. A bound that is
    neither L_K nor the ELBO of its particles reports `log_weights=None`.
    """

    needs: ClassVar[str] = "any q and p"
    """What it asks of q and p, in words, for people."""

    @property
    def unbiased(self) -> frozenset[str]:
        """The parameter groups, by role, whose expected gradient is exactly that of the expected bound."""
        return frozenset({"q", "generator", "prior"})

    @property
    def untrained(self) -> frozenset[str]:
        """The parameter groups, by role, that it gives no gradient at all, whatever q and p."""
        return frozenset()

    @property
    def together(self) -> frozenset[str]:
        """The parameter groups, by role, whose weights it keeps equal: a stage trains all of them, by one optimizer."""
        return frozenset()

    @property
    def persistent(self) -> bool:
        """Whether it reads the prior's persistent chains, which then move before each training step."""
        return True

    @abstractmethod
    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        """Estimate the bound of each datum of x [B, *X], and a surrogate for its gradient."""

    def check(self, joint: JointBound, x: Tensor) -> None:
        """Raise UsageError, with the reason and what would work, if this pair cannot be trained.

        Called once when a run is configured, with a small batch x [B, *X].
        """
        del joint, x

    def auxiliary(self, joint: JointBound, x: Tensor) -> nn.Module | None:
        """Build the parameters this estimator wants beside those of q and p, given these and a batch x [B, *X].

        The trainer hangs the module on `joint.auxiliary`, trains it with the rest and saves it; the
        estimator itself stays a record.
        """
        del joint, x
        return None

    def makes(self, joint: JointBound) -> Mapping[str, JointBound]:
        """Further models that q and p make together when it trains them, by name; none by default.

        They share the networks of the joint. A run evaluates them and draws from them beside p, under these names.
        """
        del joint
        return {}
