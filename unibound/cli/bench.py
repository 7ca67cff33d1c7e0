"""The command that measures this machine."""

import json as document
import sys
from typing import Annotated

from cyclopts import Parameter

from unibound.errors import UsageError


def bench(*, seconds: float = 120.0, json: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Measure how fast this machine is, relative to plain loops written out by hand: 0.5 is half their time.

    All take turns in one process and on one thread, so that noise falls on all alike; a ratio is the median over
    rounds, and beside it stand the quartiles. Sweeps are compared before they are raced.

    Args:
        seconds: about how long it may take in all.
        json: print one JSON document.
    """
    from unibound.runs import ratios

    if not 0 < seconds < float("inf"):
        raise UsageError(f"--seconds must be above 0 and finite, not {seconds:g}")
    about = ratios.machine()
    found = ratios.measure(seconds, lambda name: print(f"{name} ...", file=sys.stderr, flush=True))
    if json:
        print(document.dumps({"machine": about, "ratios": found}))
        return
    print(f"{about['processor']}, torch {about['torch']}, {about['kernels']} kernels, one thread")
    for name, rows in found.items():
        for system, row in rows.items():
            text = f"{row['ratio']:5.2f}  ({row['low']:.2f} to {row['high']:.2f})  {row['ms']:8.2f} ms"
            print(f"{name:>28}  {system:<9} {text}")
