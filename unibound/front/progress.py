"""How far training is, on a terminal or in a notebook."""

from collections.abc import Iterable, Iterator

from unibound.runs.progress import Progress


def shown(epochs: Iterable[Progress], total: int, *, show: bool) -> Iterator[Progress]:
    """The same epochs, and a bar that says how many are done, and how good the model is."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    text = TextColumn("{task.fields[text]}")
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), text)
    with Bars(*columns, disable=not show) as bars:
        task = bars.add_task("training", total=total, text="")
        for progress in epochs:
            seen = "" if progress.valid_nll is None else f"valid NLL {progress.valid_nll:.2f}"
            bars.update(task, completed=progress.done, text=seen)
            yield progress
