"""What a model draws: pictures a person can look at, grids of data as PNG files, and the numbers themselves."""

import contextlib
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from unibound import disk
from unibound.energies.energy import EnergyPrior
from unibound.errors import UsageError
from unibound.joint import JointBound

BORDER = 2
SMALLEST = 48  # pixels per datum; smaller ones are enlarged by whole factors, so that edges stay sharp


@torch.no_grad()
def samples(joint: JointBound, count: int = 100) -> Tensor:
    """Data dreamed from p: means of p(x | tau) where there is such a thing, else draws: [count, *X]."""
    with joint.evaluating():
        return _shown(joint, *joint.p.dream(count))


@torch.no_grad()
def dreams(joint: JointBound, count: int) -> dict[str, Tensor]:
    """The same as numbers: draws x [count, *X], latents tau [count, *Z], and mean [count, *X] where there is one."""
    with joint.evaluating():
        x, tau = joint.p.dream(count)
        found = {"x": x, "tau": tau}
        with contextlib.suppress(UsageError, NotImplementedError):  # no p(x | tau), or one that knows no mean
            found["mean"] = joint.p.conditional(tau).mean
    return found


@torch.no_grad()
def chain(joint: JointBound, count: int = 100) -> Tensor | None:
    """The same for the persistent chains as they stand: [M, *X], M at most `count`; None without chains."""
    prior = joint.p.unnormalized
    if not isinstance(prior, EnergyPrior):
        return None
    with joint.evaluating(), torch.random.fork_rng():
        return _shown(joint, *joint.p.dream(min(count, len(prior.chains)), persistent=True))


@torch.no_grad()
def reconstructions(joint: JointBound, x: Tensor) -> Tensor:
    """Each datum of x [N, *X] followed by what p makes of one tau ~ q(tau | x): [2N, *X].

    Raises:
        UsageError: a p that has no p(x | tau).
    """
    with joint.evaluating():
        made = _seen(joint.p.conditional(joint.q(x).sample()))
    return torch.stack([x, made], 1).flatten(0, 1)


def _shown(joint: JointBound, x: Tensor, tau: Tensor) -> Tensor:
    try:
        return _seen(joint.p.conditional(tau))
    except UsageError:  # no p(x | tau)
        return x


def _seen(made: Distribution) -> Tensor:
    """The mean of a distribution over data, where it has one, else a draw: [N, *X]."""
    try:
        return made.mean
    except NotImplementedError:
        return made.sample()


def save(folder: Path, joint: JointBound, x: Tensor) -> None:
    """Write samples.png, and reconstructions.png of x [N, *X] where there are such."""
    save_grid(folder / "samples.png", samples(joint))
    with contextlib.suppress(UsageError):  # a p without a p(x | tau) has none
        save_grid(folder / "reconstructions.png", reconstructions(joint, x))


def save_arrays(path: Path, arrays: dict[str, Tensor]) -> None:
    """Write tensors as an .npz file, which is whole or not there."""
    buffer = io.BytesIO()
    held: dict[str, Any] = {name: x.detach().cpu().numpy() for name, x in arrays.items()}
    np.savez_compressed(buffer, **held)
    disk.write(path, buffer.getvalue())


def save_grid(path: Path, x: Tensor, columns: int = 10) -> None:
    """Write data x [N, *X] in rows as one grey or RGB picture.

    *X may be [H, W], [D] with D a square (else one row of pixels), or [3, H, W].
    """
    from PIL import Image

    images = _as_images(x.detach().cpu().float().clamp(0, 1))  # [N, H, W, C]
    count, height, width, channels = images.shape
    scale = max(1, math.ceil(SMALLEST / max(height, width)))
    images = images.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    rows = math.ceil(count / columns)
    cell_h, cell_w = height * scale + BORDER, width * scale + BORDER
    canvas = torch.full((rows * cell_h + BORDER, columns * cell_w + BORDER, channels), 0.35)
    for i, image in enumerate(images):
        top, left = i // columns * cell_h + BORDER, i % columns * cell_w + BORDER
        canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    array = (canvas * 255).round().byte().numpy()
    buffer = io.BytesIO()
    Image.fromarray(array.squeeze(2) if channels == 1 else array).save(buffer, format="PNG")
    disk.write(path, buffer.getvalue())


def _as_images(x: Tensor) -> Tensor:
    if x.dim() == 4 and x.shape[1] == 3:
        return x.permute(0, 2, 3, 1)
    if x.dim() == 3:
        return x.unsqueeze(3)
    flat = x.flatten(1)
    side = math.isqrt(flat.shape[1])
    height = side if side * side == flat.shape[1] else 1
    return flat.view(len(x), height, -1, 1)
