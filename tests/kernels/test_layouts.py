"""The sweeps of the GPU fit the chips they are for, as their compiler says; no GPU is needed for that."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch

SHARED = {80: 163 << 10, 89: 99 << 10, 90: 227 << 10}
"""Bytes of shared memory that one program may have, by compute capability (CUDA programming guide, table of technical
specifications)."""
SIZES = {"mnist": (200, 400), "digits": (20, 64), "pixels": (784, 500), "cifar": (1024, 2048)}
SPILLS = 4096  # bytes of a thread
COMPILE = """
import json, os, re, subprocess, sys, tempfile
import triton, triton.language as tl
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from unibound.kernels import fused

arch, visible, hidden, direction, chains, tile, most, warps = map(int, sys.argv[1:])
wide = max(16, triton.next_power_of_2(visible))
tile, block = fused._tile(tile, wide, hidden), fused._block(most, wide, chains, 100)
fixed = dict(DIRECTION=direction, PARTS=fused._PARTS, OPERAND=tl.bfloat16, V=wide, TILE=tile, BLOCK=block)
kinds = dict(seed="i64", chains="i32", visible="i32", hidden="i32", steps="i32", parts="*bf16", log_w_end="*fp64")
names = fused._sweep.arg_names
signature = {name: "constexpr" if name in fixed else kinds.get(name, "*fp32") for name in names}
aligned = [i for i, name in enumerate(names) if signature[name][0] == "*" or name == "hidden"]
even = {(i,): [["tt.divisibility", 16]] for i in aligned}
constants = {(names.index(name),): value for name, value in fixed.items()}
source = ASTSource(fn=fused._sweep, signature=signature, constexprs=constants, attrs=even)
options = dict(num_warps=warps, num_stages=1, maxnreg=fused._REGISTERS)
made = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
    file.write(made.asm["ptx"])
    file.flush()
    target = "sm_90a" if arch == 90 else f"sm_{arch}"
    words = [knobs.nvidia.ptxas.path, "-v", f"--gpu-name={target}", file.name, "-o", os.devnull]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stderr
print(json.dumps({
    "shared": made.metadata.shared,
    "spills": int(re.search(r"(\\d+) bytes spill stores", said)[1]),
    "registers": int(re.search(r"Used (\\d+) registers", said)[1]),
}))
"""


def compiled(arch: int, size: str, direction: int, chains: int, layout: tuple[int, int, int]) -> dict[str, int]:
    """What a sweep takes on a chip."""
    words = [sys.executable, "-c", COMPILE, *map(str, (arch, *SIZES[size], direction, chains, *layout))]
    plain = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    made = subprocess.run(words, capture_output=True, text=True, env=plain, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    return json.loads(made.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="compiling the kernels of a GPU needs triton")
@pytest.mark.parametrize(
    ("arch", "size", "direction", "chains"),
    [
        (90, "mnist", 1, 5000),
        (90, "mnist", -1, 5000),
        (90, "mnist", 0, 100),
        (90, "pixels", 1, 5000),
        (90, "cifar", 1, 5000),
        (80, "mnist", 1, 5000),
        (89, "mnist", 1, 5000),
        (89, "pixels", 1, 5000),
        (89, "digits", 1, 5000),
    ],
)
def test_a_layout_fits_each_chip(arch: int, size: str, direction: int, chains: int, fused: ModuleType) -> None:
    found = []
    for layout in fused._LAYOUTS:
        found.append(compiled(arch, size, direction, chains, layout))
        if found[-1]["shared"] <= SHARED[arch]:
            break
    assert found[-1]["shared"] <= SHARED[arch], found
    assert found[-1]["registers"] <= 255
    assert found[-1]["spills"] <= SPILLS
    if (arch, size) == (90, "mnist"):
        assert len(found) == 1  # the fastest layout


def test_a_block_is_as_narrow_as_lets_all_chains_run_at_once(fused: ModuleType) -> None:
    sizes = {chains: fused._block(64, 256, chains, 132) for chains in (1, 100, 2112, 2113, 5000, 10**6)}
    assert sizes == {1: 16, 100: 16, 2112: 16, 2113: 32, 5000: 64, 10**6: 64}
    assert fused._block(64, 1024, 10**6, 132) == 16


def machine() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    v = (torch.rand(4, 5) < 0.5).float()
    return v, torch.randn(5, 3), torch.randn(5), torch.randn(3), torch.randn(5)


def test_a_chip_that_holds_none_is_said_and_gets_plain_torch(
    fused: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def full(*given: object) -> None:
        tried.append(given[-3:])
        raise fused.OutOfResources(245760, 232448, "shared memory")

    monkeypatch.setattr(fused, "_launch", full)
    v, weight, visible, hidden, base = machine()
    betas = torch.linspace(0, 1, 4, dtype=torch.float64)
    for sweep, order in ((fused.rbm_ais, betas), (fused.rbm_reverse_ais, betas.flip(0))):
        with pytest.warns(UserWarning, match=r"no layout .* fits this GPU .*245760"):
            states, log_w = sweep(v, weight, visible, hidden, base, order)
        assert states.shape == (4, 5)
        assert log_w.isfinite().all()
    with pytest.warns(UserWarning, match="no layout"):
        assert fused.rbm_gibbs(v, weight, visible, hidden, 2).shape == (4, 5)
    assert tried[:4] == list(fused._LAYOUTS)


def test_a_smaller_layout_gives_states_of_the_same_machine(fused: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    launch, tried = fused._launch, []

    def small(*given: object) -> tuple[torch.Tensor, torch.Tensor]:
        tried.append(given[-3:])
        if given[-3:] != fused._LAYOUTS[-1]:
            raise fused.OutOfResources(1, 0, "shared memory")
        return launch(*given)

    monkeypatch.setattr(fused, "_launch", small)
    v, weight, visible, hidden, _ = machine()
    weight, visible, hidden = 0 * weight, 50 * torch.sign(visible), hidden  # the next state is certain
    if torch.cuda.is_available():
        v, weight, visible, hidden = (x.cuda() for x in (v, weight, visible, hidden))
    assert torch.equal(fused.rbm_gibbs(v, weight, visible, hidden, 1), (visible > 0).float().expand(4, 5))
    assert tried == list(fused._LAYOUTS)
