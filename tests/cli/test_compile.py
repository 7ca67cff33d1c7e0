"""A run whose steps are compiled repeats, goes on to the same bits, and is refused where nothing can be compiled."""

import shutil
from pathlib import Path

import pytest
import torch
from running import Cli, Words

from unibound import Run
from unibound.runs import checkpoint
from unibound.settings import sources


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


def test_it_is_refused_where_nothing_can_be_compiled(cli: Cli, tiny: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object, **__: object) -> object:
        raise RuntimeError("No working C++ compiler found\n(and much more)")

    monkeypatch.setattr(torch, "compile", without)
    result = cli(*tiny("refused"), "--compile")
    assert result.code == 2
    assert "compile needs what torch.compile needs for cpu, as a C++ compiler: No working C++ compiler" in result.err
    assert not Path("refused").exists()
