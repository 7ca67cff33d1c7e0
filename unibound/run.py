"""A run: one folder that holds everything needed to repeat, resume, evaluate and look at it.

resolved.toml        every setting        env.json       versions, plugins, data checksum
metrics.jsonl        one line per epoch   checkpoints/   the newest two
evaluation.json      the final numbers    samples.png, reconstructions.png
"""

import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from unibound import checkpoint, layers, pictures
from unibound.data import Splits, binarize
from unibound.errors import UsageError
from unibound.evaluate import Evaluation, evaluate, normalize
from unibound.joint import JointBound
from unibound.partition import LogZ
from unibound.settings import Settings
from unibound.train import Epoch, Training

RESOLVED, METRICS, EVALUATION = "resolved.toml", "metrics.jsonl", "evaluation.json"


@attrs.frozen
class Progress:
    """Where a run stands after an epoch; log_z is that of the last look at the validation set."""

    epoch: Epoch
    done: int
    valid_nll: float | None
    log_z: LogZ | None

    @property
    def bound(self) -> float | None:
        """Mean training bound on log p(x), in nats, as far as log Z is known."""
        if self.epoch.bound is None:
            return None
        return self.epoch.bound - (self.log_z.value if self.log_z is not None else 0.0)


@attrs.frozen(eq=False)
class Run:
    """A folder, its settings, the data and the joint they describe."""

    path: Path
    settings: Settings
    splits: Splits
    joint: JointBound

    @classmethod
    def create(cls, path: Path, settings: Settings) -> "Run":
        """Begin a run in a new folder. Raises UsageError if the folder holds one already."""
        if (path / RESOLVED).exists():
            raise UsageError(f"{path} holds a run already; go on with --resume {path}, or name another --run-dir")
        run = cls._build(path, settings)
        path.mkdir(parents=True, exist_ok=True)
        write_text(path / RESOLVED, layers.write(settings))
        write_text(path / "env.json", json.dumps(run._environment(), indent=2) + "\n")
        return run

    @classmethod
    def open(cls, path: Path, *, weights: bool = True) -> "Run":
        """Open the folder of a run, by default with the weights of its newest checkpoint."""
        if not (path / RESOLVED).is_file():
            raise UsageError(f"{path} is not the folder of a run: it holds no {RESOLVED}")
        run = cls._build(path, layers.resolve([layers.read(path / RESOLVED)]))
        if weights:
            newest = checkpoint.newest(run.checkpoints)
            try:
                run.joint.load_state_dict(run._own(checkpoint.load_weights(newest)))
            except RuntimeError as error:
                raise UsageError(f"{newest} does not fit {path / RESOLVED}: {_first_line(error)}") from error
        return run

    @classmethod
    def _build(cls, path: Path, settings: Settings) -> "Run":
        torch.manual_seed(settings.seed)
        splits = binarize(settings.data.settings.load(), settings.binarization)
        device, dtype = parse_device(settings.device), getattr(torch, settings.dtype)
        splits = attrs.evolve(splits, **{name: x.to(device, dtype) for name, x in splits.items()})
        joint = build(settings, splits.train).to(device, dtype)
        joint.p.bind(joint.q, splits.train)
        return cls(path, settings, splits, joint)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    def train(self, *, resume: bool = False) -> Iterator[Progress]:
        """Train to the end, saving after every epoch. With `resume`, go on from the newest checkpoint."""
        settings = self.settings
        training = Training(
            self.joint,
            settings.stages,
            self.splits.train,
            batch_size=settings.batch_size,
            dynamic=settings.binarization == "dynamic",
        )
        done, valid_nll, log_z = 0, None, None
        if resume:
            newest = checkpoint.newest(self.checkpoints)
            state = checkpoint.load_state(newest)
            training.load_state_dict(state["training"], checkpoint.load_weights(newest))
            done, valid_nll = state["done"], state["valid_nll"]
            log_z = None if state["log_z"] is None else LogZ(**state["log_z"])
        self._truncate_metrics(done)
        total = sum(stage.epochs for stage in settings.stages)
        for epoch in training.epochs():
            done += 1
            line = {"done": done, **attrs.asdict(epoch)}
            if done == 1 or done % settings.validate_every == 0 or done == total:
                valid = self.evaluate("valid", num_particles=min(100, settings.num_particles))
                valid_nll, log_z = valid.nll, valid.log_z
                line |= {"valid_nll": valid_nll, "log_z": None if log_z is None else log_z.value}
            checkpoint.save(
                self.checkpoints,
                done,
                self.joint.state_dict(),
                {
                    "training": training.state_dict(),
                    "done": done,
                    "valid_nll": valid_nll,
                    "log_z": None if log_z is None else attrs.asdict(log_z),
                },
            )
            with (self.path / METRICS).open("a") as file:
                file.write(json.dumps(line) + "\n")
            yield Progress(epoch, done, valid_nll, log_z)

    def evaluate(
        self,
        split: str,
        *,
        num_particles: int | None = None,
        partition: Any = None,
        limit: int | None = None,
        on_progress: Callable[[int], object] = lambda done: None,
    ) -> Evaluation:
        """Evaluate on one split, by default as the settings say.

        The random numbers are those of the run's seed, whatever was drawn before, and leave no trace.
        """
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed)
            partition = partition or self.settings.partition.settings
            return evaluate(
                self.joint,
                getattr(self.splits, split)[:limit],
                num_particles=num_particles or self.settings.num_particles,
                normalized=normalize(self.joint, partition, self.splits.train),
                on_progress=on_progress,
            )

    def draw(self) -> None:
        """Write samples.png and reconstructions.png."""
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.seed)
            pictures.save_grid(self.path / "samples.png", pictures.samples(self.joint))
            pairs = pictures.reconstructions(self.joint, self.splits.test[:50])
            pictures.save_grid(self.path / "reconstructions.png", pairs)

    def _own(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights of q and p, without what an estimator hung beside them."""
        return {name: value for name, value in weights.items() if not name.startswith("auxiliary.")}

    def _truncate_metrics(self, done: int) -> None:
        """Drop lines of epochs that were not saved in a checkpoint, or half a line."""
        path = self.path / METRICS
        lines = path.read_text().splitlines() if path.exists() else []
        write_text(path, "".join(f"{line}\n" for line in lines[:done]))

    def _environment(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for _, x in self.splits.items():
            digest.update(x.cpu().contiguous().numpy().tobytes())
        points = entry_points(group="unibound")
        return {
            "command": sys.argv,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "unibound": version("unibound"),
            "plugins": sorted({f"{point.dist.name} {point.dist.version}" for point in points if point.dist}),
            "data_sha256": digest.hexdigest(),
        }


def build(settings: Settings, x_train: Tensor) -> JointBound:
    """Build q and p as the settings say, for training data [N, *X]."""
    model = settings.model.settings
    prior_settings = attrs.asdict(settings.prior.settings, recurse=False)
    prior = settings.prior.cls(model.latent_shape(tuple(x_train.shape[1:])), **prior_settings)
    posterior = settings.posterior or layers.choice("likelihood", prior.posterior)
    return model.build(prior, settings.likelihood.settings, posterior.settings, x_train.mean(0))


def parse_device(name: str) -> torch.device:
    """A torch device that can be used here; UsageError otherwise."""
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name!r} cannot be used here: {_first_line(error)}; use cpu") from error


def write_text(path: Path, text: str) -> None:
    """Write a file beside and rename it, so that nobody ever sees half of it."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text)
    os.replace(draft, path)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0]
