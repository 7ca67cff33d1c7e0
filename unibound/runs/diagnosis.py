"""What a look into a run found, kept in its folder for its report, and as a table."""

import contextlib
import json
from pathlib import Path
from typing import Any

import attrs
from cattrs import BaseValidationError

from unibound.data.rows import spread
from unibound.data.splits import require_part
from unibound.errors import DamagedError
from unibound.evaluation.composition import PARTS, Composition, compose
from unibound.evaluation.diagnose import Diagnosis, diagnose
from unibound.evaluation.evaluate import normalize_by_itself
from unibound.partition.log_z import NormalizedPrior
from unibound.runs.files import read_json, write_sealed
from unibound.runs.result import finite, plain
from unibound.runs.run import Run

DIAGNOSIS, CURE = "diagnosis.json", "remove it, or make it anew by unibound diagnose"


def look(
    run: Run, normalized: NormalizedPrior | None, split: str, num_particles: int, count: int, probe_steps: int
) -> Diagnosis:
    """Look into a run, and write down what was found, if that is possible. See `Trained.diagnose`."""
    estimator = run.settings.stages[-1].estimator.settings
    run.joint.auxiliary = estimator.auxiliary(run.joint, run.rows("train")[:2])
    test, train, valid = (run.rows(name) for name in (require_part(split), "train", "valid"))
    found = diagnose(run.joint, estimator, spread(test, count)[:], num_particles=num_particles)
    if normalized is not None and normalized.log_z is None:  # it normalizes latent by latent
        normalized = normalize_by_itself(run.joint, train)
    options = {"num_particles": num_particles, "limit": count, "probe_steps": probe_steps}
    found = attrs.evolve(found, composition=compose(run.joint, test, train, valid, normalized, **options))
    with contextlib.suppress(OSError):  # a folder that cannot be written to can still be looked into
        write_sealed(run.path / DIAGNOSIS, json.dumps(document(found, split), indent=2) + "\n")
    return found


def document(found: Diagnosis, split: str) -> dict[str, Any]:
    """What was found, as JSON; what is not finite is null."""
    composition = found.composition
    return finite(
        {
            "split": split,
            "num_data": len(found.ess),
            "num_particles": found.num_particles,
            "ess": found.ess.tolist(),
            "tail": found.tail.tolist(),
            "heavy": found.heavy,
            "gap": found.gap,
            "gap_stderr": found.gap_stderr,
            "active_units": found.active,
            "units": found.units,
            "gradients": {name: attrs.asdict(group) for name, group in found.groups.items()},
            "composition": None if composition is None else plain.unstructure(composition),
        }
    )


def read(folder: Path) -> tuple[str, Composition] | None:
    """Of which split an NLL was taken apart, and into what; None where nobody did.

    Raises:
        DamagedError: it is hurt.
    """
    found = read_json(folder / DIAGNOSIS, CURE)
    if found is None or found.get("composition") is None:
        return None
    try:
        return str(found["split"]), plain.structure(found["composition"], Composition)
    except (BaseValidationError, KeyError) as error:
        raise DamagedError(f"{folder / DIAGNOSIS} is not what was written; {CURE}") from error


def columns(split: str, composition: Composition) -> tuple[str, ...]:
    """What the columns of `rows` are called."""
    seen, trained = composition.num_data
    return f"nats, K = {composition.num_particles}", f"{seen} {split} data", "side", f"{trained} training data", "less"


def rows(composition: Composition) -> list[tuple[str, ...]]:
    """The parts of an NLL as a table: its name, on test data, its side, on training data, and how they differ."""
    return [
        (
            PARTS[part.name],
            _shown(part.test, part.test_stderr),
            part.side.errs,
            _shown(part.train, part.train_stderr),
            _shown(part.overfit, part.overfit_stderr),
        )
        for part in composition.parts
    ]


def _shown(value: float | None, stderr: float | None) -> str:
    return "" if value is None or stderr is None else f"{value:.2f} ± {stderr:.2f}"
