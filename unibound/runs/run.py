"""A run: one folder that holds everything needed to repeat, resume, evaluate and look at it.

resolved.toml        every setting        env.json       versions, plugins, data checksum
metrics.jsonl        one line per epoch   checkpoints/   the newest two, the best
evaluation.json      the final numbers    data.json      what a model takes from its data
SHA256SUMS           digests of these     .lock          held by whoever trains
film/, samples.png, nearest.png, reconstructions.png, traversals.png, trajectories.png, chain.png: pictures
"""

import functools
import json
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import cast

import attrs
import torch
from filelock import FileLock
from torch import Tensor

from unibound import disk, support
from unibound.data.binarization import STATIC_SEED, sample_all
from unibound.data.files import File
from unibound.data.rows import Rows, spread
from unibound.data.splits import Splits
from unibound.errors import DamagedError, NonFiniteError, UniboundError, UsageError
from unibound.evaluation.evaluate import MAX_MEMORY, Evaluation, evaluate_all, normalize
from unibound.evaluation.reach import Posterior
from unibound.joint import JointBound
from unibound.partition.log_z import NormalizedPrior, PartitionEstimator
from unibound.runs import checkpoint, folder, session
from unibound.runs.build import Loaded, joint_for, load, looks_at_data, parse_device
from unibound.runs.environment import ENVIRONMENT, KNOWN, Known, data_digest, environment
from unibound.runs.files import write_sealed
from unibound.runs.folder import RESOLVED, Say, read_settings, warn
from unibound.runs.kept import begin, kept, load_kept
from unibound.runs.metrics import METRICS
from unibound.runs.overflow import CURE, largest_weight
from unibound.runs.progress import Bar, Progress, no_bar
from unibound.runs.result import Result
from unibound.runs.standing import require_same
from unibound.runs.train import Training
from unibound.settings import sources
from unibound.settings.records import Settings

__all__ = ["METRICS", "RESOLVED", "Run", "read_settings"]


