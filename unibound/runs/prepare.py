"""New data for a model that is trained, brought to what it is over as its training data were."""

import torch

from unibound.data.binarization import bring
from unibound.data.missing import splits_of
from unibound.data.rows import Rows
from unibound.data.splits import PARTS, Splits
from unibound.errors import UsageError
from unibound.runs.build import parse_device, wanted
from unibound.runs.run import Run
from unibound.settings.records import Given
from unibound.support import integer_interval, unit_interval


def prepared(run: Run, x: Rows) -> Splits:
    """Data [N, *X] of the kind that a run was trained on, as its model is over them; all parts are the same.

    Raises:
        UsageError: data of another shape or kind.
    """
    shape = tuple(run.known.mean.shape)
    if x.kept.dim() == 0 or x.event_shape != shape:
        got = list(x.kept.shape)
        raise UsageError(f"x has shape {got}, but the model is of data [N, {', '.join(map(str, shape))}]; reshape them")
    device, dtype = parse_device(run.settings.device), getattr(torch, run.settings.dtype)
    joint = run.joint if run.settings.model.cls is Given else None
    parts: dict[str, Rows] = dict.fromkeys(PARTS, x)
    raw = splits_of(parts, source="x")
    needed, how, who = wanted(run.settings, joint, raw)
    if not run.known.prepared:
        return (raw if needed is None else splits_of(parts, source="x", support=needed)).to(device, dtype)
    kind = unit_interval if run.known.levels is None else integer_interval(0, run.known.levels - 1)
    return bring(splits_of(parts, source="x", support=kind), needed, how, who)[0].to(device, dtype)
