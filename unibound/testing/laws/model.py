"""The exam of a model: the two networks fit together, and every weight in them is alive."""

from collections.abc import Callable
from typing import ClassVar, Literal

import attrs
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from unibound.distributions import Bits
from unibound.errors import UsageError
from unibound.joint import JointBound
from unibound.likelihood import Likelihood
from unibound.model import Model
from unibound.testing.verdict import demand, gap
from unibound.testing.worlds import Bell, Rates, parameter_groups, scatter

Support = Literal["bits", "reals", "levels"]
X_SHAPE = (8, 8)


@attrs.frozen
class LogitBits(Likelihood):
    """Bits whose logits the network gives."""

    support: ClassVar[Support] = "bits"

    def __call__(self, outputs: Tensor, event_dims: int) -> Distribution:
        return Bits(outputs.squeeze(-event_dims - 1), event_dims)


@attrs.frozen
class Normals(Likelihood):
    """Normals whose means and log-scales the network gives."""

    support: ClassVar[Support] = "reals"
    num_outputs: ClassVar[int] = 2

    def __call__(self, outputs: Tensor, event_dims: int) -> Distribution:
        mean, log_scale = outputs.unbind(-event_dims - 1)
        return Independent(Normal(mean, log_scale.exp()), event_dims)


@attrs.frozen(eq=False)
class Subject:
    """A model's recipe, and what it built for images of 8 x 8 bits.

    Args:
        model: the recipe, with its settings as they are by default.
        joint: q and p, in float64.
        x: a batch of data [5, 8, 8].
    """

    model: Model
    joint: JointBound
    x: Tensor

    @classmethod
    def of(cls, plugin: Model | Callable[[], Model]) -> "Subject":
        """Prepare a model, or what makes one when called."""
        model = plugin if isinstance(plugin, Model) else plugin()
        return cls(model, build(model), torch.rand(5, *X_SHAPE).double().round())

    @property
    def tau_shape(self) -> tuple[int, ...]:
        return tuple(self.model.latent_shape(X_SHAPE))


def build(model: Model) -> JointBound:
    """Build a model of bits with latent bits, or latent reals if it refuses bits; in float64."""
    shape, mean = model.latent_shape(X_SHAPE), torch.linspace(0.05, 0.95, 64).view(X_SHAPE)
    try:
        joint = model.build(scatter(Rates(shape), 1), LogitBits(), LogitBits(), mean)
    except UsageError:
        joint = model.build(scatter(Bell(shape), 1), LogitBits(), Normals(), mean)
    return joint.double()


def shapes_and_dtypes(subject: Subject) -> str:
    """q(x) is a distribution over latents of `latent_shape`, log_joint broadcasts, dreams are data."""
    for dtype in (torch.float32, torch.float64):
        joint, x = build(subject.model).to(dtype), subject.x.to(dtype)
        posterior = joint.q(x)
        shapes = f"batch {list(posterior.batch_shape)} and event {list(posterior.event_shape)}"
        right = posterior.batch_shape == (5,) and posterior.event_shape == subject.tau_shape
        demand(right, f"q of 5 data has {shapes}, not [5] and latent_shape = {list(subject.tau_shape)}")
        particles = joint.particles(x, 3)
        for name, value in {"log_q": particles.log_q, "log_p": particles.log_p}.items():
            demand(value.shape == (3, 5), f"{name} of 3 particles of 5 data has shape {list(value.shape)}")
            demand(value.dtype == dtype, f"{name} is {value.dtype} for a model in {dtype}")
        dreamed, tau = joint.p.dream(4)
        demand(dreamed.shape == (4, *X_SHAPE), f"dream(4) gives data of shape {list(dreamed.shape)}")
        demand(tau.shape == (4, *subject.tau_shape), f"dream(4) gives latents of shape {list(tau.shape)}")
        demand(not (dreamed.requires_grad or tau.requires_grad), "dreams carry a gradient; detach them")
    return f"latents {list(subject.tau_shape)}, float32 and float64"


def each_datum_on_its_own(subject: Subject) -> str:
    """A datum's posterior and log p(x, tau) do not depend on the rest of the batch."""
    joint, x = subject.joint.eval(), subject.x
    tau = joint.q(x).sample((3,))
    alone = torch.arange(2)
    for name, whole, part in (
        ("log q(tau | x)", joint.q(x).log_prob(tau)[:, alone], joint.q(x[alone]).log_prob(tau[:, alone])),
        ("log p(x, tau)", joint.p.log_joint(x, tau)[:, alone], joint.p.log_joint(x[alone], tau[:, alone])),
    ):
        off = gap(part, whole)
        demand(off <= 1e-8, f"{name} of a datum changes by {off:.3g} nats with its batch; is there a batch norm?")
    return "independent"


def every_weight_is_alive(subject: Subject) -> str:
    """Every parameter belongs to one group and gets a gradient from log q or log p."""
    joint = subject.joint
    parts = parameter_groups(joint.parts())
    listed = [parameter for parameters in parts.values() for parameter in parameters]
    demand(len(set(map(id, listed))) == len(listed), "a parameter is in two groups; estimators rely on disjoint ones")
    missing = {id(parameter) for parameter in joint.parameters()} - set(map(id, listed))
    demand(not missing, f"{len(missing)} parameters are in no group of parts()")
    particles = joint.particles(subject.x, 4)
    (particles.log_q.sum() + particles.log_p.sum()).backward()
    dead = [name for name, p in joint.named_parameters() if p.grad is None or not p.grad.any()]
    demand(not dead, f"no gradient reaches {', '.join(dead)}")
    return ", ".join(f"{group}: {sum(p.numel() for p in parameters)}" for group, parameters in parts.items())


def saved_and_loaded(subject: Subject) -> str:
    """A state dict carries all that the model knows."""
    subject.joint.eval()
    other = scatter(build(subject.model), 8).eval()
    other.load_state_dict(subject.joint.state_dict())
    tau = subject.joint.q(subject.x).sample((3,))
    off = max(
        gap(other.q(subject.x).log_prob(tau), subject.joint.q(subject.x).log_prob(tau)),
        gap(other.p.log_joint(subject.x, tau), subject.joint.p.log_joint(subject.x, tau)),
    )
    demand(off <= 1e-9, f"densities differ by {off:.3g} nats after loading a state dict")
    return "comes back"


LAWS = (shapes_and_dtypes, each_datum_on_its_own, every_weight_is_alive, saved_and_loaded)
