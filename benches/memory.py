"""How much memory a training step takes above the model, by the number of particles.

    python benches/memory.py           a table in a minute, of one thread; on Linux

Each number is the peak of one step that was made once before with few particles, less what the process held then; each
is of a process of its own, since an allocator gives back what it likes. VIMCO has the networks of the paper and an RBM,
IWAE the same networks and a normal prior; 50 data.
"""

import subprocess
import sys
from pathlib import Path

import torch
from bench_training import NUM_CHAINS, NUM_HIDDEN, WIDTHS

from unibound import registries

BATCH = 50
ROWS = [("vimco", {}), ("iwae", {"gradient": "standard"}), ("iwae", {"gradient": "dreg"})]
SIZES = (100, 400, 2000)


def megabytes(field: str) -> float:
    """Of this process: VmRSS is what it holds, VmHWM the most that it held since `forget`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def forget() -> None:
    """Have the most that this process held be what it holds."""
    Path("/proc/self/clear_refs").write_text("5")


def measured(row: int, num_particles: int) -> float:
    """Megabytes that a step takes at its peak."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    (name, settings), plugins = ROWS[row], registries()
    x = (torch.rand(BATCH, WIDTHS[0]) < 0.13).float()
    known, latents = plugins["prior"], (WIDTHS[-1],)
    if name == "vimco":
        prior, over = known["rbm"](latents, num_hidden=NUM_HIDDEN, num_chains=NUM_CHAINS), "bernoulli"
    else:
        prior, over = known["gaussian"](latents), "gaussian"
    model = plugins["model"]["mlp"](num_latents=WIDTHS[-1], hidden=tuple(WIDTHS[1:-1]), dropout=0.0)
    joint = model.build(prior, plugins["likelihood"]["bernoulli"](), plugins["likelihood"][over](), x.mean(0))

    def step(k: int) -> None:
        estimator = plugins["estimator"][name](num_particles=k, backward="resampled", **settings)
        joint.zero_grad()
        joint.advance()
        estimator(joint, x).surrogate.mean().backward()

    step(5)
    forget()
    before = megabytes("VmRSS")
    step(num_particles)
    return megabytes("VmHWM") - before


def main() -> None:
    print("| step | " + " | ".join(f"K = {k}" for k in SIZES) + " |")
    print("|---|" + "---:|" * len(SIZES))
    for row, (name, settings) in enumerate(ROWS):
        words = [[sys.executable, __file__, str(row), str(k)] for k in SIZES]
        found = [subprocess.run(each, capture_output=True, text=True, check=True).stdout for each in words]
        label = " ".join([name, *settings.values()])
        print(f"| {label} | " + " | ".join(f"{float(one):.0f} MB" for one in found) + " |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(measured(int(sys.argv[1]), int(sys.argv[2])))
    else:
        main()
