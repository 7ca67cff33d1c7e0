"""Other distributions of codes, and of data given codes: fitted to training data, and held against a model's on others.

Shapes: N data, *X one datum, *Z what codes are made of, D bits. Everything is in nats.
"""

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
from torch.nn.functional import binary_cross_entropy_with_logits

from unibound.data.rows import Data, spread
from unibound.sequences.autoregressive import Predicted
from unibound.sequences.predictor import Masked
from unibound.support import Constraint, places, values

Codes = Callable[[Tensor], Tensor]
"""Draws a code of each datum, without gradients: [B, *X] to [B, *Z]."""
LogProb = Callable[[Tensor, Tensor], Tensor]
"""Of data [B, *X] and their codes [B, *Z]: [B] nats."""
BATCH, RATE = 100, 3e-3
LOOKS, PATIENCE = 40, 10
"""How often validation data are looked at, and how many looks in turn may be no better than the best."""
MOST = 10_000
"""Data whose codes a normal is fitted to."""


def of_codes(train: Data, valid: Data, codes: Codes, over: Constraint | None, steps: int) -> LogProb | None:
    """A distribution of codes that knows how they depend on each other; None where they are of counts.

    Of finitely many values it is a masked autoregressive net over these written in bits, of reals a normal with a full
    covariance. What it gives to bits that stand for no value is lost to it, so that it is never flattered.

    Args:
        train, valid: data [N, *X]; the second say when to stop.
        codes: draws those that are fitted, anew for each step.
        over: what codes are made of.
        steps: of training, at most.
    """
    listed = values(over)
    if listed is None:
        return None if over is not None and over.is_discrete else _normal(codes(spread(train, MOST)[:]))
    seen = _as_bits(codes(spread(train, MOST)[:]), listed)  # [N, D]
    size = seen.shape[1]
    net, order = Masked(size, (500,)), torch.arange(size, device=seen.device)
    _begin(net.output_weight, net.output_bias, seen)
    bits = Predicted(net, order, (size,))
    return _fitted(net, lambda x, tau: bits.log_prob(_as_bits(tau, listed)), train, valid, codes, steps)


def of_data(train: Data, valid: Data, codes: Codes, steps: int) -> LogProb:
    """p(x | tau) of data of bits by a wide net with dropout. The arguments are those of `of_codes`."""
    x = spread(train, MOST)[:].flatten(1)
    widths = [(codes(train[:1]).numel(), 600), (600, 600)]
    hidden = [part for low, high in widths for part in (nn.Linear(low, high), nn.ReLU(), nn.Dropout(0.2))]
    last = nn.Linear(600, x.shape[1])
    _begin(last.weight, last.bias, x)
    net = nn.Sequential(*hidden, last)

    def log_prob(x: Tensor, tau: Tensor) -> Tensor:
        logits = net(tau.flatten(1).float())
        return -binary_cross_entropy_with_logits(logits, x.flatten(1).float(), reduction="none").sum(1)

    return _fitted(net, log_prob, train, valid, codes, steps)


def _begin(weight: Tensor, bias: Tensor, bits: Tensor) -> None:
    """Let logits begin as those of bits [N, D] that depend on nothing, which is the least that is tried."""
    weight.zero_()
    bias.copy_((bits.float().sum(0) + 1).div(len(bits) + 2).logit())


def _fitted(net: nn.Module, log_prob: LogProb, train: Data, valid: Data, codes: Codes, steps: int) -> LogProb:
    """Train by Adam, and go back to where validation data were likeliest."""
    net.to(train.device)  # in float32, which is enough for what another could save
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    held, best, kept, misses = [(x, codes(x)) for x in valid.split(BATCH)], -math.inf, net.state_dict(), 0
    for step in range(1, steps + 1):
        x = train[torch.randint(len(train), (BATCH,), device=train.device)]
        tau = codes(x)
        with torch.enable_grad():
            loss = -log_prob(x, tau).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
        if step % max(1, steps // LOOKS) and step < steps:
            continue
        net.eval()
        found = torch.cat([log_prob(x, tau) for x, tau in held]).mean().item()
        net.train()
        misses += 1
        if found > best:
            best, kept, misses = found, copy.deepcopy(net.state_dict()), 0
        if misses == PATIENCE:
            break
    net.load_state_dict(kept)
    net.eval()
    return log_prob


def _normal(tau: Tensor) -> LogProb:
    """A normal fitted to codes tau [N, *Z]; where a direction has next to no variance, a little is added to all."""
    flat = tau.flatten(1).double()
    covariance = flat.T.cov(correction=0).view(flat.shape[1], flat.shape[1])
    ridge = 1e-6 * covariance.diagonal().mean() + 1e-12
    normal = MultivariateNormal(flat.mean(0), covariance + ridge * torch.eye(len(covariance)).to(flat))
    return lambda _x, tau: normal.log_prob(tau.flatten(1).double())


def _as_bits(tau: Tensor, listed: Sequence[float]) -> Tensor:
    """Codes [B, *Z] of listed values, each value's number written in bits [B, D]."""
    digits = max(1, math.ceil(math.log2(len(listed))))
    number = places(tau.flatten(1), listed).unsqueeze(-1)  # [B, Z, 1]
    powers = 2 ** torch.arange(digits, device=tau.device)
    return (number // powers % 2).float().flatten(1)
