"""From settings to optimizers of torch, and how far their learning rates have come."""

import math

import torch
from torch import nn

from unibound.settings.records import Optimizer


def make_optimizer(settings: Optimizer, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The torch optimizer that the settings describe, for some parameters."""
    lr, decay = settings.learning_rate, settings.weight_decay
    if settings.algorithm == "adam":
        return torch.optim.AdamW(parameters, lr, weight_decay=decay, fused=True)
    if settings.algorithm == "adamax":
        return torch.optim.Adamax(parameters, lr, weight_decay=decay)
    return torch.optim.SGD(parameters, lr, momentum=settings.momentum, weight_decay=decay, fused=True)


def rate_factor(settings: Optimizer, done: float) -> float:
    """Learning rate after a fraction `done` of the stage, relative to the first."""
    if settings.schedule == "cosine":
        return settings.final + (1 - settings.final) * (1 + math.cos(math.pi * done)) / 2
    if settings.schedule == "step":
        return 0.1 ** ((done >= 0.5) + (done >= 0.75))
    return 1.0
