"""Recurrent models step by step: what every step contributes, bounds of K particles, and the filtering bound."""

import math
from typing import Any

import pytest
import torch
from golden import Item, items, tensor
from layers import linear
from listing import bits, bound, expectation
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import pad

from unibound import JointBound
from unibound.distributions import Bits
from unibound.sequences.filtering import filtering_bound
from unibound.sequences.recurrent import Follower, Recurrence, RecurrentGeneration, RecurrentInference


def empty_or(weight: Any, bias: Any) -> nn.Module:
    """A linear layer, also one of nothing."""
    rows = torch.as_tensor(weight, dtype=torch.float64).reshape(len(bias), -1)
    return linear(rows, bias)


class Remembered(Recurrence):
    """The state is all that came before, and every step has layers of its own."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.nx, self.nz, steps = given["nx"], given["nz"], given["steps"]
        super().__init__(given["T"], self.nz, 2)
        layers = {name: [empty_or(s[f"{name}_W"], s[f"{name}_b"]) for s in steps] for name in ("prior", "gen")}
        self.priors, self.generators = nn.ModuleList(layers["prior"]), nn.ModuleList(layers["gen"])

    def start(self, lead: torch.Size) -> Tensor:
        return torch.zeros(*lead, self.steps * (self.nx + self.nz)).double()

    def before(self, state: Tensor, t: int) -> Tensor:
        return state[..., : t * (self.nx + self.nz)]

    def prior(self, state: Tensor, t: int) -> Distribution:
        return Bits(self.priors[t](self.before(state, t)))

    def data(self, state: Tensor, z: Tensor, t: int) -> Distribution:
        return Bits(self.generators[t](torch.cat([self.before(state, t), z], -1)))

    def part(self, x: Tensor, t: int) -> Tensor:
        return x[..., t, :]

    def join(self, parts: list[Tensor]) -> Tensor:
        whole = torch.stack(parts, -2)
        return pad(whole, (0, 0, 0, self.steps - len(parts)))

    def move(self, state: Tensor, z: Tensor, x: Tensor, t: int) -> Tensor:
        now = torch.cat([self.part(x, t).expand(*z.shape[:-1], -1), z], -1)
        return torch.cat([self.before(state, t), now, state[..., (t + 1) * now.shape[-1] :]], -1)


class Seeing(Follower):
    """q(z_t | what came before, x_t)."""

    def __init__(self, p: Remembered, given: dict[str, Any]) -> None:
        super().__init__()
        self.seen = (p,)
        self.layers = nn.ModuleList(empty_or(step["inf_W"], step["inf_b"]) for step in given["steps"])

    def forward(self, state: Tensor, x: Tensor, before: Tensor | None, t: int) -> Distribution:
        past, now = self.seen[0].before(state, t), self.seen[0].part(x, t)
        return Bits(self.layers[t](torch.cat([past, now.expand(*past.shape[:-1], -1)], -1)))


class Canvas(Recurrence):
    """The state is a canvas that each step adds to; the datum is drawn when it is done."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__(given["T"], len(given["prior_logits"]), 1)
        self.canvas, self.logits = tensor(given["canvas_0"]), tensor(given["prior_logits"])
        self.weights = tensor(given["W_canvas"])

    def start(self, lead: torch.Size) -> Tensor:
        return self.canvas.expand(*lead, -1)

    def prior(self, state: Tensor, t: int) -> Distribution:
        return Bits(self.logits.expand(*state.shape[:-1], -1))

    def move(self, state: Tensor, z: Tensor, x: Tensor, t: int) -> Tensor:
        return state + z @ self.weights[t].T

    def data(self, state: Tensor, z: Tensor, t: int) -> Distribution | None:
        return Bits(self.move(state, z, state, t)) if t == self.steps - 1 else None

    def part(self, x: Tensor, t: int) -> Tensor:
        return x

    def join(self, parts: list[Tensor]) -> Tensor:
        return parts[0] if parts else torch.zeros(0).double()


