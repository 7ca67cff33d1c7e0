"""What an evaluation found, and what may be concluded from it."""

import math

import attrs
from torch import Tensor

from unibound.claim import NORMAL_95, Interval, Side
from unibound.evaluation.reach import Reach
from unibound.partition import LogZ, Sandwich


@attrs.frozen
class Evaluation:
    """Negative log-likelihood of a data set under a model, in nats.

    Args:
        nll: mean over the data of -L_K.
        nll_stderr: its standard error over the data; NaN for one datum.
        bits_per_dim: nll in bits per element of a datum; of a level, where data are levels under a density.
        side: `upper` if the expected nll is at least the true one, `equal` if it is exact; `none` if log Z, estimated
            from below, may push it down by more than the K-particle bound pushes it up.
        ess: mean effective sample size of the particles' weights, out of `num_particles`.
        num_particles: particles K per datum.
        log_z: what normalized the prior; None if it was normalized already, or latent by latent.
        seconds: what it took.
        of: what nll is the negative of, or bounds: `log p`, or `log p_ann` of the annealing model.
        nll_chains_stderr: standard error of nll over annealing chains; 0.0 where there are none, None if unknown.
        gap: mean of L_K - L_{K/2}: what L_K lacks is about as much, if K is large enough to see it; 0.0 where it lacks
            nothing, None if unknown.
        mass: whether p(x) is a probability and no density, so that no NLL is below zero.
        exact: whether q is the posterior itself, all on one latent: L_K is log p then.
        terms: whether a particle is one term of a bound: then nll is the mean of them, whatever their number.
        reach: how far L_K may lie below log p, by what was looked at beyond q's draws; or why that is not known.
        independent: NLL of the same data under independent elements, each datum judged by the rates of the others;
            None where elements have no finitely many values.
        observed: elements of a datum that were observed, on average, of which alone its likelihood is; None where none
            may be missing.
        bounds: L_K of each datum [N], float64.
    """

    nll: float
    nll_stderr: float
    bits_per_dim: float
    side: Side = attrs.field(converter=Side)
    ess: float
    num_particles: int
    log_z: LogZ | Sandwich | None
    seconds: float
    of: str = "log p"
    nll_chains_stderr: float | None = 0.0
    gap: float | None = None
    mass: bool = False
    exact: bool = False
    terms: bool = False
    reach: Reach | str = "nothing was looked at beyond q's own draws"
    independent: float | None = None
    observed: float | None = None
    bounds: Tensor | None = attrs.field(default=None, eq=False, repr=False)

    @property
    def trouble(self) -> str | None:
        """Why nothing may be concluded; None where something may."""
        if not math.isfinite(self.nll):
            lost = (
                "" if self.bounds is None else f" ({int((~self.bounds.isfinite()).sum())} of {len(self.bounds)} data)"
            )
            return f"the NLL is {self.nll}{lost}; the model's weights, or the data, are not what they should be"
        if self.log_z is not None and self.log_z.trouble is not None:
            return f"log Z is not to be trusted: {self.log_z.trouble}"
        if math.isnan(self.nll_stderr):
            return "one datum has no error bar; evaluate more"
        if self.mass and self._high < 0:
            return f"an NLL of {self.nll:.2f} is impossible for probabilities; log Z, or what normalizes p, is wrong"
        return None

    @property
    def interval(self) -> Interval:
        """Where the NLL of data like these lies; an end that cannot be claimed is None."""
        if self.trouble is not None:
            return Interval(None, None)
        if self.of != "log p" or self.no_lower_end is not None:
            return Interval(None, self._high, self._given)
        far, noise, given = 0.0, 0.0, self._given
        if not self.exact:
            assert isinstance(self.reach, Reach)
            far, noise, given = self.reach.far, self.reach.noise, (*given, *self.reach.given)
        low = self.nll - far - math.hypot(NORMAL_95 * self.nll_stderr, noise, self._blamed)
        return Interval(max(low, 0.0) if self.mass else low, self._high, given)

    @property
    def no_lower_end(self) -> str | None:
        """Why no lower end of the NLL can be claimed; None where one can."""
        if self.exact:
            return None
        return self.reach.open if isinstance(self.reach, Reach) else self.reach

    @property
    def conclusion(self) -> str:
        """What may be concluded, in words."""
        if self.trouble is not None:
            return f"no claim: {self.trouble}"
        found = self.interval
        if self.of != "log p":
            return (
                f"the NLL of the annealing model, a normalized model close to this one, is at most {found.high:.2f} "
                "nats with 97.5% confidence; of the NLL of the model itself this is no bound"
            )
        if found.low is None:
            claim = f"{self._whose} is at most {found.high:.2f} nats with 97.5% confidence{found.proviso}"
            return f"{claim}; no lower end: {self.no_lower_end}{self._against_independence}"
        claim = f"{self._whose} lies in [{found.low:.2f}, {found.high:.2f}] nats with 95% confidence{found.proviso}"
        return f"{claim}{self._against_independence}"

    @property
    def _whose(self) -> str:
        if self.observed is None:
            return "the NLL"
        return f"the NLL of what was observed, {self.observed:.4g} elements of a datum on average,"

    @property
    def _against_independence(self) -> str:
        """That independent elements do better, where they do, and whether that is the model or only its bound."""
        if self.independent is None or not self.nll > self.independent:
            return ""
        low = self.interval.low
        worse = "the model" if low is not None and low > self.independent else "the bound"
        return f"; {worse} is worse than independent elements with these data's own rates ({self.independent:.2f} nats)"

    @property
    def _high(self) -> float:
        flattered = 0.0 if self.log_z is None else _above(self.log_z)
        return self.nll + math.hypot(NORMAL_95 * self.nll_stderr, flattered)

    @property
    def _blamed(self) -> float:
        if self.log_z is None or self.log_z.interval.low is None:
            return 0.0
        return self.log_z.value - self.log_z.interval.low

    @property
    def _given(self) -> tuple[str, ...]:
        """What the upper end takes for granted of log Z."""
        if self.log_z is None or self.log_z.side is Side.EQUAL:
            return ()
        if self.log_z.heuristic:
            return ("that the Gibbs run behind the upper side of log Z reached the model",)
        return () if isinstance(self.log_z, Sandwich) else ("that annealing found every mode (bdmc looks from above)",)


def _above(log_z: LogZ | Sandwich) -> float:
    """How far the upper end of log Z lies above its value: likelihoods may be flattered by so much."""
    return 0.0 if log_z.interval.high is None else log_z.interval.high - log_z.value
