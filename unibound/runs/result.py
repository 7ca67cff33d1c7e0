"""What came out of a run: one record, which the console, the report, comparisons and Python read."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from cattrs import Converter
from torch import Tensor

from unibound.claim import Side
from unibound.data.splits import classes
from unibound.errors import UsageError
from unibound.evaluation.conclusion import Evaluation
from unibound.runs.carried import told
from unibound.runs.files import read_json, write_sealed
from unibound.runs.made import Made

EVALUATION = "evaluation.json"


@attrs.frozen
class Result:
    """A finished run in numbers, nats unless the name says otherwise.

    Args:
        nll: test NLL, with its standard error over the data, the side it errs on, and the ends of its 95% interval.
        bits_per_dim: the same in bits per element of a datum.
        num_particles: particles per datum behind it.
        ess: mean effective sample size of their weights.
        conclusion: what may be concluded, in words.
        seconds: training, pictures and evaluation together.
        partition: name of what found log Z; None where the prior is normalized.
        log_z: with its standard error and side, and the effective sample size out of the chains behind it.
        log_z_trustworthy: whether nothing speaks against it.
        run_dir: folder of the run.
        train_nll: NLL of training data; None where it was not looked at.
        train_data: how many of them, spread over the split, of how many there are.
        prepared: what was done to the data, in words; empty if nothing was.
        weights: which checkpoint's they are, in words.
        untrained: parameter groups that no stage trained.
        latent_nats: of test data, mean KL(q(tau | x) || p(tau)): what latents carry. None where that is not told apart.
        datum_nats: mean -log p(x | tau), what the data cost once their latents are known.
        classes: of each class of test data, where data have such, how many there are, their NLL and its standard error.
        made: of each model that q and p make together, beside p, the same in brief.
    """

    nll: float
    nll_stderr: float | None
    nll_side: Side
    nll_low: float | None
    nll_high: float | None
    bits_per_dim: float
    num_particles: int
    ess: float
    conclusion: str
    seconds: float
    partition: str | None
    log_z: float
    log_z_stderr: float
    log_z_side: Side
    log_z_ess: float | None
    log_z_chains: int | None
    log_z_trustworthy: bool
    run_dir: str
    train_nll: float | None = None
    train_data: tuple[int, int] | None = None
    prepared: str = ""
    weights: str = ""
    untrained: tuple[str, ...] = ()
    latent_nats: float | None = None
    datum_nats: float | None = None
    classes: dict[str, tuple[int, float, float | None]] = attrs.field(factory=dict)
    made: dict[str, Made] = attrs.field(factory=dict)

    @classmethod
    def of(cls, test: Evaluation, *, partition: str, run_dir: Path, **more: Any) -> "Result":
        """The record of an evaluation on test data."""
        log_z = test.log_z
        return cls(
            **numbers(test),
            partition=None if log_z is None else partition,
            log_z=0.0 if log_z is None else log_z.value,
            log_z_stderr=0.0 if log_z is None else log_z.stderr,
            log_z_side=Side.EQUAL if log_z is None else log_z.side,
            log_z_ess=None if log_z is None else log_z.ess,
            log_z_chains=None if log_z is None else log_z.num_chains,
            log_z_trustworthy=log_z is None or log_z.trustworthy,
            run_dir=str(run_dir),
            **more,
        )

    @property
    def document(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return finite(plain.unstructure(self))

    def write(self, folder: Path) -> None:
        """Keep it in the folder of its run."""
        write_sealed(folder / EVALUATION, json.dumps(self.document, indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Result | None":
        """That of a run's folder; None where the run is not finished.

        Raises:
            UsageError: a file that is no such record.
        """
        path, what, cure = folder / EVALUATION, "no result of a run", f"remove it, and --resume {folder}"
        if (found := read_json(path, cure, what)) is None:
            return None
        try:
            result = plain.structure(found | {"run_dir": str(folder)}, cls)
            if not all(math.isfinite(value) for value in attrs.asdict(result).values() if isinstance(value, float)):
                raise ValueError("a number that is not finite")
            return result
        except Exception as error:  # cattrs raises half a dozen kinds on what is not its own
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise UsageError(f"{path} is {what} ({reason:.120}); {cure}") from error

    @property
    def rows(self) -> list[tuple[str, str]]:
        """As a person reads it: name and value."""
        stderr = "" if self.nll_stderr is None else f" ± {self.nll_stderr:.3f}"
        found = [("test NLL", f"{self.nll:.3f}{stderr} nats ({self.bits_per_dim:.4f} bits/dim)")]
        if self.train_nll is not None and self.train_data is not None:
            some, every = self.train_data
            of = "all data" if some == every else f"{some} of {every} data, evenly spread"
            found.append(("train NLL", f"{self.train_nll:.3f} nats ({of})"))
        found += [(f"{name} NLL", made.words) for name, made in self.made.items()]
        if self.partition is None:
            found.append(("log Z", "0, the prior is normalized"))
        else:
            mark = "" if self.log_z_trustworthy else ", untrustworthy"
            value = f"{self.log_z:.4f} ± {self.log_z_stderr:.4f} nats"
            found.append(("log Z", f"{value} by {self.partition} ({self.log_z_side.errs}{mark})"))
        if self.log_z_ess is not None:
            found.append(("chains", f"effective sample size {self.log_z_ess:.1f} of {self.log_z_chains}"))
        if self.num_particles > 1:  # one is no sample
            found.append(("particles", f"effective sample size {self.ess:.1f} of {self.num_particles} per datum"))
        if self.latent_nats is not None and self.datum_nats is not None:
            found.append(("latents", told(self.latent_nats, self.datum_nats)))
        if self.prepared:
            found.append(("data", self.prepared))
        if self.weights:
            found.append(("weights", self.weights))
        if self.untrained:
            found.append(("untrained", f"{', '.join(self.untrained)}: no stage trains it, its weights are as drawn"))
        return [*found, ("side", self.conclusion), ("time", f"{self.seconds:.1f} s")]


def numbers(result: Evaluation) -> dict[str, Any]:
    """What an evaluation says of the NLL, as plain values, whatever normalized the prior."""
    interval = result.interval
    return {
        "nll": result.nll,
        "nll_stderr": None if math.isnan(result.nll_stderr) else result.nll_stderr,
        "nll_side": result.side,
        "nll_low": interval.low if interval.two_sided else None,
        "nll_high": interval.high,
        "bits_per_dim": result.bits_per_dim,
        "num_particles": result.num_particles,
        "ess": result.ess,
        "conclusion": result.conclusion,
        "seconds": result.seconds,
    }


def finite(value: Any) -> Any:
    """The same with None for what JSON cannot write: infinities and what is not a number."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


plain = Converter(forbid_extra_keys=True)
"""Records of a run as plain values, and back."""
plain.register_unstructure_hook(Side, lambda side: side.value)
# What JSON cannot write was written as null: of a number that there must be, it was none.
plain.register_structure_hook(float, lambda value, _: math.nan if value is None else float(value))


def by_class(bounds: Tensor, labels: Sequence[str]) -> dict[str, tuple[int, float, float | None]]:
    """Of each class, how many data it has, the mean of minus their bounds [N], and its standard error; nats."""
    found = {}
    for name in classes(labels):
        own = -bounds[torch.tensor([label == name for label in labels], device=bounds.device)].double()
        found[name] = (len(own), own.mean().item(), None if len(own) < 2 else own.std().item() / len(own) ** 0.5)
    return found
