"""A trained model, and what can be asked of it. Arrays come out as they went in; everything is in nats.

Shapes: N data, *X one datum, *Z its latents.
"""

import base64
import functools
import html
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import torch
from torch import Tensor

from unibound import support
from unibound.data.splits import require_part
from unibound.errors import UsageError
from unibound.evaluation.certify import Certificate, certify_joint
from unibound.evaluation.conclusion import Evaluation
from unibound.evaluation.diagnose import Diagnosis
from unibound.evaluation.reach import Posterior
from unibound.front.arrays import like, missing_of, rows_of
from unibound.front.imputation import impute, mean, seeded
from unibound.joint import JointBound
from unibound.missing import observe
from unibound.partition.log_z import NormalizedPrior, PartitionEstimator
from unibound.runs import metrics
from unibound.runs.diagnosis import look
from unibound.runs.export import export
from unibound.runs.made import made
from unibound.runs.prepare import prepared
from unibound.runs.result import Result, finite
from unibound.runs.run import Run

AT_ONCE = 1000
"""Data that go through the networks together."""


@attrs.frozen(eq=False)
class Trained:
    """What `unibound.fit` and `unibound.load` return: a run, and its model to be used.

    New data are of the kind that the training data were, and are brought to what the model is over as those were.
    """

    run: Run
    _kept: TemporaryDirectory[str] | None = attrs.field(default=None, repr=False)

    @property
    def joint(self) -> JointBound:
        """q and p: an nn.Module, in evaluation mode."""
        return self.run.joint

    @property
    def made(self) -> Mapping[str, JointBound]:
        """Further models that q and p make together, by name: joints of the same networks, to be evaluated."""
        return made(self.run)

    @property
    def result(self) -> Result:
        """What came out when it was trained. Raises UsageError where the run is not finished."""
        found = Result.read(self.run.path)
        if found is None:
            raise UsageError(f"{self.run.path} is not finished; go on with `unibound run --resume {self.run.path}`")
        return found

    @property
    def history(self) -> list[dict[str, Any]]:
        """What was measured after each epoch; bounds are on log p(x), by the log Z of the last look."""
        return list(metrics.normalized(metrics.read(self.run.path)))

    def encode(self, x: Any, *, missing: Any = None) -> Any:
        """The mean of q(tau | x): of bits the probabilities that they are one. [N, *X] to [N, *Z].

        What is `missing`, as for `score`, q sees as the mean of the training data.
        """
        with self._observing(missing):
            return like(x)(self._through(self._prepared(x, missing), lambda batch: mean(self.joint.q(batch))))

    def decode(self, tau: Any) -> Any:
        """The mean of p(x | tau), [N, *Z] to [N, *X]. Raises UsageError for a p that has none, or other latents."""
        own = self._latents()
        given = rows_of(tau, "tau")[:].to(own.device, own.dtype)
        if given.shape[1:] != own.shape[1:]:
            raise UsageError(f"tau has shape {list(given.shape)}, but latents are [N, {_comma(own.shape[1:])}]")
        support.require(self.joint.p.support, given, "the prior")
        return like(tau)(self._through(given, lambda batch: mean(self.joint.p.conditional(batch))))

    def reconstruct(self, x: Any, *, seed: int | None = None) -> Any:
        """The mean of p(x' | tau) for one tau ~ q(tau | x) of each datum: [N, *X] to [N, *X]."""
        with seeded(seed):
            made = self._through(
                self._prepared(x), lambda batch: mean(self.joint.p.conditional(self.joint.q(batch).sample()))
            )
        return like(x)(made)

    def sample(self, count: int = 1, *, seed: int | None = None, means: bool = False) -> Any:
        """Draw from p: [count, *X], an array of numpy; with `means` the means of p(x | tau), not draws from it."""
        if not isinstance(count, int) or count < 1:
            raise UsageError(f"count must be a whole number, at least 1, not {count!r}")
        with torch.no_grad(), self.joint.evaluating(), seeded(seed):
            x, tau = self.joint.p.dream(count)
            return (mean(self.joint.p.conditional(tau)) if means else x).cpu().numpy()

    def impute(self, x: Any, missing: Any = None, *, steps: int = 200, seed: int | None = None) -> Any:
        """Data with their missing elements replaced by what the model expects, given the others: [N, *X].

        Args:
            x: data [N, *X]; what stands where elements are missing does not matter.
            missing: true where they are [N, *X]; by default where x is NaN.
            steps: of each datum's Markov chain; that it has arrived after half of them is taken for granted.
            seed: of its random numbers; by default they are torch's own.

        Raises:
            UsageError: a mask of another shape, no step, or a p whose elements are not independent given tau.
        """
        if not isinstance(steps, int) or steps < 1:
            raise UsageError(f"steps must be a whole number, at least 1, not {steps!r}")
        given = rows_of(x)[:]
        gone = given.isnan() if missing is None else rows_of(missing, "missing")[:].bool()
        if gone.shape != given.shape:
            raise UsageError(f"missing has shape {list(gone.shape)}, but x {list(given.shape)}; mark each element")
        filled = self._prepared(torch.where(gone, torch.zeros_like(given), given))
        gone = gone.to(filled.device)
        with seeded(seed):
            parts = zip(filled.split(AT_ONCE), gone.split(AT_ONCE), strict=True)
            return like(x)(torch.cat([impute(self.joint, batch, mask, steps) for batch, mask in parts]))

    def score(self, x: Any, *, num_particles: int | None = None, missing: Any = None) -> Any:
        """A lower bound of log p(x) for each datum, by K particles: [N, *X] to [N], in nats.

        Where log Z is estimated, what that may be wrong by is the same for all data: see `evaluate`.

        Args:
            x: data [N, *X].
            num_particles: particles K per datum; as in the run by default.
            missing: "nan" where NaN is what is missing, or true where that is [N, *X]; log p is that of the observed
                elements then, also under a model that was trained on whole data.

        Raises:
            UsageError: data of another shape or kind, or a p whose elements are not independent given tau.
        """
        bounds = self._evaluate(x, num_particles, self._normalized, "none", missing).bounds
        assert bounds is not None
        return like(x)(bounds)

    def evaluate(
        self,
        x: Any = None,
        *,
        split: str = "test",
        num_particles: int | None = None,
        partition: PartitionEstimator | None = None,
        posterior: Posterior = "draws",
        missing: Any = None,
    ) -> Evaluation:
        """The NLL of data [N, *X], by default of a split of the run's own, with its interval and what that rests on.

        Args:
            x: data; or else
            split: train, valid or test.
            num_particles: particles K per datum; as in the run by default.
            partition: how log Z is found; as in the run by default.
            posterior: where the posterior is looked for beyond q's draws: `draws`, `ais` or `none`.
            missing: of x, as for `score`.
        """
        normalized = self._normalized if partition is None else self.run.normalize(partition)
        if x is not None:
            return self._evaluate(x, num_particles, normalized, posterior, missing)
        options = {"num_particles": num_particles, "normalized": normalized, "posterior": posterior}
        return self.run.evaluate(require_part(split), **options)

    def certify(self, x: Any = None, **options: Any) -> Certificate:
        """An interval for log Z and for the log-likelihood of data [N, *X], or a refusal with its reasons.

        Args:
            x: data; by default the test split.
            options: of `unibound.evaluation.certify.certify_joint`.
        """
        test = self.run.split("test") if x is None else self._prepared(x)
        options = {"num_particles": self.run.settings.num_particles, **options}
        return certify_joint(self.joint, test, self.run.split("train"), **options)

    def diagnose(
        self, *, split: str = "test", num_particles: int = 500, count: int = 200, probe_steps: int = 3000
    ) -> Diagnosis:
        """Look into it: weights and their tails, what the NLL is made of, idle units, noise of gradients.

        What was found is kept in the run's folder, too, where a report finds it.

        Args:
            split: of the data looked at: train, valid or test.
            num_particles: particles K per datum.
            count: how many data are looked at, and as many of the training data beside them.
            probe_steps: training steps of another prior and another generator, which say what better ones would save;
                0 for neither.
        """
        with seeded(self.run.settings.seed):
            return look(self.run, self._normalized, split, num_particles, count, probe_steps)

    def report(self, output: str | Path | None = None) -> Path:
        """Write one HTML page about the run, by default into its folder, and return its path."""
        from unibound.report import page  # and with it what draws and fills in pages

        return page.write(self.run.path, None if output is None else Path(output))

    def save(self, path: str | Path) -> Path:
        """Copy the run's folder to a new place, from where `unibound.load` opens it, and return that."""
        path = Path(path)
        if path.exists():
            raise UsageError(f"{path} is there already; name a new folder")
        try:
            shutil.copytree(self.run.path, path, ignore=shutil.ignore_patterns(".lock"))
        except (OSError, shutil.Error) as error:
            raise UsageError(f"cannot write to {path}: {error}; name another folder") from error
        return path

    def export(self, path: str | Path, certificate: Certificate | None = None) -> Path:
        """Write the model to a new folder that others can load and judge, without what it takes to train on.

        Args:
            path: of the folder.
            certificate: put beside it, and on its page.
        """
        return export(self.run.path, Path(path), certificate and finite(certificate.document))

    def _repr_html_(self) -> str:
        """The verdict and the pictures, for a notebook."""
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in self.result.rows
        )
        pictures = "".join(
            f'<img alt="{name} of the model" style="max-width: 45%; margin: 4px" '
            f'src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'
            for name in ("samples", "reconstructions")
            if (path := self.run.path / f"{name}.png").exists()
        )
        return f"<table>{rows}</table><div>{pictures}</div>"

    @functools.cached_property
    def _normalized(self) -> NormalizedPrior | None:
        return self.run.normalize()

    def _prepared(self, x: Any, missing: Any = None) -> Tensor:
        return prepared(self.run, missing_of(rows_of(x), missing)).rows("test")[:]

    def _evaluate(
        self,
        x: Any,
        num_particles: int | None,
        normalized: NormalizedPrior | None,
        posterior: Posterior,
        missing: Any,
    ) -> Evaluation:
        options = {"num_particles": num_particles, "posterior": posterior}
        with self._observing(missing):
            splits = prepared(self.run, missing_of(rows_of(x), missing))
            return self.run.evaluate_all("test", [normalized], splits=splits, **options)[0]

    @contextmanager
    def _observing(self, missing: Any) -> Iterator[None]:
        """Have a model that was trained on whole data take others, for as long."""
        with ExitStack() as afterwards:
            if missing is not None and not self.run.known.missing:
                for handle in observe(self.joint.q, self.joint.p, self.run.known.mean):
                    afterwards.callback(handle.remove)
            yield

    def _latents(self) -> Tensor:
        """One draw from q, for what latents look like [1, *Z]."""
        x = self.run.known.mean.unsqueeze(0)
        with torch.no_grad(), self.joint.evaluating(), seeded(0):
            return self.joint.q(x.to(next(self.joint.parameters()))).sample()

    @torch.no_grad()
    def _through(self, x: Tensor, network: Callable[[Tensor], Tensor]) -> Tensor:
        with self.joint.evaluating():
            return torch.cat([network(batch) for batch in x.split(AT_ONCE)])


def _comma(shape: torch.Size) -> str:
    return ", ".join(map(str, shape))
