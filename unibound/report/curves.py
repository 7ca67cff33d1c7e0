"""Curves of a run as SVG that lives inside a page: text stays text, and both light and dark suit it."""

import html
import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from unibound.runs import metrics

Line = dict[str, Any]  # one line of metrics.jsonl
COLORS = ("#2f7fd1", "#d9731a", "#2e9b63", "#b65fc4")  # each of them reads on white and on black
GREY = "#8a8a8a"
FEW = 30  # points up to which each of them is marked


@attrs.frozen
class Curve:
    """Numbers over epochs.

    Args:
        label: what the legend says.
        points: epoch and value; those that are no number are left out.
        dot: a mark at each point instead of a line.
    """

    label: str
    points: list[tuple[int, float]]
    dot: bool = False

    @classmethod
    def of(cls, label: str, lines: Sequence[Line], value: str | Callable[[Line], float | None]) -> "Curve":
        """One number of each line that has it, by its name or by how it is computed."""
        found = [(line["done"], line.get(value) if isinstance(value, str) else value(line)) for line in lines]
        return cls(label, [(done, y) for done, y in found if y is not None and math.isfinite(y)])


@attrs.frozen
class Stage:
    """One stage of the run: its estimator, and the epoch it ends with."""

    name: str
    end: int


def normalized_bounds(lines: Sequence[Line]) -> dict[int, float]:
    """The training bound on log p(x) by epoch, in nats, as everybody is told it."""
    return {line["done"]: line["bound"] for line in metrics.normalized(lines) if line.get("bound") is not None}


def draw(
    curves: Sequence[Curve], stages: Sequence[Stage], unit: str, *, span: tuple[int, int], small: bool = False
) -> str:
    """Draw curves over epochs as an <svg> element, with a line where a stage ends.

    Args:
        curves: what is drawn; there are no more of them than colors.
        stages: of the whole run.
        unit: of the vertical axis.
        span: first and last epoch shown.
        small: one of many, without names of stages and, for a single curve, without a legend.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    look: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "unibound", "axes.formatter.useoffset": False}
    look["font.size"] = 9
    for name in ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"):
        look[name] = GREY
    with rc_context(look):
        figure = Figure(figsize=(3.4, 2.1) if small else (6.4, 3.2), layout="constrained")
        axes = figure.subplots()
        for curve, color in zip(curves, COLORS, strict=False):
            points = [(x, y) for x, y in curve.points if span[0] <= x <= span[1]]
            style = {"linestyle": "none" if curve.dot else "-", "linewidth": 1.4, "color": color, "label": curve.label}
            marker = "D" if curve.dot else "o" if len(points) <= FEW else ""
            axes.plot([x for x, _ in points], [y for _, y in points], marker=marker, markersize=3, **style)
        margin = 0.02 * (span[1] - span[0]) + 0.5
        axes.set(xlabel="epoch", ylabel=unit, xlim=(span[0] - margin, span[1] + margin))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.grid(alpha=0.25, lw=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        _mark(axes, stages, span, named=not small)
        if not small:
            figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
        elif len(curves) > 1:
            axes.legend(frameon=False, fontsize=8)
        out = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    text = out.getvalue()
    return _described(text[text.index("<svg") :], f"{unit} over epochs. " + " ".join(map(_seen, curves)))


def apart(svg: str, number: int) -> str:
    """A picture whose ids no other picture of the page has."""
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>p{number}-", svg)


def _described(svg: str, words: str) -> str:
    """The picture, and what is seen in it for those who do not."""
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(words)}" ', 1)


def _seen(curve: Curve) -> str:
    """Where a curve begins and ends."""
    if not curve.points:
        return f"{curve.label}: nothing."
    (begin, first), (end, last) = curve.points[0], curve.points[-1]
    if begin == end:
        return f"{curve.label}: {last:.4g} at epoch {end}."
    return f"{curve.label}: from {first:.4g} at epoch {begin} to {last:.4g} at epoch {end}."


def _mark(axes: Any, stages: Sequence[Stage], span: tuple[int, int], *, named: bool) -> None:
    """A line where a stage ends, and the name of its estimator above where it begins, unless it is the one before."""
    begin, before = span[0], ""
    for stage in stages:
        if stage.end <= span[0] or begin >= span[1]:
            continue
        if stage.end < span[1]:
            axes.axvline(stage.end + 0.5, color=GREY, linewidth=0.8, linestyle=":")
        if named and len(stages) > 1 and stage.name != before:
            where = {"xy": (begin + 0.5, 1), "xycoords": ("data", "axes fraction"), "annotation_clip": False}
            axes.annotate(stage.name, xytext=(2, 2), textcoords="offset points", fontsize=8, parse_math=False, **where)
        begin, before = stage.end, stage.name
