"""A run is not lost and not mistaken for another: damage, two owners, edited settings, numbers that overflow."""

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import attrs
import pytest
import torch
from hurting import WAYS, Hurt, files
from running import Cli, Words, refused, start, wait_for

from unibound import Run, disk
from unibound.runs import checkpoint
from unibound.settings import sources


def weights(folder: str) -> dict[str, torch.Tensor]:
    return checkpoint.load_weights(checkpoint.newest(Path(folder) / "checkpoints"))


def numbers(folder: str) -> dict[str, object]:
    document = json.loads(Path(folder, "evaluation.json").read_text())
    return {name: value for name, value in document.items() if name not in ("seconds", "run_dir")}


@pytest.fixture
def stopped(cli: Cli, tiny: Words) -> str:
    """A run that was stopped after two of three epochs; beside it one that was not."""
    assert cli(*tiny("whole", epochs=3)).code == 0
    epochs = Run.create("run", sources.resolve([sources.read(Path("whole/resolved.toml"))])).train()
    next(epochs)
    next(epochs)
    epochs.close()
    return "run"


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_is_hurt_ends_with_the_same_bits_or_in_one_line(cli: Cli, stopped: str, way: Hurt) -> None:
    chance = random.Random(way.__name__)
    shutil.copytree(stopped, "kept")
    for path in chance.sample(files(Path(stopped)), 4):
        content = path.read_bytes()
        path.write_bytes(way(content, chance))
        result = cli("run", "--resume", stopped)
        if result.code == 0:
            kept, wanted = weights(stopped), weights("whole")
            assert all(torch.equal(kept[name], wanted[name]) for name in wanted), path
            assert numbers(stopped) == numbers("whole"), path
            assert len(Path(stopped, "metrics.jsonl").read_text().splitlines()) == 3
        else:
            # A data path that was hurt is first said to be another, and then not found.
            refused(attrs.evolve(result, err=result.err.splitlines(keepends=True)[-1]))
            assert all(line.startswith("unibound: ") for line in result.err.splitlines())
        shutil.rmtree(stopped)
        shutil.copytree("kept", stopped)


def test_damage_falls_back_on_the_checkpoint_before_and_says_so(cli: Cli, stopped: str) -> None:
    Path(stopped, "checkpoints/000002/state.pt").write_bytes(b"")
    result = cli("run", "--resume", stopped)
    assert result.code == 0
    assert "000002/state.pt is damaged" in result.err
    assert "going on from 000001" in result.err
    assert numbers(stopped) == numbers("whole")


def test_empty_settings_do_not_stand_for_all_defaults(cli: Cli, tiny: Words, stopped: str) -> None:
    Path(stopped, "resolved.toml").write_bytes(b"")
    result = cli("run", "--resume", stopped)
    assert "resolved.toml is missing or damaged; the settings are those that" in result.err
    assert numbers(stopped) == numbers("whole")
    Run.create("new", sources.resolve([sources.read(Path("whole/resolved.toml"))]))
    Path("new/resolved.toml").write_bytes(b"")
    refused(cli("run", "--resume", "new"), "new/resolved.toml is not what was written")
    Path("new/SHA256SUMS").unlink()
    refused(cli("run", "--resume", "new"), "new/resolved.toml is empty or cut short")


def test_edited_settings_are_refused_but_for_where_things_are(cli: Cli, stopped: str) -> None:
    path = Path(stopped, "resolved.toml")
    text = path.read_text()
    path.write_text(text.replace("seed = 0", "seed = 3"))
    refused(cli("run", "--resume", stopped), "seed was 0 and is 3", "--run-dir NEW")
    Path("data.npz").rename("moved.npz")
    path.write_text(text.replace("data.npz", "moved.npz"))
    result = cli("run", "--resume", stopped)
    assert result.code == 0, result.err
    assert "data.name was" in result.err
    assert numbers(stopped) == numbers("whole")