class Looking(Follower):
    """q(z_t | x, what is missing on the canvas, z_{t-1})."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__()
        self.size = len(given["prior_logits"])
        self.layers = nn.ModuleList(linear(w, b) for w, b in zip(given["q_W"], given["q_b"], strict=True))

    def forward(self, state: Tensor, x: Tensor, before: Tensor | None, t: int) -> Distribution:
        before = state.new_zeros(*state.shape[:-1], self.size) if before is None else before
        seen = [x.expand_as(state), x - state.sigmoid(), before]
        return Bits(self.layers[t](torch.cat(seen, -1)))


def listed(joint: JointBound, x: Tensor) -> dict[str, Any]:
    """All that is known of a datum [1, *X], by listing its latents."""
    recurrence = joint.p.recurrence
    taus = bits(recurrence.steps * recurrence.size).unsqueeze(1)  # [S, 1, T Z]
    log_q, log_p = joint.q(x).log_prob(taus), joint.p.log_joint(x, taus)
    log_w = log_p - log_q
    data, latents = joint.p.step_terms(x, taus)  # [T, S, 1]
    own = joint.q(x).log_probs(taus)
    return {
        "log_p": log_p.logsumexp(0).item(),
        "elbo": expectation(log_q, log_w).item(),
        "kl": [expectation(log_q, one).item() for one in own - latents],
        "data": [expectation(log_q, one).item() for one in data],
        "L_K": lambda k: bound(log_q[:, 0], log_w[:, 0], k),
    }


def by_state(joint: JointBound, shape: tuple[int, ...]) -> list[float]:
    return [listed(joint, x.view(1, *shape))["log_p"] for x in bits(math.prod(shape))]


class Row(Bits):
    """Bits that are read off the number of the row, digit by digit."""

    digits: Any

    def sample(self, sample_shape: torch.Size = ()) -> Tensor:
        return self.digits.take(2, self.batch_shape).unsqueeze(-1).double().expand(self._extended_shape(sample_shape))


class Digits:
    """Every outcome of two particles, a row for each."""

    def __init__(self, count: int) -> None:
        self.rest = torch.arange(count)
        self.log_prob = torch.zeros(count).double()

    def take(self, base: int, shape: torch.Size) -> Tensor:
        digits = []
        for _ in range(shape[0]):
            digits.append(self.rest % base)
            self.rest = self.rest // base
        return torch.stack(digits)

    def choose(self, log_w: Tensor, count: int) -> Tensor:
        chosen = self.take(len(log_w), torch.Size([count, log_w.shape[1]]))
        self.log_prob = self.log_prob + log_w.log_softmax(0).gather(0, chosen).sum(0)
        return chosen


def expected_filtering_bound(joint: JointBound, x: Tensor) -> float:
    """E of the bound of two particles of one bit, over every draw and every choice."""
    steps = joint.p.recurrence.steps
    digits, follower = Digits(4**steps * 4 ** (steps - 1)), joint.q.follower
    told = follower.forward

    def forward(state: Tensor, x: Tensor, before: Tensor | None, t: int) -> Distribution:
        made = Row(told(state, x, before, t).logits)
        made.digits, own = digits, made.log_prob

        def log_prob(value: Tensor) -> Tensor:
            digits.log_prob = digits.log_prob + own(value).flatten(0, -2).sum(0)
            return own(value)

        made.log_prob = log_prob
        return made

    follower.forward = forward
    found = filtering_bound(joint.q, joint.p, x.expand(len(digits.rest), *x.shape[1:]), 2, digits.choose)
    follower.forward = told
    torch.testing.assert_close(digits.log_prob.logsumexp(0), tensor(0.0))
    return (digits.log_prob.exp() @ found).item()


def check_vrnn(item: Item) -> None:
    recurrence = Remembered(item.input)
    joint = JointBound(RecurrentInference(Seeing(recurrence, item.input)), RecurrentGeneration(recurrence))
    x = tensor([item.input["x"]])
    found = listed(joint, x)
    item.check(
        log_p=found["log_p"],
        log_p_by_state=by_state(joint, x.shape[1:]),
        elbo=found["elbo"],
        step_kl=found["kl"],
        step_reconstruction=found["data"],
        L_K={k: found["L_K"](int(k)) for k in item.expected["L_K"]},
        fivo_2=expected_filtering_bound(joint, x),
    )


def check_draw(item: Item) -> None:
    joint = JointBound(RecurrentInference(Looking(item.input)), RecurrentGeneration(Canvas(item.input)))
    x = tensor([item.input["x"]])
    found = listed(joint, x)
    item.check(
        log_p=found["log_p"],
        log_p_by_state=by_state(joint, x.shape[1:]),
        elbo=found["elbo"],
        latent_loss_by_step=found["kl"],
        reconstruction=sum(found["data"]),
        L_K={k: found["L_K"](int(k)) for k in item.expected["L_K"]},
    )


@pytest.mark.parametrize("item", items("27_recurrent"))
def test_steps_and_bounds(item: Item) -> None:
    {"vrnn": check_vrnn, "draw": check_draw}[item.input["family"]](item)
