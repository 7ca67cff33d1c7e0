"""What a run says of the models that its q and p make together, beside p. See `Estimator.makes`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
import torch

from unibound.claim import Side
from unibound.data.rows import Data
from unibound.evaluation.conclusion import Evaluation
from unibound.evaluation.made import evaluate_made
from unibound.joint import JointBound

if TYPE_CHECKING:
    from unibound.runs.run import Run


@attrs.frozen
class Made:
    """One of them in numbers, nats.

    Args:
        nll: of test data, with its standard error over the data and the side it errs on.
        unscaled: the same up to its log Z, as if that were 0.
        log_z: with its standard error and side.
        conclusion: what may be concluded, in words.
    """

    nll: float
    nll_stderr: float | None
    nll_side: Side
    unscaled: float
    log_z: float
    log_z_stderr: float
    log_z_side: Side
    conclusion: str

    @classmethod
    def of(cls, found: Evaluation, numbers: Mapping[str, Any]) -> "Made":
        """The record of an evaluation, of which `numbers` are the plain values."""
        log_z = found.log_z
        value = 0.0 if log_z is None else log_z.value
        return cls(
            **{name: numbers[name] for name in ("nll", "nll_stderr", "nll_side", "conclusion")},
            unscaled=found.nll - value,
            log_z=value,
            log_z_stderr=0.0 if log_z is None else log_z.stderr,
            log_z_side=Side.EQUAL if log_z is None else log_z.side,
        )

    @property
    def words(self) -> str:
        """As a person reads it."""
        stderr = "" if self.nll_stderr is None else f" ± {self.nll_stderr:.3f}"
        return (
            f"{self.nll:.3f}{stderr} nats under the model that q and p make together ({self.nll_side.errs}); "
            f"{self.unscaled:.3f} up to its log Z of {self.log_z:.4f} ± {self.log_z_stderr:.4f} "
            f"({self.log_z_side.errs})"
        )


def made(run: "Run") -> Mapping[str, JointBound]:
    """The models that the last stage of a run makes of q and p, by name."""
    return run.settings.stages[-1].estimator.settings.makes(run.joint)


def evaluated(run: "Run", x: Data, num_particles: int | None = None, **options: Any) -> dict[str, Evaluation]:
    """The NLL of data x [N, *X] under each of them, by random numbers of the run's seed, which leave no trace."""
    with torch.random.fork_rng():
        torch.manual_seed(run.settings.seed)
        particles = run.settings.num_particles if num_particles is None else num_particles
        return evaluate_made(made(run), x, num_particles=particles, levels=run.splits.levels, **options)
