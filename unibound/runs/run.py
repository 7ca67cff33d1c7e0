"""A run: one folder that holds everything needed to repeat, resume, evaluate and look at it.

resolved.toml        every setting        env.json       versions, plugins, data checksum
metrics.jsonl        one line per epoch   checkpoints/   the newest two
evaluation.json      the final numbers    samples.png, reconstructions.png, chain.png
"""

import contextlib
import functools
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
import torch
from torch import Tensor

from unibound import support
from unibound.data.binarization import STATIC_SEED, sample_bits
from unibound.data.splits import Splits, spread
from unibound.errors import NonFiniteError, UsageError
from unibound.evaluation.evaluate import MAX_MEMORY, Evaluation, evaluate_all, normalize
from unibound.joint import JointBound
from unibound.partition.log_z import NormalizedPrior, PartitionEstimator
from unibound.runs import checkpoint, pictures
from unibound.runs.build import build, parse_device, prepare
from unibound.runs.environment import environment
from unibound.runs.files import write_text
from unibound.runs.progress import Bar, Progress, no_bar
from unibound.runs.result import Result
from unibound.runs.train import CURE, Training, largest_weight, untrained
from unibound.runs.watch import watch
from unibound.settings import sources
from unibound.settings.records import Settings

RESOLVED, METRICS = "resolved.toml", "metrics.jsonl"


