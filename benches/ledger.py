"""The ledger of results, one line each, and the page that is made from it.

    python benches/ledger.py add RUN          enter the result of a finished run
    python benches/ledger.py add RUN EVALUATION.json     the same, with what `unibound evaluate --json` found later
    python benches/ledger.py page             write docs/reproducing.md anew

Nobody writes a number into the page by hand: what is not in the ledger is not on it.
"""

import json
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LEDGER = ROOT / "benches" / "ledger.jsonl"
PAGE = ROOT / "docs" / "reproducing.md"
BEGIN, END = "<!-- made by benches/ledger.py -->\n", "<!-- end -->\n"


def entry(run: Path, evaluation: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the ledger keeps of a finished run: what was done, to what, and what came out, in nats."""
    settings = tomllib.loads((run / "resolved.toml").read_text())
    environment = json.loads((run / "env.json").read_text())
    final = json.loads((run / "evaluation.json").read_text())
    found = evaluation or final
    command = shlex.join(["unibound", *_without_places(environment["command"][1:])])
    return {
        "published": False,
        "recipe": _recipe(environment["command"]),
        "command": command,
        "commit": environment["commit"],
        "seed": settings["seed"],
        "data": Path(settings["data"]["name"]).name,  # of a file, without its place
        "data_sha256": environment["data_sha256"],
        "processor": environment["processor"],
        "threads": environment["threads"],
        "torch": environment["torch"],
        "seconds": round(final["seconds"]),
        "num_particles": found["num_particles"],
        "partition": found["partition"],
        "nll": found["nll"],
        "nll_stderr": found["nll_stderr"],
        "nll_low": found["nll_low"],
        "nll_high": found["nll_high"],
        "train_nll": final["train_nll"],
        "raise_nll": next((one["nll"] for one in found.get("estimates", []) if one["partition"] == "raise"), None),
    }


def _without_places(words: list[str]) -> list[str]:
    """A command without where its files lay, which the digest of the data says better."""
    places = [at for at, word in enumerate(words) if word in ("--data.folder", "--run-dir")]
    named = [Path(word).name if before == "--data" else word for before, word in zip(["", *words], words, strict=False)]
    return [word for at, word in enumerate(named) if at not in places and at - 1 not in places]


def _recipe(command: list[str]) -> str:
    words = [word for part in command for word in part.split("=", 1)]
    if "--config" not in words:
        raise SystemExit("ledger: the run was not started from a recipe, with --config")
    return Path(words[words.index("--config") + 1]).stem


def read() -> list[dict[str, Any]]:
    """Every entry, oldest first."""
    return [json.loads(line) for line in LEDGER.read_text().splitlines()] if LEDGER.exists() else []


def table(entries: list[dict[str, Any]]) -> str:
    """The published numbers beside what was obtained, then results without one; a cell without an entry is empty."""
    lines = [
        "| recipe | published | obtained | gap | 95% interval | training NLL | seed | K | hours | commit |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    published = {one["recipe"]: one for one in entries if one["published"]}
    # The newest of each seed; recipes get better.
    own = {(one["recipe"], one["seed"]): one for one in entries if not one["published"]}.values()
    rows = {name: [] for name in published} | {_compared(one): [] for one in own}
    for one in own:
        rows[_compared(one)].append(one)
    for name, found in rows.items():
        beside = published.get(name)
        cells = [[f"`{one['recipe']}`", "" if beside is None else _nll(beside), *_cells(one, beside)] for one in found]
        cells = cells or [[f"`{name}`", "" if beside is None else _nll(beside), *[""] * 8]]
        lines += ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join(lines) + "\n"


def _compared(one: dict[str, Any]) -> str:
    """The recipe whose published number an entry is to be read beside: what it was shortened from, or itself."""
    return one["recipe"].removesuffix("-full").removesuffix("-two-hours")


def _nll(one: dict[str, Any], decimals: int = 2) -> str:
    """An NLL, with that by RAISE in brackets."""
    text = f"{one['nll']:.{decimals}f}"
    return text if one["raise_nll"] is None else f"{text} ({one['raise_nll']:.{decimals}f})"


def _cells(one: dict[str, Any], published: dict[str, Any] | None) -> list[str]:
    low, high = ("" if end is None else f"{end:.2f}" for end in (one["nll_low"], one["nll_high"]))
    return [
        f"{_nll(one)} ± {one['nll_stderr']:.2f}",
        "" if published is None else f"{one['nll'] - published['nll']:+.2f}",
        f"[{low}, {high}]",
        f"{one['train_nll']:.2f}",
        str(one["seed"]),
        str(one["num_particles"]),
        f"{one['seconds'] / 3600:.2f}",
        f"`{one['commit']}`",
    ]


def page(text: str, entries: list[dict[str, Any]]) -> str:
    """The page with its table made anew."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    commands = {
        one["command"]: f"- `{one['command']}`\n  data {one['data_sha256'][:12]}, {one['processor']}, "
        f"torch {one['torch']}, {one['threads']} thread{'s' * (one['threads'] > 1)}"
        for one in entries
        if not one["published"]
    }.values()
    return f"{before}{BEGIN}\n{table(entries)}\n" + "\n".join(commands) + f"\n\n{END}{after}"


def main(words: list[str]) -> None:
    match words:
        case ["add", run, *evaluation]:
            found = json.loads(Path(evaluation[0]).read_text()) if evaluation else None
            with LEDGER.open("a") as file:
                file.write(json.dumps(entry(Path(run), found)) + "\n")
        case ["page"]:
            PAGE.write_text(page(PAGE.read_text(), read()))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
