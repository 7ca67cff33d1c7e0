"""The exam of a model: the two networks fit together, and every weight in them is alive."""

import contextlib
from collections.abc import Callable

import attrs
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from unibound.distributions import Bits
from unibound.draws import draw
from unibound.errors import UsageError
from unibound.generation import ROLES, Generation
from unibound.joint import JointBound
from unibound.likelihood import Likelihood
from unibound.model import Model
from unibound.support import boolean, real
from unibound.testing.laws.draws import NUM_DRAWS, follow_log_prob
from unibound.testing.listing import parameter_groups, scatter
from unibound.testing.priors import Bell, Rates
from unibound.testing.verdict import FALSE_ALARM, TOLERANCE, demand, gap

X_SHAPE = (8, 8)
NUM_DREAMS = 1000
STEP = 0.01  # length of a step through the parameters


@attrs.frozen
class LogitBits(Likelihood):
    """Bits whose logits the network gives."""

    support = boolean

    def __call__(self, outputs: Tensor, event_shape: tuple[int, ...]) -> Distribution:
        return Bits(outputs, len(event_shape))


@attrs.frozen
class Normals(Likelihood):
    """Normals whose means and log-scales the network gives."""

    support = real

    def outputs(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2, *event_shape)

    def __call__(self, outputs: Tensor, event_shape: tuple[int, ...]) -> Distribution:
        mean, log_scale = outputs.unbind(-len(event_shape) - 1)
        return Independent(Normal(mean, log_scale.exp()), len(event_shape))


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
        return tuple(self.joint.q(self.x).event_shape)


def build(model: Model) -> JointBound:
    """Build a model of bits with latent bits, or latent reals if it refuses bits, or of reals; in float64."""
    shape, mean = model.prior_shape(X_SHAPE), torch.linspace(0.05, 0.95, 64).view(X_SHAPE)
    parts = [(Rates, LogitBits(), LogitBits()), (Bell, LogitBits(), Normals()), (Bell, Normals(), Normals())]
    for prior, likelihood, posterior in parts[:-1]:
        with contextlib.suppress(UsageError):
            return model.build(scatter(prior(shape), 1), likelihood, posterior, mean).double()
    prior, likelihood, posterior = parts[-1]
    return model.build(scatter(prior(shape), 1), likelihood, posterior, mean).double()


def shapes_and_dtypes(subject: Subject) -> str:
    """q(x) is a distribution over the latents that p is over, log_joint broadcasts, dreams are data."""
    for dtype in (torch.float32, torch.float64):
        joint, x = build(subject.model).to(dtype), subject.x.to(dtype)
        posterior = joint.q(x)
        shapes = f"batch {list(posterior.batch_shape)} and event {list(posterior.event_shape)}"
        demand(posterior.batch_shape == (5,), f"q of 5 data has {shapes}, not [5] and the shape of tau")
        demand(joint.q(torch.stack([x, x])).batch_shape == (2, 5), "q of data [2, 5, *X] has no batch shape [2, 5]")
        particles = joint.particles(x, 3, whole=False)
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
    unknown = sorted(joint.parts().keys() - set(ROLES))
    demand(not unknown, f"{', '.join(unknown)} is no role; call a part by the role it plays: {', '.join(ROLES)}")
    listed = [parameter for parameters in parts.values() for parameter in parameters]
    demand(len(set(map(id, listed))) == len(listed), "a parameter is in two groups; estimators rely on disjoint ones")
    missing = {id(parameter) for parameter in joint.parameters()} - set(map(id, listed))
    demand(not missing, f"{len(missing)} parameters are in no group of parts()")
    particles = joint.particles(subject.x, 4, whole=False)
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


def draws_are_scored(subject: Subject) -> str:
    """A draw of q comes with its log_prob, and the terms of p sum to log p(x, tau)."""
    joint, x = subject.joint.eval(), subject.x
    tau, log_q = draw(joint.q(x), 3)
    off = gap(log_q, joint.q(x).log_prob(tau))
    demand(off <= TOLERANCE, f"a draw of q is scored {off:.3g} nats off its log_prob; are pieces scored out of order?")
    terms, log_p = joint.p.log_terms(x, tau), joint.p.log_joint(x, tau)
    demand(terms.shape[1:] == log_p.shape, f"log_terms of [3, 5] has shape {list(terms.shape)}, not [layers, 3, 5]")
    off = gap(terms.sum(0), log_p)
    demand(off <= TOLERANCE, f"log_terms sum to {off:.3g} nats more or less than log_joint")
    off = gap(joint.log_weight_terms(x, tau).sum(0), log_p - log_q)
    demand(off <= TOLERANCE, f"what the layers add to a log-weight is {off:.3g} nats off it")
    return f"{len(terms)} terms"


