"""A run that travels: its weights, settings and numbers in a folder of their own, with a page that says what it is.

Such a folder is that of a run without what it takes to train on, so that whatever opens a run opens it, and it is what
a model hub wants: weights as safetensors, and a README.md.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from unibound import disk
from unibound.errors import UsageError
from unibound.runs import environment
from unibound.runs.checkpoint import ABOUT, CHECKPOINTS, WEIGHTS
from unibound.runs.environment import ENVIRONMENT, KNOWN
from unibound.runs.files import read_sums, write_sums
from unibound.runs.folder import RESOLVED, read_settings
from unibound.runs.kept import kept
from unibound.runs.metrics import METRICS
from unibound.runs.result import EVALUATION, Result
from unibound.settings.records import Settings

CARD, CERTIFICATE = "README.md", "certificate.json"
SMALL = (RESOLVED, ENVIRONMENT, KNOWN, METRICS, EVALUATION)


def export(run: Path, to: Path, certificate: dict[str, Any] | None = None) -> Path:
    """Write what it takes to use a trained model, and to know how good it is, to a new folder.

    Args:
        run: folder of the run; of its checkpoints, the one that its settings keep is taken.
        to: the new folder; it is whole, or not there.
        certificate: of the model, as `unibound certify --json` prints it.

    Returns:
        The folder.

    Raises:
        UsageError: no run, one without weights or with damaged ones, a place that is taken or cannot be written to.
    """
    settings = read_settings(run)
    found, _, words = kept(run / CHECKPOINTS, settings)
    if to.exists():
        raise UsageError(f"{to} is there already; name a new folder")
    draft = disk.draft_of(to.absolute())
    try:
        disk.make_folder(draft / CHECKPOINTS / found.name)
        for name in SMALL:
            if (run / name).exists():
                shutil.copy(run / name, draft / name)
        for picture in run.glob("*.png"):
            shutil.copy(picture, draft / picture.name)
        for folder, names in ((Path(), SMALL), (Path(CHECKPOINTS, found.name), (WEIGHTS, ABOUT))):
            sums = read_sums(run / folder)
            for name in names if folder.parts else ():
                shutil.copy(run / folder / name, draft / folder / name)
            write_sums(draft / folder, {name: digest for name, digest in sums.items() if name in names})
        if certificate is not None:
            disk.write(draft / CERTIFICATE, json.dumps(certificate, indent=2).encode() + b"\n")
        disk.write(draft / CARD, card(run, settings, words, certificate).encode())
        draft.rename(to)
    except OSError as error:
        raise UsageError(f"cannot write to {to}: {error.strerror}; name another folder") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return to


def card(run: Path, settings: Settings, weights: str, certificate: dict[str, Any] | None) -> str:
    """What the model is, in Markdown, with the front matter that model hubs read."""
    result = Result.read(run)
    claim = "not finished, and nothing is claimed of it" if result is None else result.conclusion
    stages = ", then ".join(f"{stage.estimator.name} for {stage.epochs} epochs" for stage in settings.stages)
    rows = [
        ("model", settings.model.name),
        ("prior", settings.prior.name),
        ("likelihood", settings.likelihood.name),
        ("data set", Path(settings.data.name).stem),
        ("trained by", stages),
        ("seed", settings.seed),
        *([("weights", weights)] if result is None else result.rows),
        ("made with", f"unibound {environment.read(run).get('unibound', 'of a version it does not say')}"),
    ]
    lines = [
        "---", "library_name: unibound", "tags:", "- generative-model", "- latent-variables", "---", "",
        f"# {run.resolve().name}", "",
        f"{claim[:1].upper()}{claim[1:]}.", "",
        *(["![Samples](samples.png)", ""] if (run / "samples.png").exists() else []),
        "| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows), "",
    ]  # fmt: skip
    if certificate is not None:
        lines += ["## Certificate", "", *_certified(certificate), ""]
    lines += ["## Use", "", "```python", "import unibound", "", 'model = unibound.load("PATH OF THIS FOLDER")']
    return "\n".join([*lines, "model.sample(10)", "```", ""])


def _certified(found: dict[str, Any]) -> list[str]:
    if found["verdict"] != "certified":
        return [f"Refused: {'; '.join(found['reasons'])}."]
    low, high = found["test_ll_low"], found["test_ll_high"]
    where = f"at least {low:.2f}" if high is None else f"in [{low:.2f}, {high:.2f}]"
    text = f"Certified: the mean log-likelihood of {found['num_data']} test data lies {where} nats with 95% confidence"
    return [f"{text}, given: {'; '.join(found['reasons'])}.", *(f"\nWarning: {one}." for one in found["warnings"])]


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
