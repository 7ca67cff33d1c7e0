"""The command line: parse, call, print. Exit codes: 0 ok, 1 failed, 2 usage, 3 not finite, 130 interrupted."""

import gc
import os
import sys
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import App, Parameter

import unibound
from unibound.cli import plugins
from unibound.cli.flags import accept_settings
from unibound.errors import UniboundError, UsageError
from unibound.runs import pictures
from unibound.settings import sources
from unibound.settings.sources import Layer

# What torch has imported is here to stay; looking through it for garbage takes longer than most commands.
gc.freeze()

app = App(
    name="unibound",
    help="Train deep generative models with latent variables by any bound, and know how good they really are.",
    version=unibound.__version__,
    suppress_keyboard_interrupt=False,  # `main` has something to say of it
)


@app.command
@accept_settings
def run(
    *,
    config: Path | None = None,
    run_dir: Path | None = None,
    resume: Path | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
    tensorboard: Annotated[bool, Parameter(negative=())] = False,
    flags: Layer,
) -> None:
    """Train a model, evaluate it, and say which side its number errs on.

    Args:
        config: a TOML file of settings, or a recipe by name; flags override variables, as UNIBOUND_EPOCHS or
            UNIBOUND_ESTIMATOR__NUM_PARTICLES, and variables the file.
        run_dir: folder of the run; by default a new one under runs/.
        resume: folder of a run to go on with; it keeps its settings.
        json: print one JSON document on stdout, and everything else on stderr.
        tensorboard: mirror the metrics into the run's folder, for TensorBoard.
    """
    from unibound.cli import console, mirror

    if tensorboard:
        mirror.require()
    if resume is not None:
        if flags.values or config or run_dir:
            raise UsageError(f"--resume goes on with the settings of {resume}; leave the other options out")
        console.train(unibound.Run.open(resume, weights=False), resume=True, as_json=json, tensorboard=tensorboard)
        return
    found = [sources.read(config)] if config is not None else []
    settings = sources.resolve([*found, sources.from_environment(), flags])
    path = run_dir or console.new_folder(settings)
    console.train(unibound.Run.create(path, settings), resume=False, as_json=json, tensorboard=tensorboard)


