"""One session of training a run: from where it stands to the end, an epoch at a time, each kept before the next."""

import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import torch

from unibound import ranks
from unibound.data.rows import spread
from unibound.errors import UsageError
from unibound.runs import checkpoint, pictures
from unibound.runs.carried import LIMIT, carried
from unibound.runs.checkpoint import About
from unibound.runs.environment import numerics
from unibound.runs.files import read_sums, write_sealed
from unibound.runs.folder import RESOLVED, Say
from unibound.runs.judgment import Judgment
from unibound.runs.made import Made, evaluated, made
from unibound.runs.metrics import Metrics
from unibound.runs.progress import Bar, Progress
from unibound.runs.result import Result, by_class, numbers
from unibound.runs.standing import standing
from unibound.runs.train import Training
from unibound.runs.trainable import untrained
from unibound.runs.watch import watch
from unibound.settings import sources

if TYPE_CHECKING:
    from unibound.runs.run import Run


def epochs(run: "Run", *, resume: bool, say: Say) -> Generator[Progress | None]:
    """Own the folder of a run and find where it stands, then yield None; then train, and yield after each epoch.

    Args:
        run: what is trained, in place.
        resume: go on from its newest checkpoint that is whole, and first yield where that stands.
        say: told what was damaged, and why the run will not end with the same bits.
    """
    with run.owned():
        training, settings = run.training(), sources.write(run.settings)
        ranks.require_same("data", run.data_digest)
        ranks.part()
        read_sums(run.path)  # refused now, and not when the result is to be written down
        rounding = numerics(run.joint, run.splits.rows("train")[:1])
        if not resume and (left := checkpoint.finished(run.checkpoints)):
            raise UsageError(f"{run.path} holds checkpoint {left[-1].name}; go on with --resume {run.path}")
        found = standing(run.path, run.settings, run.data_digest, rounding, say) if resume else None
        progress = None if found is None else _restore(training, found[0])
        if not (run.path / RESOLVED).exists() or (run.path / RESOLVED).read_bytes() != settings.encode():
            write_sealed(run.path / RESOLVED, settings)
        if progress is not None and progress.done == run.settings.total_epochs:
            checkpoint.prune(run.checkpoints, best=None if found is None else found[1].best)  # killed before it was
        metrics = Metrics(run.path, 0 if found is None else found[1].lines)
        yield None
        done, valid_nll, log_z, judged, start = 0, None, None, Judgment(), time.perf_counter()
        if progress is not None:
            done, valid_nll, log_z, start = progress.done, progress.valid_nll, progress.log_z, start - progress.seconds
            judged = progress.judged
            yield progress
        for epoch in training.epochs():
            done += 1
            line, stuck, certain = {"done": done, **attrs.asdict(epoch)}, None, None
            judged = judged.begun() if epoch.epoch == 1 else judged
            if run.settings.looks_after(epoch.stage, epoch.epoch, done):
                with training.overflow_reported(), training.averages.in_place():
                    few = min(100, run.settings.num_particles)
                    options = {"num_particles": few, "limit": run.settings.validate_data, "posterior": "none"}
                    valid = ranks.of_first(run.evaluate("valid", **options))
                    watched = watch(run.joint, run.splits.rows("valid"), valid, seed=run.settings.seed)
                    pictures.save_look(run.path, run.joint, done, seed=run.settings.seed)
                valid_nll, log_z, stuck, certain = valid.nll, valid.log_z, watched.stuck, watched.certain
                line |= {"valid_nll": valid_nll, "log_z": None if log_z is None else log_z.value, **watched.numbers}
                judged = judged.after(done, valid)
                training.ended = 0 < run.settings.stages[epoch.stage].patience <= judged.misses
            progress = Progress(epoch, done, valid_nll, log_z, time.perf_counter() - start, stuck, judged, certain)
            # The line first: if we are killed in between, resuming drops it and does the epoch again.
            metrics.append(line)
            about = About(settings, run.data_digest, rounding, metrics.lines, metrics.digest, best=judged.best)
            state = {"training": training.state_dict(), "progress": progress.to_dict(), "data": run.data_digest}
            with training.averages.in_place():
                checkpoint.save(run.checkpoints, done, run.joint.state_dict(), state, about)
            yield progress


def finish(run: "Run", seconds: float, bar: Callable[[str, int], Bar]) -> Result:
    """Evaluate a trained run, draw its pictures, and keep what came out in its folder. See `Run.finish`."""
    start, weights, labels = time.perf_counter(), run.load_kept(), run.splits.labels.get("test", ())
    with torch.random.fork_rng():
        torch.manual_seed(run.settings.seed)
        pictures.save(run.path, run.joint, spread(run.splits.rows("test"), 50)[:], run.splits.rows("train"))
        for name, joint in made(run).items():
            pictures.save_grid(run.path / f"samples-{name}.png", pictures.samples(joint))
        if labels:
            pictures.save_classes(run.path, run.joint, run.splits.rows("test"), labels)
    normalized, found = run.normalize(), {}
    count = len(run.splits.rows("test"))  # of training data as many: enough to see overfitting
    for split in ("test", "train"):
        with bar(f"evaluating {split}", min(count, len(run.splits.rows(split)))) as advance:
            options = {"normalized": normalized, "limit": count, "on_progress": advance}
            # Of training data the bound alone is shown.
            found[split] = run.evaluate(split, posterior="draws" if split == "test" else "none", **options)
    together = evaluated(run, spread(run.rows("test"), count))
    every, seconds = len(run.splits.rows("train")), seconds + time.perf_counter() - start
    with torch.random.fork_rng(), run.joint.evaluating(), torch.no_grad():
        torch.manual_seed(run.settings.seed)
        log_z = found["test"].log_z
        kept = carried(run.joint, spread(run.rows("test"), LIMIT), 0.0 if log_z is None else log_z.value)
    result = Result.of(
        attrs.evolve(found["test"], seconds=seconds),
        partition=run.settings.partition.name,
        run_dir=run.path,
        train_nll=found["train"].nll,
        train_data=(min(count, every), every),
        prepared=run.known.said,
        weights=weights,
        untrained=untrained(run.joint, run.settings.stages),
        latent_nats=None if kept is None else kept.latents,
        datum_nats=None if kept is None else kept.datum,
        classes={} if found["test"].bounds is None else by_class(found["test"].bounds, labels),
        made={name: Made.of(one, numbers(one)) for name, one in together.items()},
    )
    result.write(run.path)
    return result


def _restore(training: Training, found: Path) -> Progress:
    state, weights = checkpoint.load_state(found), checkpoint.load_weights(found)
    with checkpoint.fitting(found):
        training.load_state_dict(state["training"], weights)
        return Progress.from_dict(state["progress"])
