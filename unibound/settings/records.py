"""The settings of a run, as attrs records. `layers` reads and writes them."""

import timeit
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from attrs.validators import ge, gt, le, lt, optional

from unibound.data.binarization import Binarization
from unibound.errors import UsageError
from unibound.record import Record, SettingError, settings_class
from unibound.registry import registries
from unibound.settings import defaults

Algorithm = Literal["adam", "adamax", "sgd"]
Schedule = Literal["constant", "cosine", "step"]
MAX_THREADS = 1024
"""More than any machine is the better for; starting a million of them ends the process."""


@attrs.frozen
class Choice:
    """A plugin, with the record of its settings.

    Args:
        kind: of the plugin.
        name: what files and tables call it; only one that is registered can be read back from a file.
        cls: its class.
        settings: the record of its settings, which is the plugin itself where plugins are records.
    """

    kind: str
    name: str
    cls: type
    settings: Any

    @classmethod
    def of(cls, kind: str, plugin: Any) -> "Choice":
        """A plugin by its name or class, with its default settings, or a record as it is; registered or not.

        Raises:
            UsageError: an unknown name, or what is no plugin of this kind.
        """
        registry = registries()[kind]
        plugin = registry[plugin] if isinstance(plugin, str) else plugin
        found = plugin if isinstance(plugin, type) else type(plugin)
        if not issubclass(found, registry.base):
            raise UsageError(f"{found.__name__} is no {registry.label}; give a subclass of {registry.base.__name__}")
        unregistered = f"{found.__module__}.{found.__qualname__}"  # not to be taken for another that is registered
        name = next((name for name, known in registry.items() if known is found), unregistered)
        return cls(kind, name, found, settings_class(found)() if plugin is found else plugin)


@attrs.frozen
class Missing:
    """A plugin that stands where none is named, but is not installed: it is missed only when it is asked for."""

    kind: str
    name: str

    @property
    def cls(self) -> type:
        """Its class: a UsageError."""
        return registries()[self.kind][self.name]

    @property
    def settings(self) -> Any:
        """The record of its settings: a UsageError."""
        return settings_class(self.cls)()


GIVEN = "given"


@attrs.frozen
class Given(Record):
    """What was handed over in Python, and settings cannot write down: data in memory, or modules."""

    @classmethod
    def of(cls, kind: str) -> Choice:
        """In the place of a plugin of this kind."""
        return Choice(kind, GIVEN, cls, cls())


def _default(kind: str, name: str) -> Any:
    """A field that chooses a plugin; its settings are the plugin's own defaults."""
    return attrs.field(factory=lambda: Choice.of(kind, name), metadata={"kind": kind, "name": name})


def _default_if_needed(kind: str, name: str) -> Any:
    """The same of a plugin that a run may do without."""
    return attrs.field(
        factory=lambda: Choice.of(kind, name) if name in registries()[kind] else Missing(kind, name),
        metadata={"kind": kind, "name": name},
    )


@attrs.frozen
class Optimizer(Record):
    """How one parameter group is stepped.

    Args:
        algorithm: adam, adamax or sgd.
        learning_rate: step size at the start of the stage.
        momentum: momentum of sgd.
        weight_decay: decoupled decay of the weights per unit of learning rate (for sgd, an L2 penalty).
        schedule: how the learning rate moves over the stage: constant, cosine to `final`, or step, by a
            factor of ten at half and at three quarters of it.
        final: learning rate at the end of a cosine, as a fraction of the first.
    """

    algorithm: Algorithm = "adam"
    learning_rate: float = attrs.field(default=3e-3, validator=gt(0.0))
    momentum: float = attrs.field(default=0.0, validator=[ge(0.0), le(1.0)])
    weight_decay: float = attrs.field(default=0.0, validator=ge(0.0))
    schedule: Schedule = "cosine"
    final: float = attrs.field(default=0.01, validator=[ge(0.0), le(1.0)])


@attrs.frozen
class Chains(Record):
    """The persistent chains of the prior in a stage, which its negative phase is read from.

    Args:
        num_chains: how many there are; as many as the prior is set to have if 0. Those that there are go on; new ones
            begin as copies of them that were moved apart.
        steps: moves of each per training step; as many as the prior is set to make if 0.
    """

    num_chains: int = attrs.field(default=0, validator=ge(0))
    steps: int = attrs.field(default=0, validator=ge(0))


@attrs.frozen
class Stage(Record):
    """One stretch of training: an estimator, what it trains, and how.

    Args:
        estimator: the rule for the gradient.
        epochs: passes over the training data.
        trains: parameter groups to train, among q, generator, prior; all of them if empty.
        optimizer: how every group is stepped,
        optimizers: unless the group has an entry here.
        averaging: decay of an exponential moving average of the weights, as 0.9995; the averages are what is looked at
            and kept, and what the next stage begins with. 0 for none.
        patience: looks at the validation set without improvement after which the stage ends; 0 for never.
        chains: how many persistent chains the prior has in this stage, and how often they move, unless as it is set.
    """

    estimator: Choice = _default("estimator", defaults.ESTIMATOR)
    epochs: int = attrs.field(default=150, validator=ge(1))
    trains: tuple[str, ...] = ()
    optimizer: Optimizer = attrs.field(factory=Optimizer)
    optimizers: dict[str, Optimizer] = attrs.field(factory=dict)
    averaging: float = attrs.field(default=0.0, validator=[ge(0.0), lt(1.0)])
    patience: int = attrs.field(default=0, validator=ge(0))
    chains: Chains = attrs.field(factory=Chains)


