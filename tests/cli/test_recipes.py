"""The recipes that ship with the package."""

import tomllib
from pathlib import Path

import attrs
import pytest
import torch

from unibound import UsageError
from unibound.cli.plugins import list_plugins
from unibound.runs.build import build
from unibound.runs.train import Training
from unibound.settings import sources
from unibound.settings.recipes import recipes

EVENT_SHAPES = {
    "digits": (8, 8), "binarized_mnist": (28, 28), "cifar10": (3, 32, 32), "imagenet64": (3, 64, 64),
    "dna": (180,), "mushrooms": (112,), "nips": (500,),
}  # fmt: skip
LARGE = ("cifar-vimco", "cifar-iwae", "imagenet64")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in recipes()]
)
def test_every_stage_of_a_recipe_can_be_trained(name: str) -> None:
    settings = sources.resolve([sources.read(Path(name))])
    assert sources.resolve([sources.Layer(tomllib.loads(sources.write(settings)))]) == settings
    shape = EVENT_SHAPES[Path(settings.data.name).stem]
    x = torch.randint(2, (4, *shape)).float()  # black and white are levels, too
    short = [attrs.evolve(stage, epochs=1) for stage in settings.stages]
    training = Training(build(settings, x.mean(0)), short, x, batch_size=2)
    assert [epoch.stage for epoch in training.epochs()] == list(range(len(short)))


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    list_plugins("recipes")
    assert set(recipes()) <= set(capsys.readouterr().out.split())


def test_an_unknown_recipe_is_named() -> None:
    with pytest.raises(UsageError, match="no recipe digits-pretraind; did you mean 'digits-pretrained'"):
        sources.read(Path("digits-pretraind"))
