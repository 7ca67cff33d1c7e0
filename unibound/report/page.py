"""One page about a run: its verdict, curves, pictures and settings, in a file that needs nothing else.

It is made of what stands in the run's folder alone, so that it can be written while the run goes on, and long after
the data are gone. The same folder gives the same page.
"""

import base64
import shlex
from collections.abc import Iterable
from itertools import count, groupby
from pathlib import Path
from typing import Any

import attrs
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from unibound.errors import UsageError
from unibound.report.curves import Curve, Line, Stage, apart, draw, normalized_bounds
from unibound.report.panels import PANELS
from unibound.runs import diagnosis, environment, metrics
from unibound.runs.files import require_file, write_text
from unibound.runs.pictures import FILM
from unibound.runs.result import Result
from unibound.runs.run import read_settings
from unibound.settings import sources
from unibound.settings.records import Settings

PAGE, TEMPLATE = "report.html", "page.html"
LEARNING = (
    "Lower is better, in nats per datum. Both curves should fall and level off together; a validation curve that turns "
    "up while the bound goes on improving is overfitting. The bound is that of the stage's estimator, with its own "
    "number of particles."
)
FRAMES = 12
CLOSER = "The second half of the run, closer."
PICTURES = {
    "samples": "Means of p(x | tau) for latents drawn from the prior.",
    "reconstructions": "Test data, each followed by what one latent drawn from q makes of it.",
    "nearest": "Samples, each followed by the training image that is closest to it, by squares of differences. None "
    "should be its neighbor: then the model has learned that image by heart.",
    "traversals": "A latent to a row, those that differ most between data: a bit off and on, in five data; a real from "
    "low to high, in one; the other latents as they were. A row of twins is a latent that p does not listen to.",
    "trajectories": "How samples come to be, one to a row: stages of a trajectory, from noise or an empty canvas at "
    "the left to a datum. Shapes should settle early, and details late.",
    "layers": "What each layer of p leaves to those below, from the top: in each row one draw of a layer held still, "
    "and means of p(x | tau) for ten draws of what lies below it. Rows should grow more alike downwards; a row of "
    "twins above the last says that the layers below decide nothing, and two rows as various as each other that the "
    "layer between carries little.",
    "classes": "Where q puts test data of each class, in the plane in which their mean latents vary most. Classes that "
    "lie apart are known to the latents, though nobody told them.",
    "chain": "Means of p(x | tau) for the prior's persistent chains, at the last look at the validation set. They "
    "should be as various as the data; many alike mean that chains are stuck in a few modes.",
}
TOGETHER = "The same, of the model that q and p make together: draws of it."
MAPS = {"classes": "Map of latents"}


