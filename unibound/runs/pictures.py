"""What a model draws: pictures a person can look at, grids of data as PNG files, and the numbers themselves."""

import contextlib
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from unibound import disk
from unibound.data.rows import Data, spread
from unibound.data.splits import classes
from unibound.energies.energy import EnergyPrior
from unibound.errors import UsageError
from unibound.generation import Layered
from unibound.joint import JointBound

FILM = "film"
COLUMNS = 10
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


@torch.no_grad()
def traversals(joint: JointBound, x: Tensor) -> Tensor:
    """What single latents do: a row of ten for each of the ten that differ most between codes of x [N, *X].

    A row takes its latent through the values that it has, the others as they are in the code of a datum: a bit off and
    on in five data, a real from low to high in one: [10 R, *X].

    Raises:
        UsageError: a p that has no p(x | tau).
    """
    with joint.evaluating():
        codes = joint.q(x).sample()  # [N, *Z]
        flat, rows = codes.flatten(1), []
        for unit in flat.double().var(0, correction=0).topk(min(COLUMNS, flat.shape[1])).indices:
            values = flat[:, unit].unique()
            if 2 * len(values) > COLUMNS:
                values = flat[:, unit].quantile(torch.linspace(0.02, 0.98, COLUMNS).to(flat))
            row = flat[: COLUMNS // len(values)].repeat_interleave(len(values), 0)
            row[:, unit] = values.repeat(len(row) // len(values))
            rows.append(_seen(joint.p.conditional(row.view(-1, *codes.shape[1:]))))
    return torch.cat(rows)


@torch.no_grad()
def trajectories(joint: JointBound, count: int = COLUMNS, columns: int = COLUMNS) -> Tensor:
    """How data come to be while p draws them, a row for each: `columns` of its stages, evenly spread, the first and the
    last among them, or all there are: [count S, *X].

    Raises:
        UsageError: a p that draws data at once.
    """
    with joint.evaluating():
        stages = joint.p.stages(count)  # [S, N, *X]
    at = torch.linspace(0, len(stages) - 1, min(columns, len(stages))).round().long()
    return stages[at.to(stages.device)].transpose(0, 1).flatten(0, 1)


@torch.no_grad()
def layers(joint: JointBound) -> Tensor | None:
    """What each layer of p leaves to those below: for each, from the top, a row of ten means of p(x | tau) [10 L, *X].

    A row holds one draw of its layer still, and draws anew what lies below: all alike where the layers below decide
    nothing, and as various as samples where they decide everything. None where p has fewer than two layers.
    """
    p = joint.p
    if not isinstance(p, Layered) or len(p.sizes) < 2:
        return None
    with joint.evaluating():
        _, tau = p.dream(1)
        below, rows = tau.split(p.sizes, -1), []
        for level in reversed(range(len(p.sizes))):
            seen = below[level].expand(COLUMNS, -1)
            seen = p.prior.visible(seen) if level == len(p.sizes) - 1 else seen
            for generator in reversed(list(p.generators)[1 : level + 1]):
                seen = generator(seen).sample()
            rows.append(_seen(p.generators[0](seen)))
    return torch.cat(rows)


@torch.no_grad()
def nearest(drawn: Tensor, train: Data) -> Tensor:
    """Each of drawn [N, *X] followed by the datum of `train` [M, *X] that is closest, by squares: [2N, *X].

    What is missing is taken for half way.
    """
    far, closest = drawn.new_full((len(drawn),), math.inf), drawn
    for part in train.split(1000):
        rows = part.to(drawn).nan_to_num(0.5)
        apart, at = torch.cdist(drawn.flatten(1), rows.flatten(1)).min(1)
        closer = (apart < far).view(-1, *[1] * (drawn.dim() - 1))
        closest, far = torch.where(closer, rows.index_select(0, at), closest), torch.minimum(apart, far)
    return torch.stack([drawn, closest], 1).flatten(0, 1)


def save(folder: Path, joint: JointBound, test: Tensor, train: Data) -> None:
    """Write samples.png and nearest.png, and what else there is: reconstructions.png, traversals.png, trajectories.png,
    and layers.png of layers.

    Args:
        folder: of the run.
        joint: q and p.
        test: some data to encode [N, *X].
        train: those that p may have learned by heart [M, *X].
    """
    drawn = samples(joint)
    save_grid(folder / "samples.png", drawn)
    save_grid(folder / "nearest.png", nearest(drawn[:50], train))
    if (rows := layers(joint)) is not None:
        save_grid(folder / "layers.png", rows)
    for name, draw in (("reconstructions", reconstructions), ("traversals", traversals)):
        with contextlib.suppress(UsageError):  # no p(x | tau)
            save_grid(folder / f"{name}.png", draw(joint, test))
    with contextlib.suppress(UsageError):  # drawn at once
        stages = trajectories(joint)
        save_grid(folder / "trajectories.png", stages, len(stages) // COLUMNS)


@torch.no_grad()
def save_classes(folder: Path, joint: JointBound, test: Data, labels: Sequence[str]) -> None:
    """Write classes.png: where q puts data of each class, in the plane in which their mean latents vary most.

    Args:
        folder: of the run.
        joint: q and p; one without p(x | tau) has no picture.
        test: data [N, *X].
        labels: of which class each is [N].
    """
    from matplotlib.figure import Figure

    at = spread(torch.arange(len(test), device=test.device), 1000)
    x, names = test[at], [labels[int(place)] for place in at]
    with joint.evaluating(), contextlib.suppress(UsageError):
        drawn = joint.q(x).sample(torch.Size([10]))  # [10, N, *Z]
        joint.p.conditional(drawn[0])
        codes = drawn.double().mean(0).flatten(1).cpu()
        spans = torch.linalg.svd(codes - codes.mean(0), full_matrices=False)[2][:2]  # [2, Z]
        if len(spans) < 2:
            return
        spans = spans * spans.gather(1, spans.abs().argmax(1, keepdim=True)).sign()  # the same way round each time
        plane = codes @ spans.T
        figure = Figure(figsize=(5, 4), dpi=120, layout="constrained")
        axes = figure.subplots()
        for name in classes(names):
            own = plane[torch.tensor([label == name for label in names])]
            axes.scatter(own[:, 0], own[:, 1], s=9, label=name, alpha=0.8, linewidths=0)
        axes.set(xticks=[], yticks=[])
        figure.legend(loc="outside right upper", frameon=False, markerscale=2)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
        disk.write(folder / "classes.png", buffer.getvalue())


def save_look(folder: Path, joint: JointBound, done: int, *, seed: int) -> None:
    """Write how the model dreams after `done` epochs: a frame of film/, and chain.png where its prior keeps chains.

    Args:
        folder: of the run.
        joint: q and p.
        done: epochs so far.
        seed: of draws, the same at every look, so that frames differ by what was learned.
    """
    chains = chain(joint)
    if chains is not None:
        save_grid(folder / "chain.png", chains)
        frame = chains[:COLUMNS]
    else:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            frame = samples(joint, COLUMNS)
    disk.make_folder(folder / FILM, exist_ok=True)
    save_grid(folder / FILM / f"{done:06}.png", frame)


def save_arrays(path: Path, arrays: dict[str, Tensor]) -> None:
    """Write tensors as an .npz file, which is whole or not there."""
    buffer = io.BytesIO()
    held: dict[str, Any] = {name: x.detach().cpu().numpy() for name, x in arrays.items()}
    np.savez_compressed(buffer, **held)
    disk.write(path, buffer.getvalue())


def save_grid(path: Path, x: Tensor, columns: int = COLUMNS) -> None:
    """Write data x [N, *X] in rows as one grey or RGB picture.

    What is missing is half way. *X may be [H, W], [D] with D a square (else one row of pixels), or [3, H, W].
    """
    from PIL import Image

    images = _as_images(x.detach().cpu().float().nan_to_num(0.5).clamp(0, 1))  # [N, H, W, C]
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
