"""`unibound compare`: what it is told, and what it says of itself; what it does is imported once it is called."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from unibound.cli.commands import require
from unibound.errors import UsageError


def compare(
    *runs: Path,
    estimators: str = "",
    num_particles: str = "",
    vary: list[str] | None = None,
    seeds: int = 3,
    jobs: int = 1,
    evaluation_particles: int | None = None,
    config: Path | None = None,
    out: Path | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
    **settings: Any,
) -> None:
    """Train estimators, or whatever varies, from the same seeds; set bound, NLL, time, noise and bias side by side.

    A run that is finished is not repeated, so the same command goes on where it was interrupted. Or name two or more
    finished runs instead: nothing is trained, and each is set beside the first, datum by datum.

    Args:
        runs: folders of finished runs on the same data.
        estimators: names, such as vimco,rws,nvil.
        num_particles: particles per datum in training, such as 2,5,20, for each estimator that has them.
        vary: any setting, such as prior.num-hidden=10,20,50; may be given several times. Values that hold commas have
            semicolons between them: model.hidden=200,100;50.
        seeds: how many seeds, from --seed on.
        jobs: runs at once, each in a process of its own, with the same numbers.
        evaluation_particles: particles per datum of the evaluation.
        config: a TOML file of settings for all; flags override variables, variables the file.
        out: folder of the comparison; by default one under runs/, the same for the same settings.
        json: print one JSON document on stdout, and everything else on stderr.
    """
    if runs:
        others = config or out or vary or settings
        _compare_runs(runs, estimators, num_particles, evaluation_particles, others, as_json=json)
        return
    from unibound.cli import compare as command
    from unibound.cli.flags import as_layer
    from unibound.settings import sources

    flags = as_layer(settings)
    found = [sources.read(config)] if config is not None else []
    if evaluation_particles is not None:
        flags.values["num_particles"] = evaluation_particles
    found += [sources.from_environment(), flags]
    command.compare(estimators, num_particles, seeds, found, out, vary=vary or (), jobs=jobs, as_json=json)


def _compare_runs(
    runs: Sequence[Path], estimators: str, sizes: str, num_particles: int | None, others: Any, *, as_json: bool
) -> None:
    if estimators or sizes or (others and not (isinstance(others, dict) and set(others.values()) <= {None})):
        raise UsageError("runs are compared as they are; leave out all options but --evaluation-particles and --json")
    if len(runs) < 2:
        raise UsageError(f"compare takes two runs or more, not {', '.join(map(str, runs))} alone; or else --estimators")
    if num_particles is not None:
        require("--evaluation-particles", num_particles, 1)
    from unibound.cli import paired

    paired.compare(runs, "test", num_particles, as_json=as_json)
