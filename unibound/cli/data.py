"""`unibound data FILE`: what would be read, before anything is trained on it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unibound import support
from unibound.data.files import File, is_path
from unibound.data.hubs import Hub, is_hub
from unibound.data.splits import PARTS, DataSet, Splits
from unibound.registry import registries


def data(source: str, *, as_json: bool) -> None:
    """Print shapes, ranges, support and classes of a data set by its name, or of a file or folder."""
    known = registries()["data_set"]
    if is_hub(source):
        found: DataSet = Hub(source)
    else:
        found = File(Path(source)) if is_path(source, known) else known[source]()
    document = describe(found.load())
    if as_json:
        print(json.dumps(document))
        return
    table = Table(box=None, pad_edge=False)
    for name in ("", "data", "shape", "lowest", "highest", "mean"):
        table.add_column(name, justify="right" if name else "left", style=None if name else "bold")
    for name, one in document["parts"].items():
        shape = " x ".join(map(str, document["shape"]))
        numbers = [f"{one[key]:.4g}" for key in ("lowest", "highest", "mean")]
        table.add_row(name, str(one["count"]), shape, *numbers)
    out = Console(highlight=False)
    out.print(escape(document["source"]))
    out.print(table)
    out.print(f"made of {document['support']}")
    out.print(f"likelihoods of such values: {', '.join(document['likelihoods']) or 'none'}")
    if document["classes"]:
        classes = ", ".join(f"{name} {count}" for name, count in document["classes"].items())
        out.print(escape(f"classes of train: {classes}"))


def describe(splits: Splits) -> dict[str, Any]:
    """The same as plain values."""
    parts = {}
    for name in PARTS:
        x = splits.rows(name)
        ends = [block.aminmax() for block in x.blocks()]
        parts[name] = {
            "count": len(x),
            "lowest": min(low.item() for low, _ in ends),
            "highest": max(high.item() for _, high in ends),
            "mean": x.mean().double().mean().item(),
        }
    likelihoods = registries()["likelihood"]
    return {
        "source": splits.source,
        "shape": list(splits.event_shape),
        "support": support.describe(splits.support),
        "likelihoods": [name for name, cls in likelihoods.items() if cls.over(splits.support) is not None],
        "parts": parts,
        "classes": dict(Counter(splits.labels.get("train", []))),
    }
