"""Build the joint that settings describe, and refuse parts that cannot work together."""

import attrs
import torch
from torch import Tensor

from unibound import support
from unibound.data import missing
from unibound.data.binarization import Binarization, fit
from unibound.data.splits import PARTS, Splits
from unibound.energies.energy import EnergyPrior
from unibound.errors import UsageError
from unibound.generation import Directed, Generation, Layered
from unibound.joint import JointBound
from unibound.missing import observe
from unibound.prior import Prior
from unibound.runs.precision import mix_precision
from unibound.settings.defaults import likelihood_over
from unibound.settings.records import Given, Settings
from unibound.support import Constraint


def build(settings: Settings, x_mean: Tensor) -> JointBound:
    """Build q and p as the settings say, for training data with a mean [*X].

    Raises:
        UsageError: a posterior over other latents than the prior's, a partition estimator that cannot work for it, or
            mixed precision that cannot be had.
    """
    if Given in (settings.model.cls, settings.prior.cls):
        raise UsageError("q and p of this run were handed over in Python; give them again: unibound.load(path, joint=)")
    model = settings.model.settings
    prior_settings = attrs.asdict(settings.prior.settings, recurse=False)
    prior = settings.prior.cls(model.prior_shape(tuple(x_mean.shape)), **prior_settings)
    _set_transition(settings, prior)
    posterior = likelihood_over(prior.support)
    if settings.posterior is not None:
        posterior = settings.posterior.settings
        who, cure = f"posterior {settings.posterior.name}", "leave the posterior out, which then suits the prior"
        support.require_within(posterior.support, who, prior.support, f"prior {settings.prior.name} is", cure)
    joint = model.build(prior, settings.likelihood.settings, posterior, x_mean)
    if isinstance(joint.p.unnormalized, EnergyPrior):
        settings.partition.settings.check(joint.p.unnormalized)
        if getattr(settings.partition.settings, "state", ""):
            raise UsageError(
                "partition.state keeps the chains of one model, and a run looks at a new one each time; leave it out, "
                "and give it to `unibound evaluate`"
            )
    if settings.mixed_precision:
        _require_mixable(settings.dtype, x_mean.device)
        mix_precision(joint)
    return joint


def joint_for(settings: Settings, x_mean: Tensor, given: JointBound | None, *, partly: bool) -> JointBound:
    """q and p, built or given, for training data with a mean [*X]; partly, for such of which elements are missing."""
    joint = (given or build(settings, x_mean)).to(x_mean)
    if partly:
        observe(joint.q, joint.p, x_mean)
    return joint


@attrs.frozen(eq=False)
class Loaded:
    """The data of a run as its model is over them, on its device.

    Args:
        splits: the data.
        prepared: what was done to them, in words; empty if nothing was.
        levels: how many grey levels they came in, where they came as whole numbers.
        missing: which part of their elements is missing.
    """

    splits: Splits
    prepared: str
    levels: int | None
    missing: float


def load(settings: Settings, given: Splits | None = None, joint: JointBound | None = None) -> Loaded:
    """The data of a run, the same each time.

    Args:
        settings: of the run.
        given: the data, where they are not to be had by the settings.
        joint: q and p, which are asked what they are over where the settings do not say.
    """
    if given is None and settings.data.cls is Given:
        raise UsageError("the data of this run were handed over in Python; give them again: unibound.load(path, x)")
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        raw = settings.data.settings.load() if given is None else given
        splits, prepared = fit(raw, *wanted(settings, joint if settings.model.cls is Given else None, raw))
    listed = support.values(support.whole(raw.support)) or ()
    levels = len(listed) if len(listed) > 2 and listed[0] == 0 else None
    parts = [raw.rows(name) for name in PARTS]
    gone = sum(missing.share(x) * len(x) for x in parts) / sum(map(len, parts))
    return Loaded(splits.to(parse_device(settings.device), getattr(torch, settings.dtype)), prepared, levels, gone)


def looks_at_data(joint: JointBound) -> bool:
    """Whether a part of p gets to know the training data, rather than be handed batches of them."""
    forwarded = (Prior.bind, Generation.bind, Directed.bind, Layered.bind)
    return any(isinstance(part, Prior | Generation) and type(part).bind not in forwarded for part in joint.p.modules())


def wanted(
    settings: Settings, joint: JointBound | None, like: Splits
) -> tuple[Constraint | None, Binarization | None, str]:
    """What data have to be for a model, how grey levels become bits, and who says so: what `fit` wants to know."""
    if joint is not None:
        return _over(joint, like.rows("train")[:1].nan_to_num(0.0)), settings.binarization, "p"
    likelihood = settings.likelihood
    over = settings.prior.cls.support_of(**attrs.asdict(settings.prior.settings, recurse=False))
    needed = settings.model.settings.data_support(over, likelihood.settings)
    own = support.same(needed, likelihood.settings.support)
    who = f"likelihood {likelihood.name}" if own else f"model {settings.model.name} with prior {settings.prior.name}"
    return needed, settings.binarization, who


@torch.no_grad()
def _over(joint: JointBound, x: Tensor) -> Constraint | None:
    """What p(x | tau) is over; None where it does not say."""
    try:
        with joint.evaluating():
            return support.of(joint.p.conditional(joint.q(x).sample()))
    except UsageError:
        return None


def _require_mixable(dtype: str, device: torch.device) -> None:
    if dtype != "float32":
        raise UsageError(f"mixed_precision is of float32 and bfloat16, but dtype is {dtype}; leave one of them out")
    if not torch.amp.is_autocast_available(device.type):
        raise UsageError(f"mixed_precision needs autocast, which torch lacks for {device.type}; leave it out")


def _set_transition(settings: Settings, prior: Prior) -> None:
    if settings.transition is None:
        return
    if not isinstance(prior, EnergyPrior):
        raise UsageError(
            f"transition {settings.transition.name} moves the states of an energy, but prior {settings.prior.name} has "
            "none; leave the transition out"
        )
    settings.transition.settings.check(prior)
    prior.transition = settings.transition.settings


def parse_device(name: str) -> torch.device:
    """A torch device that can be used here; UsageError otherwise."""
    try:
        probe = torch.zeros(1, device=name)
        probe.item()  # some devices can be named, but hold nothing
        return probe.device
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}; use cpu") from error
