"""Which look at the validation set was the best so far, and for how long a stage has not bettered itself."""

import math

import attrs

from unibound.evaluation.conclusion import Evaluation


@attrs.frozen
class Judgment:
    """What looks at the validation set have come to.

    Args:
        best: epochs done at the best look of the run; None while there was none to trust.
        nll: validation NLL there, in nats.
        lowest: the lowest of this stage.
        misses: looks since then.
    """

    best: int | None = None
    nll: float = math.inf
    lowest: float = math.inf
    misses: int = 0

    def begun(self) -> "Judgment":
        """At the beginning of a stage."""
        return attrs.evolve(self, lowest=math.inf, misses=0)

    def after(self, done: int, valid: Evaluation) -> "Judgment":
        """After a look; one whose log Z is not trustworthy may flatter by tens of nats, and is never the best."""
        trusted = math.isfinite(valid.nll) and (valid.log_z is None or valid.log_z.trustworthy)
        nll = valid.nll if trusted else math.inf
        best, least = (done, nll) if nll < self.nll else (self.best, self.nll)
        return Judgment(best, least, min(nll, self.lowest), 0 if nll < self.lowest else self.misses + 1)