def draws_are_shared(subject: Subject) -> str:
    """What p takes over from a draw of q is what it would compute itself, and has the same gradient."""
    joint, x = subject.joint.eval(), subject.x
    tensors = list(joint.parameters())
    posterior = joint.q(x)
    reparameterized = bool(posterior.has_rsample) and not getattr(posterior, "partial", False)
    tau, _ = draw(posterior, 3, reparameterized=reparameterized)
    values, slopes = [], []
    for log_p in (joint.p.log_joint_along(x, tau, posterior), joint.p.log_joint(x, tau)):
        values.append(log_p.detach())
        found = torch.autograd.grad(
            (log_p * torch.linspace(1, 2, 5)).sum(),
            tensors,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        slopes.append(parameters_to_vector(found))
    off, slope_off = gap(*values), gap(*slopes)
    demand(off <= TOLERANCE, f"log_joint_along of a draw is {off:.3g} nats off log_joint; is it of another draw?")
    demand(slope_off <= TOLERANCE, f"its gradient is {slope_off:.3g} off that of log_joint; was something detached?")
    return "the same"


def draws_follow_log_prob(subject: Subject) -> str:
    """Draws of q have the frequencies of its log_prob, and those of one datum are independent of one another.

    The mean score of one half of the draws is noise, and so as good a direction as any for the other half; unless
    draws are wrong, when it is where that shows.
    """
    q, x = subject.joint.eval().q, subject.x[:2]
    tensors = list(q.parameters())
    if not tensors:
        return "does not apply: q has no parameters"
    tau = draw(q(x), NUM_DRAWS)[0].detach()
    few, rest = tau[: NUM_DRAWS // 2], tau[NUM_DRAWS // 2 :]
    slopes = torch.autograd.grad(q(x).log_prob(few).mean(), tensors, allow_unused=True, materialize_grads=True)
    directions = torch.stack([score := parameters_to_vector(slopes), torch.randn_like(score)])
    with torch.no_grad():

        def log_prob(parameters: Tensor) -> Tensor:
            vector_to_parameters(parameters, tensors)
            return q(x).log_prob(rest)

        return follow_log_prob(log_prob, parameters_to_vector(tensors), "of each of 2 data", directions)


def dreams_follow_log_joint(subject: Subject) -> str:
    """What p scores is what it draws: where half of its dreams would have its parameters go, the others would not.

    The score of dreams has mean zero: a step along the mean score of half of them does nothing for the other half.
    """
    p, posterior = subject.joint.eval().p, subject.joint.q(subject.x)
    tensors = list(p.parts()["generator"].parameters()) if "generator" in p.parts() else []
    if not tensors or getattr(posterior, "partial", False):
        return "does not apply: p has no parameters but its prior's, or a draw is one term of a trajectory"
    x, tau = p.dream(NUM_DREAMS)
    half = NUM_DREAMS // 2
    slopes = torch.autograd.grad(p.log_joint(x[:half], tau[:half]).mean(), tensors, allow_unused=True)
    steps = [
        torch.zeros_like(tensor) if slope is None else slope for tensor, slope in zip(tensors, slopes, strict=True)
    ]
    ahead, back = (_stepped(p, x[half:], tau[half:], tensors, steps, sign * STEP) for sign in (1, -1))  # [N / 2]
    change, least = ahead - back, torch.finfo(ahead.dtype).tiny
    worst = (change.mean().abs() / (change.std() / len(change) ** 0.5).clamp_min(least)).item()
    demand(
        worst <= FALSE_ALARM,
        f"dreams of p are of another distribution than log_joint's, by {worst:.3g} standard errors; is a layer drawn "
        "given another than it is scored with?",
    )
    return f"{worst:.3g} standard errors, of {NUM_DREAMS} dreams"


@torch.no_grad()
def _stepped(
    p: Generation, x: Tensor, tau: Tensor, tensors: list[nn.Parameter], steps: list[Tensor], length: float
) -> Tensor:
    """log p(x, tau) with parameters a step of some length away."""
    before, along = parameters_to_vector(tensors), parameters_to_vector(steps)
    vector_to_parameters(before + length * along / along.norm().clamp_min(1e-12), tensors)
    log_p = p.log_joint(x, tau)
    vector_to_parameters(before, tensors)
    return log_p


LAWS = (
    shapes_and_dtypes,
    each_datum_on_its_own,
    draws_are_scored,
    draws_are_shared,
    draws_follow_log_prob,
    dreams_follow_log_joint,
    every_weight_is_alive,
    saved_and_loaded,
)
