"""Train a model of one's own data, or open one that was trained: what `unibound run` does, as a call."""

import functools
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unibound.errors import UsageError
from unibound.generation import Generation
from unibound.joint import JointBound
from unibound.networks import Inference
from unibound.prior import Prior

if TYPE_CHECKING:  # What trains is imported once somebody trains: it takes longer than all else that is said here.
    from unibound.data.splits import Splits
    from unibound.front.trained import Trained
    from unibound.loggers.logger import Logger
    from unibound.runs.progress import Progress
    from unibound.settings.records import Settings
    from unibound.settings.sources import Layer


def fit(
    x: Any = None,
    *,
    prior: Any = None,
    q: Inference | None = None,
    p: Generation | None = None,
    levels: int | None = None,
    missing: Any = None,
    config: str | Path | None = None,
    run_dir: str | Path | None = None,
    callbacks: "Iterable[Callable[[Progress], object]]" = (),
    loggers: "str | Logger | Iterable[str | Logger]" = (),
    progress: bool = True,
    **settings: Any,
) -> "Trained":
    """Train a model, and evaluate it on data that it has not seen.

    It does what `unibound run` does, with the same numbers for the same seed.

    Args:
        x: data [N, *X] as an array, a tensor, lists or a map-style data set of torch, of which every tenth datum
            validates and every tenth tests; or a mapping of `train`, `valid` and `test` to such; or the name of a data
            set, or a path; by default the digits that come along.
        prior: p(tau), by name, as a class or a table of settings, or as a module.
        q, p: the networks as modules of one's own, instead of a model, a prior and a likelihood.
        levels: how many grey levels the data have, 0 to `levels` - 1, where they are such.
        missing: which elements are missing, so that the likelihood is that of the others: "nan", those that are NaN; or
            a mask of the shape of x, or a mapping of parts to such, true where they are.
        config: a TOML file of settings, or a recipe by name; `settings` override it.
        run_dir: folder of the run; by default a temporary one, which `Trained.save` keeps.
        callbacks: each is called after every epoch.
        loggers: who else hears of the run: csv, tensorboard, wandb, or objects with the methods of `unibound.Logger`.
        progress: show a bar.
        settings: everything else that `unibound run` takes: `estimator`, `model`, `likelihood`, `posterior`,
            `transition` and `partition` by name, class, record or table (`{"name": "vimco", "num_particles": 20}`);
            `epochs`, `batch_size`, `seed`, ...; `estimator__num_particles=20` reaches into one.

    Raises:
        UsageError: data, names or values that cannot be used, and parts that do not fit together.
        NonFiniteError: training diverged.

    Example:
        >>> import unibound
        >>> model = unibound.fit("digits", estimator="rws", prior="bernoulli", epochs=1, progress=False)
        >>> model.sample(4).shape
        (4, 8, 8)
    """
    import attrs

    from unibound.front.progress import shown
    from unibound.front.trained import Trained
    from unibound.loggers import Log, loggers_of
    from unibound.runs.run import Run
    from unibound.settings import sources
    from unibound.settings.records import Given

    heard = loggers_of(loggers)
    data, named = _data(x, levels, missing)
    layers = [] if config is None else [sources.read(Path(config))]
    modules = isinstance(prior, Prior)
    given = {} if prior is None or modules else {"prior": prior}
    resolved = sources.resolve([*layers, _layer(settings | given | named)])
    joint = _joint(q, p, prior)
    if isinstance(prior, Prior):
        data = data or resolved.data.settings.load()
        joint = _build(resolved, prior, data)
    if joint is not None:
        resolved = attrs.evolve(resolved, **{kind: Given.of(kind) for kind in ("model", "prior", "likelihood")})
    if data is not None:
        resolved = attrs.evolve(resolved, data=Given.of("data_set"))
    kept = None if run_dir is not None else tempfile.TemporaryDirectory(prefix="unibound-")
    run = Run.create(run_dir if kept is None else Path(kept.name) / "run", resolved, data=data, joint=joint)
    callbacks, seconds = list(callbacks), 0.0
    with run.owned(), Log(run, heard) as log:
        for done in shown(run.train(), run.settings.total_epochs, show=progress):
            seconds = done.seconds
            log.after(done)
            for callback in callbacks:
                callback(done)
        log.conclude(run.finish(seconds))
    run.joint.eval()
    return Trained(run, kept)


