"""Build the joint that settings describe, and refuse parts that cannot work together."""

import attrs
import torch
from torch import Tensor

from unibound import support
from unibound.data.binarization import fit
from unibound.data.splits import Splits
from unibound.energies.energy import EnergyPrior
from unibound.errors import UsageError
from unibound.generation import Directed, Generation, Layered
from unibound.joint import JointBound
from unibound.prior import Prior
from unibound.runs.precision import mix_precision
from unibound.settings.defaults import likelihood_over
from unibound.settings.records import Settings


def build(settings: Settings, x_mean: Tensor) -> JointBound:
    """Build q and p as the settings say, for training data with a mean [*X].

    Raises:
        UsageError: a posterior over other latents than the prior's, a partition estimator that cannot work for it, or
            mixed precision that cannot be had.
    """
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


def load(settings: Settings) -> tuple[Splits, str]:
    """The data of a run as its model is over them, on its device, and what was done to them; the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        splits, prepared = prepare(settings, settings.data.settings.load())
    return splits.to(parse_device(settings.device), getattr(torch, settings.dtype)), prepared


def looks_at_data(joint: JointBound) -> bool:
    """Whether a part of p gets to know the training data, rather than be handed batches of them."""
    forwarded = (Prior.bind, Generation.bind, Directed.bind, Layered.bind)
    return any(isinstance(part, Prior | Generation) and type(part).bind not in forwarded for part in joint.p.modules())


def prepare(settings: Settings, splits: Splits) -> tuple[Splits, str]:
    """Bring loaded data to what the model is over, and say what was done to them.

    Raises:
        UsageError: data that the model is not over.
    """
    likelihood = settings.likelihood
    over = settings.prior.cls.support_of(**attrs.asdict(settings.prior.settings, recurse=False))
    wanted = settings.model.settings.data_support(over, likelihood.settings)
    own = support.same(wanted, likelihood.settings.support)
    who = f"likelihood {likelihood.name}" if own else f"model {settings.model.name} with prior {settings.prior.name}"
    return fit(splits, wanted, settings.binarization, who)


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