def _device(name: str) -> str:
    """What `auto` is here, so that settings that were written down say what a run was trained on."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def _mixed(chosen: Any, settings: Any) -> bool:
    """What `auto` is here: whether a product in bfloat16 takes less time than in float32, by some margin."""
    if isinstance(chosen, bool):
        return chosen
    if chosen != "auto":
        raise SettingError(Settings, "mixed_precision", f"must be True, False or auto, not {chosen!r}")
    if settings.dtype != "float32" or not torch.amp.is_autocast_available(torch.device(settings.device).type):
        return False
    if settings.device != "cpu":
        return True  # whatever has autocast there has units for it
    wide, narrow = (torch.ones(512, 512, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    took = [min(timeit.repeat(lambda x=x: x @ x, number=1, repeat=7)) for x in (narrow, wide)]
    return took[0] < 0.8 * took[1]


@attrs.frozen
class Settings(Record):
    """Everything a run depends on.

    Args:
        data: a data set by name, or a path: an .npz file with arrays train, valid and test, a single array (.npy), a
            table (.csv, .tsv, .parquet) or a folder of images; with data.missing nan, NaN and empty cells are missing.
            Or hf:NAME and torchvision:NAME, data sets of these libraries.
        binarization: of grey levels where bits are needed: threshold at one half, which is the default, static (sampled
            once), dynamic (anew in each batch), or none.
        model: the networks of q(tau | x) and p(x | tau).
        prior: p(tau).
        likelihood: how the generator's outputs are read as p(x | tau).
        posterior: how the inference network's outputs are read as q(tau | x); by default what is over the same values
            as the prior.
        transition: how the states of a prior with an energy are moved; by default as it moves them itself.
        partition: how log Z is found where the prior is not normalized.
        stages: what is trained, in order.
        warm_start: the folder of a run or of an export of the same networks, with whose weights training begins.
        batch_size: data per training step.
        num_particles: particles per datum of the evaluation.
        validate_every: epochs between looks at the validation set.
        validate_data: data of a look, evenly spread over the validation set; by default all of it.
        keep: the weights that a run ends with: the newest, or the best by validation NLL of those looked at, which a
            look whose log Z is not trustworthy never is.
        seed: of every random number of the run.
        threads: CPU threads; more than one pay off for wide networks on idle cores, and hurt on busy ones.
        device: cpu, cuda, or any other name torch knows; auto is cuda where there is one, and else cpu.
        dtype: of parameters and data; log-weights are summed in float64 whatever it is.
        mixed_precision: train with the layers of q and p in bfloat16; twice as fast where their products are large,
            and the processor has bfloat16; auto tries whether it has. Log-probabilities, the prior and all evaluation
            keep the dtype.
        compile: let torch.compile make one piece of what an estimator does in a training step: half a minute at the
            start of each stage, and 0.7 to 1 of the time from then on, the less the smaller the networks; on a GPU,
            where it is recorded in CUDA graphs, about half.
    """

    data: Choice = _default("data_set", defaults.DATA_SET)
    binarization: Binarization | None = None
    model: Choice = _default("model", defaults.MODEL)
    prior: Choice = _default("prior", defaults.PRIOR)
    likelihood: Choice = _default("likelihood", defaults.LIKELIHOOD)
    posterior: Choice | None = attrs.field(default=None, metadata={"kind": "likelihood", "name": None})
    transition: Choice | None = attrs.field(default=None, metadata={"kind": "transition", "name": None})
    partition: Choice | Missing = _default_if_needed("partition_estimator", defaults.PARTITION_ESTIMATOR)
    stages: tuple[Stage, ...] = attrs.field(factory=lambda: (Stage(),))
    warm_start: Path | None = None
    batch_size: int = attrs.field(default=50, validator=ge(1))
    num_particles: int = attrs.field(default=5000, validator=ge(1))
    validate_every: int = attrs.field(default=10, validator=ge(1))
    validate_data: int | None = attrs.field(default=None, validator=optional(ge(1)))
    keep: Literal["newest", "best"] = "newest"
    seed: int = attrs.field(default=0, validator=[ge(0), lt(2**63)])
    threads: int = attrs.field(default=1, validator=[ge(1), le(MAX_THREADS)])
    device: str = attrs.field(default="auto", converter=_device)
    dtype: Literal["float32", "float64"] = "float32"
    mixed_precision: Literal[False, True, "auto"] = attrs.field(
        default=False, converter=attrs.Converter(_mixed, takes_self=True)
    )
    compile: bool = False

    @property
    def total_epochs(self) -> int:
        """Epochs of all stages together."""
        return sum(stage.epochs for stage in self.stages)

    def looks_after(self, stage: int, epoch: int, done: int) -> bool:
        """Whether the validation set is looked at after an epoch of a stage: at the end of each stage, too.

        Args:
            stage: its index.
            epoch: epochs done in it.
            done: epochs done in all.
        """
        return done == 1 or done % self.validate_every == 0 or epoch == self.stages[stage].epochs


KINDS: dict[str, str] = {
    field.name: field.metadata["kind"]
    for cls in (Settings, Stage)
    for field in attrs.fields(cls)
    if "kind" in field.metadata
}
"""The kind of plugin that each field chooses, where it chooses one."""