def load(
    path: str | Path,
    x: Any = None,
    *,
    joint: JointBound | None = None,
    levels: int | None = None,
    missing: Any = None,
) -> "Trained":
    """Open the folder of a run with its newest weights, trained here or elsewhere.

    Most of what a trained model can do needs no data; those that it was trained on are read when they are needed.

    Args:
        path: of the folder, of a run or an export; or hf:USER/NAME, of an export on the Hugging Face hub.
        x: the data, where they were handed to `fit` in memory, as they were.
        joint: q and p, where they were modules of one's own; their weights become those of the run.
        levels, missing: as for `fit`.

    Raises:
        UsageError: no run, one that is damaged, or other data than it was trained on.
    """
    from unibound.front import hub
    from unibound.front.arrays import splits_of
    from unibound.front.trained import Trained
    from unibound.runs.run import Run

    name = hub.name_of(path)
    folder = Path(path) if name is None else hub.fetch(name)
    run = Run.open(folder, data=None if x is None else splits_of(x, levels, missing), joint=joint)
    run.joint.eval()
    return Trained(run)


def _data(x: Any, levels: int | None, missing: Any) -> "tuple[Splits | None, dict[str, Any]]":
    """Data in memory, or the setting that names them."""
    from unibound.data.splits import DataSet
    from unibound.front.arrays import splits_of

    if x is None or isinstance(x, str | Path | DataSet):
        if levels is not None:
            raise UsageError("levels are of data in memory; a file says itself how many it has, in an array levels")
        if missing is not None and not (isinstance(missing, str) and isinstance(x, str | Path)):
            raise UsageError('masks are of data in memory; a file has arrays train_mask, ..., or NaN and missing="nan"')
        named = str(x) if isinstance(x, Path) else x
        return None, {} if x is None else {"data": named if missing is None else {"name": named, "missing": missing}}
    return splits_of(x, levels, missing), {}


def _layer(settings: Mapping[str, Any]) -> "Layer":
    """Keywords as a layer of settings; two underscores reach into a plugin's own."""
    from unibound.settings import sources

    values: dict[str, Any] = {}
    for name, value in sorted(settings.items()):
        first, *inner = name.split("__")
        sources.nest(values, [first, *inner], value if inner else _plain(first, value))
    return sources.Layer(values, lambda name: name.replace(".", "__"))


def _plain(name: str, value: Any) -> Any:
    """A plugin as a choice or a table; anything else as it is."""
    from unibound.settings.records import KINDS, Choice

    if isinstance(value, functools.partial):
        return {"name": Choice.of(KINDS[name], value.func).name, **value.keywords} if name in KINDS else value
    if name not in KINDS or value is None or isinstance(value, str | Mapping):
        return value
    return Choice.of(KINDS[name], value)


def _joint(q: Inference | None, p: Generation | None, prior: Any) -> JointBound | None:
    if q is None and p is None:
        return None
    if q is None or p is None:
        raise UsageError("q and p go together: give both, or neither and a model by name")
    if prior is not None:
        raise UsageError("p has a prior of its own; leave prior out, or q and p")
    for name, module, kind in (("q", q, Inference), ("p", p, Generation)):
        if not isinstance(module, kind):
            raise UsageError(f"{name} is a {type(module).__name__}; give a module that is a unibound.{kind.__name__}")
    return JointBound(q, p)


def _build(settings: "Settings", prior: Prior, data: "Splits") -> JointBound:
    """q and p about a prior that was made already."""
    from unibound.data.binarization import fit as fit_data
    from unibound.settings.defaults import likelihood_over

    model, likelihood = settings.model.settings, settings.likelihood.settings
    needed = model.data_support(prior.support, likelihood)
    fitted, _ = fit_data(data, needed, settings.binarization, f"model {settings.model.name}")
    posterior = likelihood_over(prior.support) if settings.posterior is None else settings.posterior.settings
    return model.build(prior, likelihood, posterior, fitted.rows("train").mean())
