"""Whatever is typed or read ends in a number or in one line: no traceback, and no JSON that is none."""

import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from running import SCRIPT, TINY, Cli, Words, refused, words_of

from unibound.cli.app import room_asked
from unibound.report import page
from unibound.runs import metrics

OUT_OF_RANGE = {
    "seed": 2**63,
    "threads": 10**6,
    "model.num-latents": 10**12,
    "prior.num-hidden": 10**12,
    "prior.num-chains": 2**63 - 1,
    "batch-size": 0,
    "num-particles": -1,
    "partition.state": "chains",
    "partition.target-stderr": -1,
}


@pytest.mark.parametrize("flag", OUT_OF_RANGE)
def test_a_run_out_of_range_or_of_memory_is_one_line(flag: str, tiny: Words, cli: Cli) -> None:
    words = [*tiny(), f"--{flag}={OUT_OF_RANGE[flag]}"]
    kept = [word for index, word in enumerate(words) if not _is(words, index, flag)]
    result = cli(*kept)
    assert result.code in (1, 2), result
    assert result.err.startswith("unibound: ")
    assert result.err.count("\n") == 1
    assert not Path("run").exists()


def _is(words: list[str], index: int, flag: str) -> bool:
    """Whether a word is the flag as it stood there before, or its value."""
    return words[index] == f"--{flag}" or (index > 0 and words[index - 1] == f"--{flag}")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("evaluate run --num-particles 0", "at least 1"),
        ("evaluate run --partition.state nowhere/chains", "no existing folder"),
        ("evaluate run --partition.state .", "is a folder"),
        ("evaluate run --partition.target-stderr 0.1 --partition.num-chains 1", "or leave target_stderr out"),
        ("evaluate run --partition.target-stderr 0.1 --partition.max-chains 1", "or leave target_stderr out"),
        ("diagnose run --num-particles 0", "at least 1"),
        ("diagnose run --count -1", "at least 1"),
        ("sample run --count 0", "at least 1"),
        ("sample run --count 9223372036854775808", "at most 100000"),
        ("certify run --seed -1", "at least 0"),
        ("certify run --seed 9223372036854775808", "at most 9223372036854775807"),
        ("certify run --threads 9223372036854775807", "at most 1024"),
        ("certify run --num-chains 0", "at least 1"),
        ("certify run --raise-cases -1", "at least 0"),
    ],
)
def test_looks_out_of_range_are_one_line(words: str, part: str, tiny: Words, cli: Cli) -> None:
    assert cli(*tiny()).code == 0
    result = cli(*words.split())
    assert result.code == 2, result
    assert result.out == ""
    assert part in result.err.splitlines()[-1]


def test_chains_are_added_until_the_error_bar_is_small_and_it_is_said(tiny: Words, cli: Cli) -> None:
    cli(*tiny())
    words = "evaluate run --num-particles 3 --partition.num-chains 2 --partition.target-stderr 1e-9"
    result = cli(*words.split(), "--partition.max-chains", 100)
    assert result.code == 0, result.err
    said = [line.split()[0] for line in result.err.splitlines() if "chains: standard error" in line]
    assert said == ["2", "4", "8", "16", "32", "64", "100"]  # few looks, whatever is asked for


def test_a_single_chain_is_evaluated_without_an_error_bar(tiny: Words, cli: Cli) -> None:
    cli(*tiny())
    result = cli("evaluate", "run", "--num-particles", 3, "--partition.num-chains", 1, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out, parse_constant=pytest.fail)


def test_a_terminal_of_plain_letters_is_shown_plain_letters(tiny: Words) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "UNIBOUND_KERNELS": "reference"}
    done = subprocess.run([SCRIPT, *tiny()], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert b" +- " in done.stdout


def test_only_a_want_of_memory_is_taken_for_one() -> None:
    assert room_asked(MemoryError()) == "MemoryError"
    assert room_asked(RuntimeError("Storage size calculation overflowed with sizes=[3]"))
    assert room_asked(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert room_asked(ValueError("too many values to unpack")) is None


def test_a_report_has_the_bounds_that_everybody_is_told() -> None:
    # log Z moves, so that what lies between two looks tells the last one from any other rule.
    lines = [{"done": i, "bound": -50.0, "log_z": float(i) if i % 10 == 1 else None} for i in range(1, 20_001)]
    found = page.normalized_bounds(lines)
    assert found == {line["done"]: line["bound"] for line in metrics.normalized(lines)}
    assert [found[i] for i in (1, 10, 11, 20_000)] == [-51.0, -51.0, -61.0, -20_041.0]


def damaged(seed: int, data: bytes) -> bytes:
    """The bytes of a file, some of them changed, lost or doubled."""
    rng, content = random.Random(seed), bytearray(data)
    for _ in range(rng.choice([1, 1, 3])):
        place = rng.randrange(len(content))
        match rng.randrange(4):
            case 0:
                content[place] ^= 1 << rng.randrange(8)
            case 1:
                del content[place : place + rng.choice([1, 100])]
            case 2:
                content[place:place] = bytes(rng.randrange(256) for _ in range(20))
            case _:
                content[place : place + 64] = bytes(64)
    return bytes(content)


TYPES = ["?", "u1", "i1", "i8", "f2", "f4", "f8", "c8", "U3", "M8[s]", ">i2", "g"]


@pytest.mark.parametrize("seed", range(24))
def test_data_files_of_any_kind_are_used_or_refused(seed: int, cli: Cli) -> None:
    rng = np.random.default_rng(seed)
    kinds: list[Callable[[], np.ndarray]] = [
        lambda: (rng.random((20, 5)) < 0.4).astype(rng.choice(TYPES)),
        lambda: rng.normal(size=(20, 5)) * 10.0 ** rng.choice([0, 39, 300]),
        lambda: rng.poisson(2, (20, 5)).astype(np.uint8),
        lambda: rng.integers(0, 256, (20, 5)).astype(np.uint8),
    ]
    x, file = kinds[seed % 4](), io.BytesIO()
    more = {"levels": rng.choice([2, 17, 0, 256])} if seed % 3 == 0 else {"n_pixels": 5} if seed % 5 == 0 else {}
    np.savez(file, train=x, valid=x, test=x, **more)
    Path("data.npz").write_bytes(damaged(seed, file.getvalue()) if seed % 2 else file.getvalue())
    np.savez("rbm.npz", W=rng.normal(size=(5, 2)), vbias=np.zeros(5), hbias=np.zeros(2))
    tiny = {**TINY, "data": "data.npz", "run-dir": "run", "epochs": "1"}
    certify = "certify --rbm rbm.npz --data data.npz --num-chains 4 --temperatures 5 --raise-cases 2 --json"
    for result in (cli("run", *words_of(tiny), "--json"), cli(*certify.split())):
        assert result.code in (0, 1, 2), result
        if result.code == 2:
            refused(result)
        elif result.out:
            json.loads(result.out, parse_constant=pytest.fail)


def test_an_interrupt_that_a_library_would_swallow_while_it_is_imported_ends_all() -> None:
    Path("swallowing.py").write_text(
        "import os, signal, time\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(1)\n"
        "except KeyboardInterrupt:\n"
        "    pass\n"
    )
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from unibound import cli\nfrom unibound.cli import app\n"
        "app.main = lambda words: print(__import__('swallowing'))\n"
        "cli.main([])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "unibound: interrupted\n")
