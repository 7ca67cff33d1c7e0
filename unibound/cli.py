"""The command line: parse, call, print. Exit codes: 0 ok, 1 failed, 2 usage, 3 not finite, 130 interrupted."""

import inspect
import sys
from pathlib import Path
from typing import Annotated

import attrs
import cyclopts
from cyclopts import App, Parameter

import unibound
from unibound import layers, pictures
from unibound.errors import UniboundError, UsageError
from unibound.flags import accept_settings, describe
from unibound.layers import Layer
from unibound.registry import registries, settings_class

app = App(
    name="unibound",
    help="Train deep generative models with latent variables by any bound, and know how good they really are.",
    version=unibound.__version__,
)


@app.command
@accept_settings
def run(
    *,
    config: Path | None = None,
    run_dir: Path | None = None,
    resume: Path | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
    flags: Layer,
) -> None:
    """Train a model, evaluate it, and say which side its number errs on.

    Args:
        config: a TOML file of settings; flags override variables (UNIBOUND_EPOCHS), variables the file.
        run_dir: folder of the run; by default a new one under runs/.
        resume: folder of a run to go on with; it keeps its settings.
        json: print one JSON document on stdout, and everything else on stderr.
    """
    from unibound import console

    if resume is not None:
        if flags.values or config or run_dir:
            raise UsageError(f"--resume goes on with the settings of {resume}; leave the other options out")
        console.train(unibound.Run.open(resume, weights=False), resume=True, as_json=json)
        return
    found = [layers.read(config)] if config is not None else []
    settings = layers.resolve([*found, layers.from_environment(), flags])
    path = run_dir or console.new_folder(settings)
    console.train(unibound.Run.create(path, settings), resume=False, as_json=json)


@app.command
def evaluate(
    run: Path,
    *,
    num_particles: int | None = None,
    partition: str | None = None,
    split: str = "test",
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Evaluate a trained run again, with more particles or another estimate of log Z.

    Args:
        run: folder of the run.
        num_particles: particles K per datum; as in the run by default.
        partition: how log Z is found, with the plugin's default settings; as in the run by default.
        split: train, valid or test.
        json: print one JSON document on stdout, and everything else on stderr.
    """
    from unibound import console

    if num_particles is not None and num_particles < 1:
        raise UsageError(f"--num-particles must be at least 1, not {num_particles}")
    if split not in ("train", "valid", "test"):
        raise UsageError(f"--split must be train, valid or test, not {split!r}")
    chosen = None if partition is None else layers.choice("partition_estimator", partition).settings
    console.evaluate(unibound.Run.open(run), split, num_particles, chosen, as_json=json)


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
    opened = unibound.Run.open(run)
    path = out or run / "samples.png"
    pictures.save_grid(path, pictures.samples(opened.joint, count))
    print(path)


@app.command(name="list")
def list_plugins() -> None:
    """List every plugin installed, by kind, with the distribution it comes from."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("kind", "name", "", "from"):
        table.add_column(column, style="bold" if column == "name" else None)
    for kind, registry in registries().items():
        for name, cls in registry.items():
            table.add_row(kind, name, _headline(cls), registry.owner(name))
    Console().print(table)


@app.command
def show(name: str) -> None:
    """Show what a plugin is, its settings and defaults, its paper, and what it needs.

    Args:
        name: a plugin's name, as `unibound list` prints it.
    """
    found = [(kind, registry[name]) for kind, registry in registries().items() if name in registry]
    if not found:
        known = [name for registry in registries().values() for name in registry]
        raise UsageError(f"unknown plugin {name!r}; {unibound.registry.did_you_mean(name, known)}")
    for kind, cls in found:
        text = inspect.getdoc(cls) or ""
        about, _, source = text.partition("\nSource:")
        print(f"{name} ({kind}, from {registries()[kind].owner(name)})\n")
        print(about.partition("\nArgs:")[0].strip() + "\n")
        texts, fields = describe(cls), attrs.fields(settings_class(cls))
        for field in fields:
            flag = f"{'partition' if kind == 'partition_estimator' else kind}.{field.name}".replace("_", "-")
            print(f"  --{flag} = {field.default}   {texts.get(field.name, '')}")
        if needs := getattr(cls, "needs", None):
            print(f"\nNeeds: {needs}")
        if source:
            print(f"\nSource: {' '.join(source.split())}")
        print()


def _headline(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `unibound` command."""
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        _fail(" ".join(str(error).split()), UsageError.exit_code)
    except UniboundError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted; go on with `unibound run --resume RUN`", 130)


def _fail(text: str, code: int) -> None:
    print(f"unibound: {text}", file=sys.stderr)
    sys.exit(code)
