"""What came out of a run, as plain values and as a person reads it."""

import math
from typing import Any

from unibound.evaluation.evaluate import Evaluation
from unibound.runs.run import Run

SIDES = {"equal": "exact", "stochastic_lower": "errs low", "stochastic_upper": "errs high"}


def as_document(run: Run, result: Evaluation) -> dict[str, Any]:
    """The result as plain values, nats unless the name says otherwise."""
    log_z = result.log_z
    return {
        **numbers(result),
        "partition": None if log_z is None else run.settings.partition.name,
        "log_z": 0.0 if log_z is None else log_z.value,
        "log_z_stderr": 0.0 if log_z is None else log_z.stderr,
        "log_z_side": "equal" if log_z is None else log_z.side,
        "log_z_ess": None if log_z is None else log_z.ess,
        "log_z_chains": None if log_z is None else log_z.num_chains,
        "log_z_trustworthy": log_z is None or log_z.trustworthy,
        "run_dir": str(run.path),
    }


def numbers(result: Evaluation) -> dict[str, Any]:
    """What an evaluation says of the NLL, as plain values, whatever normalized the prior."""
    return {
        "nll": result.nll,
        "nll_stderr": None if math.isnan(result.nll_stderr) else result.nll_stderr,
        "nll_side": result.side,
        "nll_low": None if result.interval is None else result.interval[0],
        "nll_high": result.ceiling,
        "bits_per_dim": result.bits_per_dim,
        "num_particles": result.num_particles,
        "ess": result.ess,
        "conclusion": result.conclusion,
        "seconds": result.seconds,
    }


def rows(document: dict[str, Any]) -> list[tuple[str, str]]:
    """What came out, as a person reads it: name and value."""
    stderr_nll = "" if document["nll_stderr"] is None else f" ± {document['nll_stderr']:.3f}"
    bits = f"({document['bits_per_dim']:.4f} bits/dim)"
    found = [("test NLL", f"{document['nll']:.3f}{stderr_nll} nats {bits}")]
    found.append(("train NLL", f"{document['train_nll']:.3f} nats"))
    if document["partition"] is None:
        found.append(("log Z", "0, the prior is normalized"))
    else:
        value = f"{document['log_z']:.4f} ± {document['log_z_stderr']:.4f} nats"
        mark = "" if document["log_z_trustworthy"] else ", untrustworthy"
        found.append(("log Z", f"{value} by {document['partition']} ({SIDES[document['log_z_side']]}{mark})"))
    if document["log_z_ess"] is not None:
        chains = f"effective sample size {document['log_z_ess']:.1f} of {document['log_z_chains']}"
        found.append(("chains", chains))
    particles = f"effective sample size {document['ess']:.1f} of {document['num_particles']} per datum"
    return [
        *found,
        ("particles", particles),
        ("side", document["conclusion"]),
        ("time", f"{document['seconds']:.1f} s"),
    ]
