"""The commands: what each is told, and what it says of itself. What they do is imported once they are called."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

import unibound
from unibound.errors import UsageError


def run(
    *,
    config: Path | None = None,
    run_dir: Path | None = None,
    resume: Path | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
    loggers: str = "",
    tensorboard: Annotated[bool, Parameter(negative=())] = False,
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    devices: int = 1,
    num_nodes: int = 1,
    **settings: Any,
) -> None:
    """Train a model, evaluate it, and say which side its number errs on.

    Args:
        config: a TOML file of settings, or a recipe by name; flags override variables, as UNIBOUND_EPOCHS or
            UNIBOUND_ESTIMATOR__NUM_PARTICLES, and variables the file.
        run_dir: folder of the run; by default a new one under runs/.
        resume: folder of a run to go on with; it keeps its settings, but for more --epochs of its last stage.
        json: print one JSON document on stdout, and everything else on stderr.
        loggers: who else is told of bounds, numbers and pictures, one or several: csv, tensorboard, wandb (offline
            unless WANDB_MODE says otherwise), or path.py:Class of one's own.
        tensorboard: the same as --loggers tensorboard.
        dry_run: print every setting as TOML that --config takes, and train nothing.
        devices: processes on each machine that share every batch, one to a GPU, or to a core of a CPU; needs
            lightning-fabric, also under torchrun and SLURM.
        num_nodes: machines, on each of which the same command is given.
    """
    from unibound.cli import console
    from unibound.cli.flags import as_layer
    from unibound.loggers import loggers_of
    from unibound.settings import sources

    flags, heard = as_layer(settings), loggers_of(f"{loggers},tensorboard" if tensorboard else loggers)
    if resume is not None:
        if flags.values.keys() - {"epochs"} or config or run_dir or dry_run:
            raise UsageError(f"--resume goes on with the settings of {resume}; leave the other options out")
        console.resume(resume, flags, devices, num_nodes, as_json=json, loggers=heard)
        return
    found = [sources.read(config)] if config is not None else []
    resolved = sources.resolve([*found, sources.from_environment(), flags])
    if dry_run:
        print(sources.write(resolved), end="")
        return
    console.begin(run_dir, resolved, devices, num_nodes, as_json=json, loggers=heard)


def evaluate(
    run: Path,
    *,
    num_particles: int | None = None,
    partition: str | None = None,
    split: str = "test",
    max_memory: str = "1GiB",
    posterior: str = "draws",
    data: Path | None = None,
    per_datum: Path | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
    **settings: Any,
) -> None:
    """Evaluate a trained run again, with more particles or other estimates of log Z, and say what they allow.

    A setting of partition estimators, as --partition.num-chains, is one of each that is named and has it.

    Args:
        run: folder of the run.
        num_particles: particles K per datum; as in the run by default.
        partition: how log Z is found, one or several: ais,raise,bdmc; as in the run by default.
        split: train, valid or test.
        max_memory: of the particles held at once, in bytes or as 500MB or 2GB.
        posterior: how the posterior of some data is looked for beyond q's own draws, for the far end of the NLL: draws
            of other distributions, ais (annealed, slower and surer), or none.
        data: a file with other data of the same kind, whose split is evaluated.
        per_datum: an .npz file to write: bound, a lower bound of log p(x) for each datum, in nats.
        json: print one JSON document on stdout, and everything else on stderr.
    """
    from unibound.cli import evaluate as command
    from unibound.cli.flags import as_layer
    from unibound.data.splits import require_part
    from unibound.evaluation.memory import parse_bytes
    from unibound.evaluation.reach import require_known

    if num_particles is not None:
        require("--num-particles", num_particles, 1)
    require_part(split)
    memory, look, opened = parse_bytes(max_memory), require_known(posterior), unibound.Run.open(run)
    names = opened.settings.partition.name if partition is None else partition
    chosen = command.partitions(names, run, as_layer(settings))
    files = {"data": data, "per_datum": per_datum}
    command.evaluate(opened, split, num_particles, chosen, memory, look, **files, as_json=json)


def certify(
    run: Path | None = None,
    *,
    rbm: Path | None = None,
    unit: str = "bits",
    data: Path | None = None,
    num_chains: int = 100,
    temperatures: str = "piecewise",
    base: str = "data",
    tolerance: float = 1.0,
    num_particles: int | None = None,
    raise_cases: int = 100,
    raise_chains: int = 1,
    posterior: str = "ais",
    partition: str | None = None,
    seed: int = 0,
    threads: int = 1,
    json: Annotated[bool, Parameter(negative=())] = False,
    **settings: Any,
) -> None:
    """Give an interval for log Z and one for the test log-likelihood, or refuse with exit code 1 and say why.

    Forward annealing, from three bases, errs low on log Z and reverse annealing high; where they disagree, or rest on a
    few chains, or the file is read wrongly, there is no likelihood to be had. Partition estimators that are named bear
    witness too: one that contradicts the interval for log Z refuses it. What is only suspicious is a warning.

    Args:
        run: folder of a trained run; or name --rbm and --data instead.
        rbm: an .npz, .safetensors, .mat, .h5 or .pt file with W [visible, hidden], vbias and hbias, and nothing else.
        unit: what its visible units are: bits, spins, gaussian (with sigma) or potts (W [visible, categories, hidden]).
        data: an .npz file with bits, test [N, pixels...] and optionally train.
        num_chains: annealing chains in each direction; from the other bases half as many.
        temperatures: a number of even ones, or a schedule: linear, piecewise, sigmoid, adaptive.
        base: which base has all chains: the data's base rates, or uniform.
        tolerance: nats that log Z may be left open, and by which the two directions may disagree.
        num_particles: particles per datum, for a run; as in the run by default.
        raise_cases: test data that are annealed in reverse as a check.
        raise_chains: chains for each of them.
        posterior: for a run, how the posterior of some data is looked for beyond q's own draws: ais, draws or none.
        partition: other estimates of log Z to compare with, one or several: ais,exact; none by default.
        seed: of every random number.
        threads: CPU threads.
        json: print one JSON document on stdout, and everything else on stderr.
    """
    from unibound.cli import certify as command
    from unibound.cli.flags import as_layer

    options = {
        "num_chains": num_chains, "temperatures": temperatures, "base": base, "tolerance": tolerance,
        "raise_cases": raise_cases, "raise_chains": raise_chains, "seed": seed,
    }  # fmt: skip
    require("--seed", seed, 0, 2**63 - 1)
    require("--raise-cases", raise_cases, 0)
    for flag, value in (("--num-chains", num_chains), ("--raise-chains", raise_chains)):
        require(flag, value, 1)
    if num_particles is not None:
        require("--num-particles", num_particles, 1)
    flags = as_layer(settings)
    command.certify(
        run, rbm, data, partition, flags, num_particles, posterior, unit, threads=threads, as_json=json, **options
    )


def data(source: str, *, json: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Say what would be read of a data set: its splits and shapes, what values are made of, and classes.

    Args:
        source: an .npz, .npy, .csv, .tsv or .parquet file, a folder of images, or a data set by its name.
        json: print one JSON document.
    """
    from unibound.cli import data as command

    command.data(source, as_json=json)


