"""Flows: a distribution over reals, bent by maps that can be undone; drawn and scored in one pass.

Shapes: Z reals of one event, C numbers of context. Everything is in nats. Most maps are those of zuko, an extra.
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Transform, constraints
from torch.nn.functional import softplus

from unibound.draws import Drawn
from unibound.errors import UsageError
from unibound.support import real

Kind = Literal["planar", "maf", "iaf", "coupling", "spline"]


def zuko() -> Any:
    """The package zuko, imported when a flow is first built. Raises UsageError if it is not installed."""
    try:
        checked = Distribution._validate_args  # which it switches off for everybody
        import zuko

        Distribution.set_default_validate_args(checked)
    except ImportError as error:
        raise UsageError("flows need the package zuko; pip install 'unibound[flows]'") from error
    return zuko


class Flow(Drawn):
    """A distribution over reals, bent by transforms one after another: batch shape [...], event shape [Z].

        tau = t_n(... t_1(z)),  z ~ base,  log q(tau) = log base(z) - sum_i log |det dt_i|

    Args:
        base: where the flow begins.
        transforms: t_1, ..., t_n, of vectors.
    """

    support = real  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    def __init__(self, base: Distribution, transforms: Sequence[Transform]) -> None:
        library = zuko()
        self.base, self.transforms = base, tuple(transforms)
        whole = library.transforms.ComposedTransform(*transforms)
        self.flow = library.distributions.NormalizingFlow(whole.inv, base)
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.base.has_rsample

    def draw(self, count: int, *, reparameterized: bool) -> tuple[Tensor, Tensor]:
        if reparameterized or not torch.is_grad_enabled():
            return self.flow.rsample_and_log_prob((count,))
        value = self.flow.rsample((count,)).detach()
        return value, self.flow.log_prob(value)  # the score is that of a draw that stands still

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(value) [...] in nats; value broadcasts against the batch."""
        shape = torch.broadcast_shapes(value.shape, self.batch_shape + self.event_shape)
        return self.flow.log_prob(value.expand(shape))  # not every transform broadcasts


class Planar(Transform):
    """z + u tanh(w'z + b), where w'u > -1, so that it can be undone.

    Args:
        u: what is added [..., Z].
        w: across which plane [..., Z].
        b: where [...].

    Source: Rezende and Mohamed, "Variational inference with normalizing flows" (2015),
    https://arxiv.org/abs/1505.05770
    """

    domain = codomain = constraints.real_vector
    bijective = True

    def __init__(self, u: Tensor, w: Tensor, b: Tensor) -> None:
        super().__init__()
        self.u, self.w, self.b = u, w, b
        self.along = (w * u).sum(-1)

    @classmethod
    def undoable(cls, u: Tensor, w: Tensor, b: Tensor) -> "Planar":
        """One whose u is moved along w as far as it takes for w'u > -1."""
        along = (w * u).sum(-1, keepdim=True)
        return cls(u + (softplus(along) - 1 - along) * w / w.square().sum(-1, keepdim=True), w, b)

    def call_and_ladj(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The image [..., Z] of z, and log |det| of the map there [...]."""
        bend = torch.tanh((self.w * z).sum(-1) + self.b)
        return z + self.u * bend.unsqueeze(-1), torch.log1p(self.along * (1 - bend.square()))

    def _call(self, x: Tensor) -> Tensor:
        return self.call_and_ladj(x)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        target = (self.w * y).sum(-1)
        with torch.no_grad():  # w'z lies between these two, and is found by halving
            low, high = target - self.along.abs(), target + self.along.abs()
            for _ in range(80):
                middle = (low + high) / 2
                above = middle + self.along * torch.tanh(middle + self.b) > target
                low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        # A step of Newton's method, whose gradient is that of the root.
        bend = torch.tanh(low + self.b)
        slope = (1 + self.along * (1 - bend.square())).detach()
        at = low - (low + self.along * bend - target) / slope
        return y - self.u * torch.tanh(at + self.b).unsqueeze(-1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        del y
        return self.call_and_ladj(x)[1]


class Gated(Transform):
    """g z + (1 - g) m with g = sigmoid(s + 3/2), of each element: it forgets little to begin with."""

    domain = codomain = constraints.real
    bijective = True

    def __init__(self, mean: Tensor, raw: Tensor) -> None:
        super().__init__()
        self.raw = raw + 1.5
        self.gate = self.raw.sigmoid()
        self.shift = (-self.raw).sigmoid() * mean

    def _call(self, x: Tensor) -> Tensor:
        return self.gate * x + self.shift

    def _inverse(self, y: Tensor) -> Tensor:
        return (y - self.shift) / self.gate

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        del y
        return nn.functional.logsigmoid(self.raw).expand(x.shape)


class PlanarLayer(nn.Module):
    """A planar map whose parameters are linear in the context."""

    def __init__(self, size: int, context: int) -> None:
        super().__init__()
        self.size = size
        self.parts = nn.Linear(context, 2 * size + 1)

    def forward(self, context: Tensor) -> Transform:
        u, w, b = self.parts(context).split([self.size, self.size, 1], -1)
        return Planar.undoable(u, w, b.squeeze(-1))


def layers(kind: Kind, count: int, size: int, context: int, hidden: Sequence[int]) -> nn.ModuleList:
    """Layers that map a context [..., C], or None where C is 0, to a transform that takes one pass through a network.

    The order of the elements is reversed from one layer to the next. Undoing an autoregressive one, `maf` or `iaf`,
    takes Z passes; a coupling is undone in one, a planar map by a search.

    Args:
        kind: of which family.
        count: of layers.
        size: Z.
        context: C.
        hidden: widths of the networks inside a layer.
    Raises:
        UsageError: zuko is not installed.

    Source: maf is that of Papamakarios, Pavlakou and Murray (2017), https://arxiv.org/abs/1705.07057; iaf of Kingma et
    al. (2016), https://arxiv.org/abs/1606.04934; coupling of Dinh, Sohl-Dickstein and Bengio (2017),
    https://arxiv.org/abs/1605.08803; spline of Durkan et al. (2019), https://arxiv.org/abs/1906.04032
    """
    flows = zuko().flows
    forth = torch.arange(size)
    made: list[nn.Module] = []
    for index in range(count):
        order = forth if index % 2 == 0 else forth.flip(0)
        shared: dict[str, Any] = {"context": context, "hidden_features": tuple(hidden), "activation": nn.ELU}
        if kind == "planar":
            made.append(PlanarLayer(size, context))
        elif kind in ("maf", "iaf"):
            shared |= {"univariate": Gated} if kind == "iaf" else {}
            made.append(flows.MaskedAutoregressiveTransform(size, order=order, **shared))
        else:
            mask = order % 2 == size % 2
            if kind == "spline":
                bins = 8
                shared |= {"shapes": [(bins,), (bins,), (bins - 1,)]}
                shared["univariate"] = functools.partial(zuko().transforms.MonotonicRQSTransform, slope=1e-3)
            made.append(flows.GeneralCouplingTransform(size, mask=mask, **shared))
    return nn.ModuleList(made)