@app.command
def evaluate(
    run: Path,
    *,
    num_particles: int | None = None,
    partition: str | None = None,
    num_chains: int | None = None,
    num_temperatures: int | None = None,
    target_stderr: float | None = None,
    num_processes: int | None = None,
    state: str | None = None,
    split: str = "test",
    max_memory: str = "1GiB",
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Evaluate a trained run again, with more particles or other estimates of log Z, and say what they allow.

    Args:
        run: folder of the run.
        num_particles: particles K per datum; as in the run by default.
        partition: how log Z is found, one or several: ais,raise,bdmc; as in the run by default.
        num_chains: annealing chains, for every such estimator.
        num_temperatures: annealing temperatures, for every such estimator.
        target_stderr: standard error of log Z, in nats, until which ais adds chains.
        num_processes: processes that share the chains of ais.
        state: file that keeps the finished chains of ais, so that an interrupted evaluation goes on.
        split: train, valid or test.
        max_memory: of the particles held at once, in bytes or as 500MB or 2GB.
        json: print one JSON document on stdout, and everything else on stderr.
    """
    from unibound.cli import console
    from unibound.cli import evaluate as command
    from unibound.evaluation.memory import parse_bytes

    if num_particles is not None and num_particles < 1:
        raise UsageError(f"--num-particles must be at least 1, not {num_particles}")
    console.require_split(split)
    memory, opened = parse_bytes(max_memory), unibound.Run.open(run)
    overrides = {
        "num_chains": num_chains, "num_temperatures": num_temperatures, "target_stderr": target_stderr,
        "num_processes": num_processes, "state": state,
    }  # fmt: skip
    chosen = command.partitions(opened, partition, **overrides)
    command.evaluate(opened, split, num_particles, chosen, memory, as_json=json)


@app.command
def certify(
    run: Path | None = None,
    *,
    rbm: Path | None = None,
    data: Path | None = None,
    num_chains: int = 100,
    temperatures: str = "piecewise",
    base: str = "data",
    tolerance: float = 1.0,
    num_particles: int | None = None,
    raise_cases: int = 100,
    raise_chains: int = 1,
    seed: int = 0,
    threads: int = 1,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Give an interval for log Z and one for the test log-likelihood, or refuse with exit code 1 and say why.

    Forward annealing errs low on log Z and reverse annealing high; where they disagree, or rest on a few chains,
    or the data are not those of the model, there is no likelihood to be had.

    Args:
        run: folder of a trained run; or name --rbm and --data instead.
        rbm: an .npz file with W [visible, hidden], vbias and hbias.
        data: an .npz file with bits, test [N, pixels...] and optionally train.
        num_chains: annealing chains in each direction.
        temperatures: a number of even ones, or a schedule: linear, piecewise, sigmoid, adaptive.
        base: where annealing begins: at the data's base rates, or uniform.
        tolerance: nats by which the two directions may disagree.
        num_particles: particles per datum, for a run; as in the run by default.
        raise_cases: test data that are annealed in reverse as a check.
        raise_chains: chains for each of them.
        seed: of every random number.
        threads: CPU threads.
        json: print one JSON document on stdout, and everything else on stderr.
    """
    from unibound.cli import certify as command

    options = {
        "num_chains": num_chains, "temperatures": temperatures, "base": base, "tolerance": tolerance,
        "raise_cases": raise_cases, "raise_chains": raise_chains, "seed": seed,
    }  # fmt: skip
    command.certify(run, rbm, data, num_particles=num_particles, threads=threads, as_json=json, **options)


@app.command
def diagnose(
    run: Path,
    *,
    num_particles: int = 500,
    count: int = 200,
    split: str = "test",
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Look into a trained run: weights and their tails, what the bound lacks, active units, noise of gradients.

    Args:
        run: folder of the run.
        num_particles: particles K per datum.
        count: data to look at.
        split: train, valid or test.
        json: print one JSON document on stdout, and everything else on stderr.
    """
    from unibound.cli import diagnose as command

    command.diagnose(unibound.Run.open(run), split, num_particles, count, as_json=json)


@app.command
def sample(run: Path, *, count: int = 100, out: Path | None = None) -> None:
    """Draw from a trained run: a picture of the means of p(x | tau), tau from the prior.

    Args:
        run: folder of the run.
        count: how many.
        out: PNG file to write; samples.png in the run's folder by default.
    """
    if count < 1:
        raise UsageError(f"--count must be at least 1, not {count}")
    from unibound.runs.files import require_file

    opened = unibound.Run.open(run)
    path = out or run / "samples.png"
    require_file("--out", path, "a PNG file")
    pictures.save_grid(path, pictures.samples(opened.joint, count))
    print(path)


@app.command
def report(run: Path, *, output: Path | None = None) -> None:
    """Write one page about a run, finished or not: its verdict, curves, pictures and settings.

    Args:
        run: folder of the run.
        output: HTML file to write; page.html in the run's folder by default.
    """
    from unibound.report import page

    print(page.write(run, output))


@app.command
@accept_settings
def compare(
    *,
    estimators: str,
    num_particles: str = "",
    seeds: int = 3,
    evaluation_particles: int | None = None,
    config: Path | None = None,
    out: Path | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
    flags: Layer,
) -> None:
    """Train estimators on the same data and seeds, and set bound, NLL, time, gradient noise and bias side by side.

    A run that is finished is not repeated, so the same command goes on where it was interrupted.

    Args:
        estimators: names, such as vimco,rws,nvil.
        num_particles: particles per datum in training, such as 2,5,20, for each estimator that has them.
        seeds: how many seeds, from --seed on.
        evaluation_particles: particles per datum of the evaluation.
        config: a TOML file of settings for all; flags override variables, variables the file.
        out: folder of the comparison; by default one under runs/, the same for the same settings.
        json: print one JSON document on stdout, and everything else on stderr.
    """
    from unibound.cli import compare as command

    found = [sources.read(config)] if config is not None else []
    if evaluation_particles is not None:
        flags.values["num_particles"] = evaluation_particles
    found += [sources.from_environment(), flags]
    command.compare(estimators, num_particles, seeds, found, out, as_json=json)


app.command(plugins.list_plugins, name="list")
app.command(plugins.show)
app.command(plugins.check)
app.command(plugins.new)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `unibound` command."""
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        _fail(" ".join(str(error).split()), UsageError.exit_code)
    except UniboundError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt as error:
        _fail(str(error) or "interrupted", 130)
    except BrokenPipeError:  # whoever read our output, `head` say, has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        _fail(": ".join(str(part) for part in (error.filename, error.strerror or error) if part), 1)


def _fail(text: str, code: int) -> None:
    print(f"unibound: {text}", file=sys.stderr)
    sys.exit(code)
