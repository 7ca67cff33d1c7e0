"""Training, stage by stage: an estimator, the groups it trains, and an optimizer for each."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor

from unibound import ranks
from unibound.data.binarization import batches
from unibound.data.rows import Data
from unibound.energies.chains import keep
from unibound.errors import NonFiniteError, UsageError
from unibound.estimator import Estimate, Estimator
from unibound.joint import JointBound
from unibound.runs import overflow, trainable
from unibound.runs.averages import Averages
from unibound.runs.compiled import as_it_is, compiled_on
from unibound.runs.optimizers import make_optimizer, rate_factor
from unibound.runs.overflow import CURE, RUNAWAY, culprit, largest_weight, not_finite
from unibound.settings.records import Optimizer, Stage
from unibound.weights import effective_sample_size


@attrs.frozen
class Epoch:
    """What one pass over the data came to.

    Args:
        stage: index of the stage.
        epoch: passes done in this stage, this one included.
        bound: mean bound in nats, of log p*(x); None where the estimator claims none.
        ess: mean effective sample size of the particles' weights; None where there is one or none.
        seconds: what it took.
    """

    stage: int
    epoch: int
    bound: float | None
    ess: float | None
    seconds: float


class Training:
    """A joint on its way through the stages; `state_dict` is all it takes to go on exactly.

    Args:
        joint: what is trained, in place.
        stages: settings of each stage.
        x: training data [N, *X].
        batch_size: data per step.
        dynamic: sample the bits of each batch anew from grey levels.
        compile: compile what the estimator of each stage does.
    """

    def __init__(
        self,
        joint: JointBound,
        stages: Sequence[Stage],
        x: Data,
        *,
        batch_size: int,
        dynamic: bool = False,
        compile: bool = False,
    ) -> None:
        self.joint, self.stages, self.x, self.batch_size, self.dynamic = joint, stages, x, batch_size, dynamic
        self._called = compiled_on(x.device) if compile else as_it_is
        self.stage = self.epoch = 0
        self.few = (x[:2] >= 0.5).to(x.dtype) if dynamic else x[:2]
        joint.check(self.few if dynamic else x)
        self.never_finite = not_finite(joint)  # as a mask may be
        self._first_size = max(1.0, largest_weight(joint)[1])
        for stage in stages:
            trainable.check(stage, joint, self.few)
        self._begin(stages[0])

    def epochs(self) -> Iterator[Epoch]:
        """Train to the end, from wherever it stands, one epoch at a time.

        Raises:
            NonFiniteError: the surrogate or a parameter is no longer finite.
        """
        while True:
            stage = self.stages[self.stage]
            for energy in trainable.energies(self.joint):
                keep(energy, stage.chains.num_chains, stage.chains.steps)
            while self.epoch < stage.epochs and not self.ended:
                yield self._train_epoch(stage)
            self.averages.settle()
            if self.stage + 1 == len(self.stages):
                return
            self.stage, self.epoch = self.stage + 1, 0
            self._begin(self.stages[self.stage])

    def _train_epoch(self, stage: Stage) -> Epoch:
        start, bounds, sizes = time.perf_counter(), [], []
        estimator: Estimator = stage.estimator.settings
        self.joint.train()
        for x in batches(self.x, self.batch_size, self.dynamic):
            self._set_learning_rates(stage, done=self.epoch + len(bounds) / self._steps_per_epoch)
            estimate = self.step(estimator, x)
            bounds.append(estimate.bound)
            sizes.append(_size(estimate.log_weights))  # the weights themselves are too many to keep for an epoch
        self._require_finite()
        self.epoch += 1
        return Epoch(self.stage, self.epoch, _mean(bounds), _mean(sizes), time.perf_counter() - start)

    def step(self, estimator: Estimator, x: Tensor) -> Estimate:
        """One training step on x [B, *X]: chains, estimate, gradient, update."""
        if estimator.persistent:
            self.joint.advance()
        with self.overflow_reported():
            estimate = self._called(estimator)(self.joint, x)
        loss = estimate.surrogate.mean()
        if not loss.requires_grad:
            groups = ", ".join(self.optimizers)
            raise UsageError(f"{type(estimator).__name__.lower()} gives no gradient to {groups}; train other groups")
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        loss.backward()
        loss = ranks.average(self.joint.parameters(), loss, len(x))
        if not math.isfinite(loss.item()):
            raise NonFiniteError(f"{self._where()}: the surrogate is {loss.item()}, from {culprit(self.joint)}; {CURE}")
        for optimizer in self.optimizers.values():
            optimizer.step()
        self.steps += 1
        self.averages.update(self.steps)
        return estimate

    def state_dict(self) -> dict[str, Any]:
        """Position, raw weights, optimizers, and the state of every random generator; plain values and tensors."""
        return {
            "stage": self.stage,
            "epoch": self.epoch,
            "steps": self.steps,
            "ended": self.ended,
            "raw": self.averages.raw(),
            "optimizers": {groups: optimizer.state_dict() for groups, optimizer in self.optimizers.items()},
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "others": ranks.gather(self._own())[1:],
        }

    def _own(self) -> dict[str, Any]:
        """What a rank has for itself: random numbers, and the buffers, as chains are."""
        if ranks.size() == 1:
            return {}
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
        return {
            "rng": torch.get_rng_state(),
            "cuda_rng": cuda,
            "buffers": {name: buffer.cpu() for name, buffer in self.joint.named_buffers()},
        }

    def _take_own(self, others: list[dict[str, Any]]) -> None:
        """Go back to what this rank had, or begin as one that was not there before; the first has its own already."""
        if ranks.rank() == 0:
            return
        if ranks.rank() > len(others):
            ranks.part()
            return
        own = others[ranks.rank() - 1]
        for name, buffer in self.joint.named_buffers():
            buffer.copy_(own["buffers"][name])
        torch.set_rng_state(own["rng"])
        if torch.cuda.is_available() and own["cuda_rng"] is not None:
            torch.cuda.set_rng_state(own["cuda_rng"])

    def load_state_dict(self, state: dict[str, Any], weights: dict[str, Tensor]) -> None:
        """Go back to where `state_dict` was taken, and the joint's own with averages in place."""
        self.stage, self.epoch = state["stage"], state["epoch"]
        self._begin(self.stages[self.stage])
        self.joint.load_state_dict(weights)
        self.averages.restore(state["raw"])
        self.steps, self.ended = state["steps"], state["ended"]
        for groups, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][groups])
            for parameter, moments in optimizer.state.items():
                for name, value in moments.items():
                    if torch.is_tensor(value) and value.dim() > 0 and value.shape != parameter.shape:
                        raise ValueError(f"{name} of {groups} has another shape")
        torch.set_rng_state(state["rng"])
        if torch.cuda.is_available() and state["cuda_rng"]:
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        self._take_own(state.get("others", []))

    def _require_finite(self) -> None:
        if why := overflow.trouble(self.joint, self.optimizers, self.never_finite, RUNAWAY * self._first_size):
            raise NonFiniteError(f"{self._where()}: {why}; {CURE}")

    def _begin(self, stage: Stage) -> None:
        """Freeze what the stage does not train, and give the rest their optimizers."""
        estimator: Estimator = stage.estimator.settings
        self.joint.auxiliary = estimator.auxiliary(self.joint, self.few)
        if self.joint.auxiliary is not None:
            self.joint.auxiliary.to(device=self.x.device, dtype=self.few.dtype)
        parts = self.joint.parts()
        trained = set(stage.trains or parts) | {"auxiliary"}
        for group, module in parts.items():
            module.requires_grad_(group in trained)
        alike: dict[Optimizer, list[str]] = {}  # one for groups that are stepped alike: a step costs by the call
        for group, module in parts.items():
            if group in trained and any(True for _ in module.parameters()):
                alike.setdefault(stage.optimizers.get(group, stage.optimizer), []).append(group)
        self.optimizers = {
            ", ".join(groups): make_optimizer(settings, [p for group in groups for p in parts[group].parameters()])
            for settings, groups in alike.items()
        }
        self._rates = dict(zip(self.optimizers, alike, strict=True))
        self.averages = Averages(self.joint, stage.averaging)
        self.steps, self.ended = 0, False

    @property
    def _steps_per_epoch(self) -> int:
        return math.ceil(len(self.x) / self.batch_size)

    def _set_learning_rates(self, stage: Stage, done: float) -> None:
        for groups, settings in self._rates.items():
            rate = settings.learning_rate * rate_factor(settings, done / stage.epochs)
            for parameters in self.optimizers[groups].param_groups:
                parameters["lr"] = rate

    @contextmanager
    def overflow_reported(self) -> Iterator[None]:
        """Say where numbers overflowed; torch refuses to compute with some weights that have run away."""
        try:
            yield
        except NonFiniteError as error:
            raise NonFiniteError(f"{self._where()}: {error}") from error
        except (RuntimeError, ValueError) as error:
            group, size = largest_weight(self.joint)
            if size < RUNAWAY:
                raise
            reason = str(error).splitlines()[0]
            raise NonFiniteError(f"{self._where()}: {group} has weights up to {size:.1g} ({reason}); {CURE}") from error

    def _where(self) -> str:
        return f"stage {self.stage + 1}, epoch {self.epoch + 1}, step {self.steps + 1}"


def _size(log_w: Tensor | None) -> Tensor | None:
    return None if log_w is None or len(log_w) == 1 else effective_sample_size(log_w)


def _mean(batchwise: list[Tensor | None]) -> float | None:
    present = [values for values in batchwise if values is not None]
    return torch.cat(ranks.gather(torch.cat(present).cpu())).double().mean().item() if present else None
