"""Build the joint that settings describe, and refuse parts that cannot work together."""

import attrs
import torch
from torch import Tensor

from unibound.settings.convert import choice
from unibound.data.splits import Splits
from unibound.distributions import require_bits
from unibound.errors import UsageError
from unibound.joint import JointBound
from unibound.runs.precision import mix_precision
from unibound.energy import EnergyPrior
from unibound.settings.records import Settings


def build(settings: Settings, x_train: Tensor) -> JointBound:
    """Build q and p as the settings say, for training data [N, *X].

    Raises:
        UsageError: a posterior over other latents than the prior's, a partition estimator that cannot work for it, or
            mixed precision that cannot be had.
    """
    model = settings.model.settings
    prior_settings = attrs.asdict(settings.prior.settings, recurse=False)
    prior = settings.prior.cls(model.latent_shape(tuple(x_train.shape[1:])), **prior_settings)
    suitable = choice("likelihood", prior.posterior)
    posterior = settings.posterior or suitable
    if posterior.cls.support != suitable.cls.support:
        raise UsageError(
            f"posterior {posterior.name} is over {posterior.cls.support}, but prior {settings.prior.name} over "
            f"{suitable.cls.support}; leave the posterior out, which gives {suitable.name}"
        )
    joint = model.build(prior, settings.likelihood.settings, posterior.settings, x_train.mean(0))
    if isinstance(joint.p.unnormalized, EnergyPrior):
        settings.partition.settings.check(joint.p.unnormalized)
    if settings.mixed_precision:
        _require_mixable(settings.dtype, x_train.device)
        mix_precision(joint)
    return joint


def _require_mixable(dtype: str, device: torch.device) -> None:
    if dtype != "float32":
        raise UsageError(f"mixed_precision is of float32 and bfloat16, but dtype is {dtype}; leave one of them out")
    if not torch.amp.is_autocast_available(device.type):
        raise UsageError(f"mixed_precision needs autocast, which torch lacks for {device.type}; leave it out")


def require_data(settings: Settings, splits: Splits) -> None:
    """Refuse grey levels under a likelihood of bits, whose formula would be no log-likelihood of them."""
    if settings.likelihood.cls.support == "bits":
        for name, x in splits.items():
            if settings.binarization != "dynamic" or name != "train":
                require_bits(f"likelihood {settings.likelihood.name}", x)


def parse_device(name: str) -> torch.device:
    """A torch device that can be used here; UsageError otherwise."""
    try:
        probe = torch.zeros(1, device=name)
        probe.item()  # some devices can be named, but hold nothing
        return probe.device
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}; use cpu") from error
