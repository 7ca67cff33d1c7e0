"""One page about several runs on the same data: what each came to, their differences, curves and samples."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from unibound.errors import UsageError
from unibound.report.curves import COLORS, Curve, draw
from unibound.report.page import Record, pictures, template
from unibound.runs.files import require_file, write_text
from unibound.runs.paired import Difference

LEGEND = (
    "Nats. The difference is the NLL of a run less that of the first, so that what is positive is worse, with its "
    "standard error over data that are paired; beside it what the estimates of log Z may add, alike for all data."
)
HEALTHY = "Validation NLL in nats per datum; lower is better."


def require_room(runs: Sequence[Path], output: Path) -> None:
    """Raise UsageError for more runs than can be told apart, or no place to write to."""
    if len(runs) > len(COLORS):
        raise UsageError(f"a page shows at most {len(COLORS)} runs, whose colors can be told apart; name fewer")
    require_file("--output", output, "an HTML file")


def write(runs: Sequence[Path], differences: Sequence[Difference], output: Path) -> Path:
    """Write the page of several runs, and return its path. Raises UsageError for what is no run."""
    text = page([Record.read(run) for run in runs], differences)
    write_text(output, text.encode("ascii", "xmlcharrefreplace").decode())
    return output


def page(records: Sequence[Record], differences: Sequence[Difference]) -> str:
    """The page, as text."""
    names = [record.path.resolve().name for record in records]
    curves = [
        Curve.of(name, record.lines, "valid_nll") for name, record in zip(names, records, strict=True) if record.lines
    ]
    span = (0, max(record.done for record in records))
    return template("several.html").render(
        title=f"{len(records)} runs",
        about=", ".join(names),
        columns=["run", "test NLL", "difference", "± log Z", "errs"],
        rows=[_row(name, one, first=not i) for i, (name, one) in enumerate(zip(names, differences, strict=True))],
        legend=LEGEND,
        learning=Markup(draw(curves, [], "nats", span=span)) if curves else None,
        healthy=HEALTHY,
        runs=[
            {
                "name": name,
                "about": record.about,
                "verdict": record.verdict,
                "claims": record.claims,
                "pictures": pictures(record, ["samples"]),
            }
            for name, record in zip(names, records, strict=True)
        ],
    )


def _row(name: str, one: Difference, *, first: bool) -> list[str]:
    beside = ["", ""] if first else [f"{one.difference:+.3f} ± {one.stderr:.3f}", f"{one.log_z_stderr:.3f}"]
    return [name, f"{one.nll:.3f} ± {one.nll_stderr:.3f}", *beside, one.side]