@attrs.frozen(eq=False)
class Run:
    """A folder, its settings, the joint they describe, and the data, loaded when needed; what is `known` is there."""

    path: Path
    settings: Settings
    joint: JointBound
    known: Known
    _loaded: Loaded | None = attrs.field(default=None, repr=False)
    _given: Splits | None = attrs.field(default=None, repr=False)
    _lock: FileLock = attrs.field(
        default=attrs.Factory(lambda self: folder.lock_of(self.path), takes_self=True), init=False, repr=False
    )

    @classmethod
    def create(
        cls, path: Path | str | None, settings: Settings, *, data: Splits | None = None, joint: JointBound | None = None
    ) -> "Run":
        """Begin a run in a new folder, by default one of its own under runs/.

        Args:
            path: of the folder.
            settings: of the run.
            data: as they came, where the settings do not say where to find them.
            joint: q and p, where the settings do not say what they are; trained in place.

        Raises:
            UsageError: the folder holds a run already, or checkpoints of one; or this cannot be trained.
        """
        if path is not None:
            folder.require_new(Path(path))  # before data are loaded; and below, when nobody else can write
        run = cls._build(Path(path or "runs"), settings, data=data, joint=joint)
        with torch.random.fork_rng():
            run.training()  # refuses what cannot be trained, before anything is written
        try:
            path = folder.make(settings) if path is None else Path(path)
            disk.make_folder(path, exist_ok=True)
            run = attrs.evolve(run, path=path)
            with run.owned():
                folder.require_new(path)
                about = environment(settings) | {"data_sha256": run.data_digest}
                for name, document in ((ENVIRONMENT, about), (KNOWN, run.known.document)):
                    write_sealed(path / name, json.dumps(document, indent=2) + "\n")
                write_sealed(path / RESOLVED, sources.write(settings))
        except OSError as error:
            raise UsageError(f"cannot write a run to {path}: {error.strerror}; name another --run-dir") from error
        return run

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        data: Splits | None = None,
        joint: JointBound | None = None,
        weights: bool = True,
        say: Say = warn,
    ) -> "Run":
        """Open the folder of a run, by default with the weights it keeps: its newest, or its best.

        Args:
            path: of the folder.
            data, joint: what `create` was given, where it was.
            weights: whether to load them; without, it is as it was before it was trained.
            say: told what is not as it was left, but does not matter here.

        Raises:
            UsageError: no run, or one whose files are damaged or not of one run.
        """
        path = Path(path)
        run = cls._build(path, read_settings(path, say), Known.read(path), data, joint)
        if weights:
            run.load_kept()
        return run

    def load_kept(self) -> str:
        """Load the weights that the settings keep, the newest or the best, and say which; UsageError if damaged."""
        found, about, words = kept(self.checkpoints, self.settings)
        if about is not None:
            require_same(found, about, self.settings, data_digest(self.path) or self.data_digest)
        load_kept(self.joint, found)
        return words

    def owned(self) -> AbstractContextManager[None]:
        """Be the only process that writes here, as training does. Raises UsageError if another is."""
        return folder.owned(self.path, self._lock)

    @classmethod
    def _build(
        cls,
        path: Path,
        settings: Settings,
        known: Known | None = None,
        data: Splits | None = None,
        joint: JointBound | None = None,
    ) -> "Run":
        """A run of these settings, as seeded; what is known of its data spares loading them."""
        torch.set_num_threads(settings.threads)
        loaded = load(settings, data, joint) if known is None else None
        known = known or Known.of(cast("Loaded", loaded))
        device, dtype = parse_device(settings.device), getattr(torch, settings.dtype)
        torch.manual_seed(settings.seed)
        joint = joint_for(settings, known.mean.to(device, dtype), joint, partly=known.missing > 0)
        run = cls(path, settings, joint, known, loaded, data)
        if looks_at_data(joint):
            joint.p.bind(joint.q, run.split("train"))
        return run

    @functools.cached_property
    def splits(self) -> Splits:
        """The data. Raises UsageError for others than the run began with."""
        splits = self._found.splits
        if (self.path / RESOLVED).exists() and data_digest(self.path) not in (None, splits.digest()):
            raise UsageError(f"the data are not those that {self.path} was trained on; bring them back, or start anew")
        return splits

    @property
    def has_data(self) -> bool:
        """Whether the data can be looked at: a trained model can do much without them."""
        if self.settings.data.cls is File and self._loaded is None and self._given is None:
            return self.settings.data.settings.path.exists()
        with suppress(UniboundError):  # what is fetched may be gone from where it was kept, or out of reach
            return self._found is not None
        return False

    @functools.cached_property
    def _found(self) -> Loaded:
        """The data as they are now, whoever's they are."""
        return self._loaded or load(self.settings, self._given, self.joint)

    @property
    def dynamic(self) -> bool:
        """Whether training data are grey levels whose bits are sampled anew in each batch."""
        return not support.same(self.splits.support, support.boolean) and self.settings.binarization == "dynamic"

    def split(self, name: str) -> Tensor:
        """One split as it is evaluated [N, *X], all at once."""
        return self.rows(name)[:]

    def rows(self, name: str) -> Rows:
        """The same as it is kept: under dynamic binarization, bits sampled once."""
        x = self.splits.rows(name)
        return sample_all(x, STATIC_SEED) if name == "train" and self.dynamic else x

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / checkpoint.CHECKPOINTS

    def train(self, *, resume: bool = False, say: Say = warn) -> Generator[Progress]:
        """Train to the end, saving after every epoch; the folder is owned until then, or until the iterator is closed.

        Args:
            resume: go on from the newest checkpoint that is whole, and first say where that stands.
            say: told what was damaged, and why the run will not end with the same bits.
        Raises:
            UsageError: at once, if this cannot be trained, another process trains it, or checkpoints are another's.
        """
        epochs = session.epochs(self, resume=resume, say=say)
        next(epochs)  # up to where it owns the folder and knows where it stands
        return cast("Generator[Progress]", epochs)

    def training(self) -> Training:
        """The joint at the beginning of its training. Raises UsageError if it cannot be trained."""
        begin(self.joint, self.settings, self.checkpoints)
        x, own = self.splits.rows("train"), self.settings
        options = {"batch_size": own.batch_size, "dynamic": self.dynamic, "compile": own.compile}
        return Training(self.joint, own.stages, x, **options)

    def normalize(self, partition: PartitionEstimator | None = None) -> NormalizedPrior | None:
        """What normalizes p, by default found as the settings say; None if p is normalized already."""
        if self.joint.p.unnormalized is None:
            return None
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed)
            x = self.rows("train") if self.has_data else None  # without, the base is that of the last look
            return normalize(self.joint, partition or self.settings.partition.settings, x)

    def evaluate(
        self,
        split: str,
        *,
        num_particles: int | None = None,
        normalized: NormalizedPrior | None = None,
        limit: int | None = None,
        posterior: Posterior = "draws",
        on_progress: Callable[[int], object] = lambda done: None,
    ) -> Evaluation:
        """Evaluate on one split, by default with what `normalize` finds. See `evaluate_all`."""
        options = {"num_particles": num_particles, "limit": limit, "posterior": posterior, "on_progress": on_progress}
        return self.evaluate_all(split, [normalized or self.normalize()], **options)[0]

    def evaluate_all(
        self,
        split: str,
        normalized: Sequence[NormalizedPrior | None],
        *,
        splits: Splits | None = None,
        num_particles: int | None = None,
        limit: int | None = None,
        max_memory: int = MAX_MEMORY,
        posterior: Posterior = "draws",
        on_progress: Callable[[int], object] = lambda done: None,
    ) -> list[Evaluation]:
        """Evaluate on one split, of other data if given, once for each way to normalize p, all by the same particles.

        The random numbers are those of the run's seed, whatever was drawn before, and leave no trace.
        """
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed)
            results = evaluate_all(
                self.joint,
                spread(self.rows(split) if splits is None else splits.rows(split), limit),
                normalized,
                num_particles=self.settings.num_particles if num_particles is None else num_particles,
                max_memory=max_memory,
                levels=(splits or self.splits).levels,
                posterior=posterior,
                on_progress=on_progress,
            )
        if any(math.isnan(result.nll) for result in results):
            group, size = largest_weight(self.joint)
            raise NonFiniteError(f"the {split} NLL is not a number, and {group} has weights up to {size:.1g}; {CURE}")
        return results

    def finish(self, seconds: float = 0.0, bar: Callable[[str, int], Bar] = no_bar) -> Result:
        """Evaluate a trained run, draw its pictures, and keep what came out in its folder; a finished one is read.

        Args:
            seconds: what training took.
            bar: called with what is evaluated and how many data; shows how far it is.
        """
        with self.owned():
            return Result.read(self.path) or session.finish(self, seconds, bar)

    def result(self) -> Result | None:
        """What came out, where nothing is left to do; None also if the newest checkpoint is to be made anew."""
        found = Result.read(self.path)
        if found is not None and (kept := checkpoint.finished(self.checkpoints)):
            try:
                checkpoint.check(kept[-1])
            except DamagedError:
                return None
        return found

    @functools.cached_property
    def data_digest(self) -> str:
        """SHA-256 of the data, as binarized."""
        return self.splits.digest()
