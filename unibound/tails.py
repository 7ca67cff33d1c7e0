"""The tail of importance weights: does their mean have a variance, or even a value?"""

import math

import torch
from torch import Tensor

LEAST = 25
"""Weights per datum from which on a tail can be fitted."""


def pareto_tail_index(log_w: Tensor) -> Tensor:
    """Pareto tail index k-hat of the importance weights of each datum: [K, B] to [B], float64.

    A generalized Pareto distribution is fitted to the largest weights. Weights of tail index k have finite
    moments up to 1 / k: below 0.5 their mean has a variance; above 0.7 an estimate from them is not to be
    relied on, whatever its standard error says. NaN where no tail can be fitted: for fewer than 25 weights,
    or where a quarter of the largest are one and the same, as when few latents over bits are likely; 0 where
    the tail is flat.

    Source: Vehtari, Simpson, Gelman, Yao and Gabry, "Pareto smoothed importance sampling" (2024),
    https://arxiv.org/abs/1507.02646; the fit is that of Zhang and Stephens, "A new and efficient estimation
    method for the generalized Pareto distribution" (2009), https://doi.org/10.1198/tech.2009.08017
    """
    log_w = log_w.detach().double()
    count = len(log_w)
    if count < LEAST:
        return log_w.new_full(log_w.shape[1:], math.nan)
    size = math.ceil(min(0.2 * count, 3 * math.sqrt(count)))
    top = log_w.topk(size + 1, dim=0).values.flip(0)  # [size + 1, B], ascending
    weights = (top - top[-1]).exp()  # relative to the largest
    return _fit(weights[1:] - weights[:1])


def _fit(x: Tensor) -> Tensor:
    """Shape of a generalized Pareto distribution through exceedances x [S, B], ascending."""
    size = len(x)
    flat = x[-1] <= 1e-12  # [B]
    x = torch.where(flat, torch.ones_like(x), x)
    candidates = 30 + int(math.sqrt(size))
    grid = torch.arange(1, candidates + 1, dtype=x.dtype, device=x.device).unsqueeze(1)  # [G, 1]
    quartile = x[int(size / 4 + 0.5) - 1]  # [B]
    repeated = quartile <= 0
    quartile = torch.where(repeated, torch.ones_like(quartile), quartile)
    theta = 1 / x[-1] + (1 - (candidates / (grid - 0.5)).sqrt()) / (3 * quartile)  # [G, B]
    shape = torch.log1p(-theta.unsqueeze(1) * x).mean(1)  # [G, B]
    likelihood = size * ((-theta / shape).log() - shape - 1)  # [G, B]
    weight = likelihood.nan_to_num(-math.inf).softmax(0)
    best = (theta * weight).sum(0)  # [B]
    k = torch.log1p(-best * x).mean(0)
    k = (size * k + 10 * 0.5) / (size + 10)  # towards one half, as the paper advises for small tails
    return torch.where(flat, 0.0, torch.where(repeated, math.nan, k))