@attrs.frozen(eq=False)
class Run:
    """A folder, its settings, the data and the joint they describe.

    Args:
        prepared: what was done to the data, in words; empty if nothing was.
    """

    path: Path
    settings: Settings
    splits: Splits
    joint: JointBound
    prepared: str

    @classmethod
    def create(cls, path: Path | str, settings: Settings) -> "Run":
        """Begin a run in a new folder. Raises UsageError if the folder holds one already."""
        path = Path(path)
        if (path / RESOLVED).exists():
            raise UsageError(f"{path} holds a run already; go on with --resume {path}, or name another --run-dir")
        run = cls._build(path, settings)
        with torch.random.fork_rng():
            run._training()  # refuses what cannot be trained, before anything is written
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_text(path / "env.json", json.dumps(environment() | {"data_sha256": run.data_digest}, indent=2) + "\n")
            write_text(path / RESOLVED, sources.write(settings))
        except OSError as error:
            raise UsageError(f"cannot write a run to {path}: {error.strerror}; name another --run-dir") from error
        return run

    @classmethod
    def open(cls, path: Path | str, *, weights: bool = True) -> "Run":
        """Open the folder of a run, by default with the weights of its newest checkpoint."""
        path = Path(path)
        run = cls._build(path, read_settings(path))
        if weights:
            newest = checkpoint.newest(run.checkpoints)
            found = checkpoint.load_weights(newest)
            with checkpoint.fitting(newest):
                # Those of q and p, without what an estimator hung beside them.
                own = {name: value for name, value in found.items() if not name.startswith("auxiliary.")}
                run.joint.load_state_dict(own)
        return run

    @classmethod
    def _build(cls, path: Path, settings: Settings) -> "Run":
        torch.set_num_threads(settings.threads)
        torch.manual_seed(settings.seed)
        splits, prepared = prepare(settings, settings.data.settings.load())
        device, dtype = parse_device(settings.device), getattr(torch, settings.dtype)
        splits = splits.to(device, dtype)
        joint = build(settings, splits.train).to(device, dtype)
        run = cls(path, settings, splits, joint, prepared)
        joint.p.bind(joint.q, run.split("train"))
        return run

    @property
    def dynamic(self) -> bool:
        """Whether training data are grey levels whose bits are sampled anew in each batch."""
        return not support.same(self.splits.support, support.boolean) and self.settings.binarization == "dynamic"

    def split(self, name: str) -> Tensor:
        """One split as it is evaluated [N, *X]: under dynamic binarization, bits sampled once."""
        x: Tensor = getattr(self.splits, name)
        if name != "train" or not self.dynamic:
            return x
        return sample_bits(x.cpu(), torch.Generator().manual_seed(STATIC_SEED)).to(x.device)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def total_epochs(self) -> int:
        """Epochs of all stages together."""
        return sum(stage.epochs for stage in self.settings.stages)

    def looks_after(self, done: int) -> bool:
        """Whether the validation set is looked at after this many epochs: at the end of each stage, too."""
        ends = itertools.accumulate(stage.epochs for stage in self.settings.stages)
        return done == 1 or done % self.settings.validate_every == 0 or done in ends

    def train(self, *, resume: bool = False) -> Iterator[Progress]:
        """Train to the end, saving after every epoch.

        With `resume`, go on from the newest checkpoint, and first say where that stands.

        Raises:
            UsageError: at once, if this cannot be trained, or the checkpoint is not one of this run.
        """
        training = self._training()
        if resume and checkpoint.finished(self.checkpoints):
            return self._epochs(training, self._restore(training))
        return self._epochs(training, None)

    def _training(self) -> Training:
        x, size = self.splits.train, self.settings.batch_size
        return Training(self.joint, self.settings.stages, x, batch_size=size, dynamic=self.dynamic)

    def _restore(self, training: Training) -> Progress:
        newest = checkpoint.newest(self.checkpoints)
        state, weights = checkpoint.load_state(newest), checkpoint.load_weights(newest)
        with checkpoint.fitting(newest):
            training.load_state_dict(state["training"], weights)
            progress = Progress.from_dict(state["progress"])
            same_data = state["data"] == self.data_digest
        if not same_data:
            raise UsageError(f"the data are not those that {self.path} was trained on; bring them back, or start anew")
        return progress

    def _epochs(self, training: Training, progress: Progress | None) -> Iterator[Progress]:
        done, valid_nll, log_z, start = 0, None, None, time.perf_counter()
        if progress is not None:
            done, valid_nll, log_z, start = progress.done, progress.valid_nll, progress.log_z, start - progress.seconds
            yield progress
        self._truncate_metrics(done)
        for epoch in training.epochs():
            done += 1
            line, stuck = {"done": done, **attrs.asdict(epoch)}, None
            if self.looks_after(done):
                with training.overflow_reported():
                    valid = self.evaluate("valid", num_particles=min(100, self.settings.num_particles))
                    watched = watch(self.joint, self.splits.valid, valid, seed=self.settings.seed)
                    chain = pictures.chain(self.joint)
                valid_nll, log_z, stuck = valid.nll, valid.log_z, watched.stuck
                line |= {"valid_nll": valid_nll, "log_z": None if log_z is None else log_z.value, **watched.numbers}
                if chain is not None:
                    pictures.save_grid(self.path / "chain.png", chain)
            progress = Progress(epoch, done, valid_nll, log_z, time.perf_counter() - start, stuck)
            # The line first: if we are killed in between, resuming drops it and does the epoch again.
            with (self.path / METRICS).open("a") as file:
                file.write(json.dumps(line) + "\n")
            state = {
                "training": training.state_dict(),
                "progress": progress.to_dict(),
                "data": self.data_digest,
            }
            checkpoint.save(self.checkpoints, done, self.joint.state_dict(), state)
            yield progress

    def normalize(self, partition: PartitionEstimator | None = None) -> NormalizedPrior | None:
        """What normalizes p, by default found as the settings say; None if p is normalized already."""
        if self.joint.p.unnormalized is None:
            return None
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed)
            return normalize(self.joint, partition or self.settings.partition.settings, self.split("train"))

    def evaluate(
        self,
        split: str,
        *,
        num_particles: int | None = None,
        normalized: NormalizedPrior | None = None,
        limit: int | None = None,
        on_progress: Callable[[int], object] = lambda done: None,
    ) -> Evaluation:
        """Evaluate on one split, by default with what `normalize` finds. See `evaluate_all`."""
        options = {"num_particles": num_particles, "limit": limit, "on_progress": on_progress}
        return self.evaluate_all(split, [normalized or self.normalize()], **options)[0]

    def evaluate_all(
        self,
        split: str,
        normalized: Sequence[NormalizedPrior | None],
        *,
        num_particles: int | None = None,
        limit: int | None = None,
        max_memory: int = MAX_MEMORY,
        on_progress: Callable[[int], object] = lambda done: None,
    ) -> list[Evaluation]:
        """Evaluate on one split, once for each way to normalize p, all with the same particles.

        The random numbers are those of the run's seed, whatever was drawn before, and leave no trace.
        """
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed)
            results = evaluate_all(
                self.joint,
                spread(self.split(split), limit),
                normalized,
                num_particles=num_particles or self.settings.num_particles,
                max_memory=max_memory,
                levels=self.splits.levels,
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
        if (found := Result.read(self.path)) is not None:
            return found
        start = time.perf_counter()
        self.draw()
        normalized, found = self.normalize(), {}
        count = len(self.splits.test)  # of training data as many: enough to see overfitting
        for split in ("test", "train"):
            with bar(f"evaluating {split}", min(count, len(getattr(self.splits, split)))) as advance:
                found[split] = self.evaluate(split, normalized=normalized, limit=count, on_progress=advance)
        every = len(self.splits.train)
        test = attrs.evolve(found["test"], seconds=seconds + time.perf_counter() - start)
        result = Result.of(
            test,
            partition=self.settings.partition.name,
            run_dir=self.path,
            train_nll=found["train"].nll,
            train_data=(min(count, every), every),
            prepared=self.prepared,
            untrained=untrained(self.joint, self.settings.stages),
        )
        result.write(self.path)
        return result

    def draw(self) -> None:
        """Write samples.png, and reconstructions.png where there are such."""
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed)
            pictures.save_grid(self.path / "samples.png", pictures.samples(self.joint))
            with contextlib.suppress(UsageError):  # a p without a p(x | tau) has none
                pairs = pictures.reconstructions(self.joint, spread(self.splits.test, 50))
                pictures.save_grid(self.path / "reconstructions.png", pairs)

    def _truncate_metrics(self, done: int) -> None:
        """Drop lines of epochs that were not saved in a checkpoint, or half a line."""
        path = self.path / METRICS
        lines = path.read_text().splitlines() if path.exists() else []
        write_text(path, "".join(f"{line}\n" for line in lines[:done]))

    @functools.cached_property
    def data_digest(self) -> str:
        """SHA-256 of the data, as binarized."""
        return self.splits.digest()


def read_settings(path: Path) -> Settings:
    """The settings of a run's folder. Raises UsageError for a folder that is none of a run."""
    if not (path / RESOLVED).is_file():
        raise UsageError(f"{path} is not the folder of a run: it holds no {RESOLVED}")
    return sources.resolve([sources.read(path / RESOLVED)])
