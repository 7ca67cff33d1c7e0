"""A run whose steps are compiled repeats, goes on to the same bits, and is refused where nothing can be compiled."""

import shutil
from pathlib import Path

import pytest
import torch
from running import Cli, Words

from unibound import Run, registries
from unibound.runs import checkpoint, compiled
from unibound.settings import sources
from unibound.testing.worlds import World


def weights(folder: str) -> dict[str, torch.Tensor]:
    return checkpoint.load_weights(checkpoint.newest(Path(folder) / "checkpoints"))


@pytest.mark.slow
def test_it_repeats_and_resumes_to_the_same_bits(cli: Cli, tiny: Words) -> None:
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("torch.compile needs a C++ compiler, g++ or clang++")
    result = cli(*tiny("compiled", batch_size=30), "--compile")  # one shape: each is compiled
    assert result.code == 0, result.err
    settings = sources.resolve([sources.read(Path("compiled/resolved.toml"))])
    assert settings.compile
    next(Run.create(Path("stopped"), settings).train())
    torch.compiler.reset()  # as in a process of its own
    assert cli("run", "--resume", "stopped").code == 0
    whole, resumed = weights("compiled"), weights("stopped")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
def test_what_is_recorded_in_graphs_says_the_same() -> None:
    """On a CPU nothing is recorded; that what is kept beyond a step is not what the next one writes to shows here."""
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("torch.compile needs a C++ compiler, g++ or clang++")
    world, vimco = World.of_bits(3), registries()["estimator"]["vimco"](num_particles=4)
    said = []
    for way in (compiled.compiled, compiled.graphed):
        torch.manual_seed(0)
        said.append([way(vimco)(world.joint, world.xs) for _ in range(2)])
    for one, other in zip(*said, strict=True):
        assert torch.equal(one.surrogate, other.surrogate)
        assert torch.equal(one.bound, other.bound)
        assert torch.equal(one.log_weights, other.log_weights)
    assert not torch.equal(said[1][0].bound, said[1][1].bound)


def test_it_is_refused_where_nothing_can_be_compiled(cli: Cli, tiny: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object, **__: object) -> object:
        raise RuntimeError("No working C++ compiler found\n(and much more)")

    monkeypatch.setattr(torch, "compile", without)
    result = cli(*tiny("refused"), "--compile")
    assert result.code == 2
    assert "compile needs what torch.compile needs for cpu, as a C++ compiler: No working C++ compiler" in result.err
    assert not Path("refused").exists()