def test_other_kernels_are_said(cli: Cli, stopped: str) -> None:
    for folder in checkpoint.finished(Path(stopped, "checkpoints")):
        about = json.loads((folder / "about.json").read_text())
        about["numerics"]["torch"] = "1.0"
        sums = (folder / "SHA256SUMS").read_text().splitlines()
        (folder / "about.json").write_text(json.dumps(about))
        kept = [line for line in sums if "about.json" not in line]
        digest = subprocess.run(["sha256sum", "about.json"], cwd=folder, capture_output=True, text=True).stdout.strip()
        (folder / "SHA256SUMS").write_text("".join(f"{line}\n" for line in [*kept, digest]))
    assert "with torch 1.0, and goes on with torch" in cli("run", "--resume", stopped).err


def test_a_new_run_beside_old_checkpoints_is_refused(cli: Cli, tiny: Words, stopped: str) -> None:
    Path(stopped, "resolved.toml").unlink()
    refused(cli(*tiny(stopped)), "run holds checkpoints of another run")
    assert len(checkpoint.finished(Path(stopped, "checkpoints"))) == 2


def test_resume_of_nothing_says_that_it_begins_anew(cli: Cli, stopped: str) -> None:
    shutil.rmtree(Path(stopped, "checkpoints"))
    result = cli("run", "--resume", stopped)
    assert "holds no checkpoint; --resume begins anew" in result.err
    assert numbers(stopped) == numbers("whole")


def test_a_folder_has_one_owner(cli: Cli, tiny: Words) -> None:
    process = start(tiny(epochs=100_000))
    wait_for(Path("run/checkpoints/000001"), process)
    refused(cli("run", "--resume", "run"), f"run is being trained by process {process.pid} on ")
    process.kill()
    process.wait()


def test_runs_that_begin_at_once_get_a_folder_each(cli: Cli, tiny: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    words = tiny()
    at = words.index("--run-dir")
    words = [*words[:at], *words[at + 2 :]]
    from unibound.runs import folder

    class Stopped(folder.datetime):
        @classmethod
        def now(cls, tz: object = None) -> "Stopped":
            return cls(2026, 1, 1)

    monkeypatch.setattr(folder, "datetime", Stopped)
    for _ in range(3):
        assert cli(*words).code == 0
    stamp = "vimco-rbm-data-seed0-20260101-000000"
    assert {path.name for path in Path("runs").iterdir()} == {stamp, f"{stamp}+2", f"{stamp}+3"}


@pytest.mark.parametrize(
    ("of", "name"),
    [
        ("optimizer", "exp_avg_sq in the optimizer of q"),
        ("momentum", "the momentum in the optimizer of q, generator, prior would carry weights as far as 2e+2"),
        ("weights", "q has weights up to 1e+20"),
        ("chains", "p.prior.chains"),
    ],
    ids=lambda value: value.split()[0],
)
def test_what_is_not_finite_is_not_kept(
    cli: Cli, tiny: Words, monkeypatch: pytest.MonkeyPatch, of: str, name: str
) -> None:
    from unibound.runs.train import Training

    step = Training.step

    def overflowing(self: Training, *words: object) -> object:
        found = step(self, *words)  # pyright: ignore
        if self.epoch == 1:
            optimizer = next(iter(self.optimizers.values()))
            moments = next(iter(optimizer.state.values()))
            if of == "chains":
                self.joint.p.unnormalized.chains.fill_(float("inf"))  # pyright: ignore
            elif of == "weights":
                next(self.joint.q.parameters()).data.fill_(1e20)
            elif of == "momentum":
                moments["momentum_buffer"].fill_(1e25)  # finite, and the next step is not
            else:
                optimizer.state[next(self.joint.q.parameters())]["exp_avg_sq"].fill_(float("inf"))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", overflowing)
        more = {"optimizer__algorithm": "sgd", "optimizer__momentum": 0.9} if of == "momentum" else {}
        result = cli(*tiny(epochs=3, **more))
    assert result.code == 3
    assert "epoch 2, step " in result.err
    assert name in result.err
    assert checkpoint.newest(Path("run/checkpoints")).name == "000001"
    assert cli("run", "--resume", "run").code == 0


def test_streams_are_written_to_and_links_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    disk.write(link, b"new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    disk.write(pipe, b"words")
    assert os.read(reader, 10) == b"words"
    assert pipe.is_fifo()


def test_files_have_the_mode_of_the_umask(cli: Cli, tiny: Words) -> None:
    before = os.umask(0o027)
    try:
        assert cli(*tiny()).code == 0
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in files(Path("run"))} == {0o640}