def diagnose(
    run: Path,
    *,
    num_particles: int = 500,
    count: int = 200,
    split: str = "test",
    probe_steps: int = 3000,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Look into a trained run: what its NLL is made of, weights and their tails, active units, noise of gradients.

    What was found is kept in the run's folder, where `unibound report` finds it.

    Args:
        run: folder of the run.
        num_particles: particles K per datum.
        count: data to look at.
        split: train, valid or test.
        probe_steps: training steps of another prior and another generator, which say what better ones would save; 0
            for neither.
        json: print one JSON document on stdout, and everything else on stderr.
    """
    from unibound.cli import diagnose as command

    require("--num-particles", num_particles, 1)
    require("--count", count, 1)
    require("--probe-steps", probe_steps, 0)
    command.diagnose(unibound.Run.open(run), split, num_particles, count, probe_steps, as_json=json)


def sample(run: Path, *, count: int = 100, seed: int | None = None, out: Path | None = None) -> None:
    """Draw from a trained run: tau from the prior, and of each the mean of p(x | tau), and a draw from it.

    Args:
        run: folder of the run.
        count: how many.
        seed: of the draws; that of the run by default.
        out: file to write; by default samples.png in the run's folder. A .png shows means, an .npz holds arrays x (the
            draws), mean and tau, and after its name those of each model that q and p make together.
    """
    require("--count", count, 1, 100_000)
    if seed is not None:
        require("--seed", seed, 0, 2**63 - 1)
    from unibound.cli import sample as command

    print(command.sample(run, count, seed, out or run / "samples.png"))


def report(run: Path, *more: Path, output: Path | None = None) -> None:
    """Write one page about a run, finished or not: its verdict, curves, pictures and settings.

    Args:
        run: folder of the run.
        more: of other finished runs on the same data, which are set beside it, datum by datum.
        output: HTML file to write; by default report.html in the run's folder, or here where there are several.
    """
    if more:
        from unibound.cli import paired

        print(paired.report([run, *more], output or Path("report.html")))
        return
    from unibound.report import page

    print(page.write(run, output))


def require(flag: str, value: int, low: int, high: int | None = None) -> None:
    """Raise UsageError for a number out of range."""
    if value < low:
        raise UsageError(f"{flag} must be at least {low}, not {value}")
    if high is not None and value > high:
        raise UsageError(f"{flag} must be at most {high}, not {value}")
