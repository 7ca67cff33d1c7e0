"""A class of one's own, named by its file or module without being installed: --model path.py:Class."""

import os
from pathlib import Path

import pytest
from running import Cli, Words, refused

from unibound import Run

MINE = '''
import attrs
from unibound.support import boolean
from unibound_plugins.estimators import VIMCO
from unibound_plugins.models import MLP
from unibound_plugins.priors import RBM


@attrs.frozen
class Mine(MLP):
    """A net of my own.

    Args:
        depth_of_mine: which nobody else has.
    """

    depth_of_mine: int = 2


class Prior(RBM):
    """An RBM of my own."""


not_a_class = 3
'''


@pytest.fixture(autouse=True)
def _mine(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "broken.py").write_text("import nothing_like_this")


def test_a_file_and_its_class(cli: Cli, tiny: Words, tmp_path: Path) -> None:
    words = tiny(model="mine.py:Mine", prior="mine.py:Prior", model__depth_of_mine=7)
    result = cli(*words)
    assert result.code == 0, result.err
    assert f'name = "{tmp_path}/mine.py:Mine"' in Path("run/resolved.toml").read_text()
    os.chdir("/")
    run = Run.open(tmp_path / "run")
    assert type(run.settings.model.settings).__name__ == "Mine"
    assert run.settings.model.settings.depth_of_mine == 7
    assert cli("evaluate", tmp_path / "run").code == 0


def test_its_settings_are_in_the_help(cli: Cli) -> None:
    assert "--model.depth-of-mine" in cli("run", "--model", "mine.py:Mine", "--help").out
    assert "--model.depth-of-mine" not in cli("run", "--help").out


def test_a_name_with_dots(cli: Cli) -> None:
    dry = cli("run", "--dry-run", "--estimator", "unibound_plugins.estimators:IWAE", "--estimator.num-particles", 3)
    assert 'name = "unibound_plugins.estimators:IWAE"\nnum_particles = 3' in dry.out


@pytest.mark.parametrize(
    ("flag", "name", "parts"),
    [
        ("model", "mine.py:Yours", ["has no Yours", "its classes are: Mine, Prior"]),
        ("model", "mine.py:not_a_class", ["is to be a model, but is 3", "subclass of unibound.Model"]),
        ("model", "mine.py:VIMCO", ["is to be a model", "subclass of unibound.Model"]),
        ("prior", "mine.py:Mine", ["subclass of unibound.Prior"]),
        ("model", "yours.py:Mine", ["there is no file", "yours.py"]),
        ("model", "broken.py:Mine", ["does not load: ModuleNotFoundError", "nothing_like_this"]),
        ("model", "no.such.module:Mine", ["does not load: ModuleNotFoundError"]),
        ("estimator", "unibound:Estimator", ["is abstract; define it"]),
        ("data", "mine.py:Mine", ["subclass of unibound.DataSet"]),
    ],
)
def test_what_is_no_such_class_is_refused(cli: Cli, flag: str, name: str, parts: list[str]) -> None:
    refused(cli("run", "--dry-run", f"--{flag}", name), *parts)