@attrs.frozen
class Record:
    """What the folder of a run holds; that of an unfinished one lacks a result."""

    path: Path
    settings: Settings
    environment: dict[str, Any]
    lines: list[Line]
    result: Result | None

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Raises UsageError for a folder that is none of a run."""
        settings = read_settings(path)
        return cls(path, settings, environment.read(path), metrics.read(path), Result.read(path))

    @property
    def stages(self) -> list[Stage]:
        """The stages, each with the epoch at which it ends."""
        found: list[Stage] = []
        for stage in self.settings.stages:
            found.append(Stage(stage.estimator.name, (found[-1].end if found else 0) + stage.epochs))
        return found

    @property
    def about(self) -> str:
        """The settings in a few words."""
        settings, begin, spans = self.settings, 0, []
        for name, stages in groupby(self.stages, lambda stage: stage.name):
            *_, last = stages
            spans.append(f"{name} for {last.end - begin}")
            begin = last.end
        parts = f"model {settings.model.name}, prior {settings.prior.name}"
        return f"{Path(settings.data.name).name}; {parts}; {', then '.join(spans)} epochs; seed {settings.seed}"

    @property
    def done(self) -> int:
        """Epochs that are done."""
        return self.lines[-1]["done"] if self.lines else 0

    @property
    def claims(self) -> bool:
        """Whether anything may be concluded."""
        return self.result is not None and not self.result.conclusion.startswith("no claim")

    @property
    def verdict(self) -> str:
        """What may be concluded, or how far it is."""
        if self.result is not None:
            conclusion = self.result.conclusion
            return conclusion[:1].upper() + conclusion[1:] + "."
        return f"Not finished: {self.done} of {self.stages[-1].end} epochs are done, and nothing is claimed yet."


def write(run: Path, output: Path | None = None) -> Path:
    """Write the page of a run, by default into its folder.

    Returns:
        The file.
    Raises:
        UsageError: no run, or no place to write to.
    """
    record, path = Record.read(run), output or run / PAGE
    require_file("--output", path, "an HTML file")
    if path.suffix.lower() not in ("", ".html", ".htm"):
        raise UsageError(f"--output {path}: a report is an HTML page; name a file that ends in .html")
    # Whatever the locale is, and whoever serves the page.
    write_text(path, page(record).encode("ascii", "xmlcharrefreplace").decode())
    return path


def page(record: Record) -> str:
    """The page, as text."""

    number = count()

    def panel(curves: list[Curve], unit: str, since: int = 0, *, small: bool = False, **words: str) -> dict[str, str]:
        svg = draw(curves, record.stages, unit, span=(since, record.done), small=small)
        return {"svg": Markup(apart(svg, next(number))), **words}

    learning, middle = learning_curves(record), record.done // 2
    made = () if record.result is None else record.result.made
    return template(TEMPLATE).render(
        title=record.path.resolve().name,
        about=record.about,
        verdict=record.verdict,
        claims=record.claims,
        rows=[] if record.result is None else [row for row in record.result.rows if row[0] != "side"],
        classes=[] if record.result is None else classes(record.result),
        composition=composition(record),
        learning=[
            panel(learning, "nats", since, healthy=text)
            for text, since in ((LEARNING, 0), (CLOSER, middle))
            if learning and (since == 0 or middle > 2)
        ],
        watched=[
            panel(curves, each.unit, small=True, title=each.title, healthy=each.healthy)
            for each in PANELS
            if (curves := each.curves(record.lines))
        ],
        pictures=pictures(record, [*PICTURES, *(f"samples-{name}" for name in made)]),
        film=film(record),
        environment=[(name.replace("_", " "), _shown(name, value)) for name, value in record.environment.items()],
        settings=sources.write(record.settings),
    )


def composition(record: Record) -> dict[str, Any] | None:
    """What the NLL is made of, if somebody looked."""
    found = diagnosis.read(record.path)
    if found is None:
        return None
    split, parts = found
    return {"columns": diagnosis.columns(split, parts), "rows": diagnosis.rows(parts), "trouble": parts.trouble}


def template(name: str) -> Template:
    """A template of this folder."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def pictures(record: Record, names: Iterable[str]) -> list[dict[str, str]]:
    """The pictures in a run's folder, as far as they are there."""
    return [
        {
            "title": name,
            "alt": f"{MAPS.get(name, 'Grid of pictures')}, {name} of {record.path.resolve().name}",
            "about": PICTURES.get(name, TOGETHER),
            "data": base64.b64encode(file.read_bytes()).decode(),
        }
        for name in names
        if (file := record.path / f"{name}.png").is_file()
    ]


def film(record: Record) -> list[dict[str, str]]:
    """Rows of pictures drawn while the model learned, a few of them, evenly spread from the first to the last."""
    frames = sorted((record.path / FILM).glob("*.png"))
    chosen = sorted({round(at * (len(frames) - 1) / (FRAMES - 1)) for at in range(FRAMES)}) if frames else []
    return [
        {"epoch": frames[at].stem.lstrip("0"), "data": base64.b64encode(frames[at].read_bytes()).decode()}
        for at in chosen
    ]


def learning_curves(record: Record) -> list[Curve]:
    """The bound and the negative log-likelihoods, as far as there are any."""
    bounds = normalized_bounds(record.lines)
    found = [
        Curve("-bound, training", [(done, -bound) for done, bound in bounds.items()]),
        Curve.of("validation NLL", record.lines, "valid_nll"),
    ]
    if record.result is not None:
        end = record.stages[-1].end
        ends = {"training": record.result.train_nll, "test": record.result.nll}
        found += [
            Curve(f"{name} NLL, at the end", [(end, nll)], dot=True) for name, nll in ends.items() if nll is not None
        ]
    return [curve for curve in found if curve.points]


def _shown(name: str, value: Any) -> str:
    if name == "command":
        return shlex.join([Path(value[0]).name, *value[1:]])
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def classes(result: Result) -> list[tuple[str, int, str]]:
    """Of each class its name, how many test data it has, and their NLL with its standard error."""
    return [
        (name, number, f"{nll:.2f}" + ("" if stderr is None else f" ± {stderr:.2f}"))
        for name, (number, nll, stderr) in result.classes.items()
    ]
