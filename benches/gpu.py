"""All that a GPU must show, in minutes: what is computed agrees, and what it costs beside the same by hand.

    python benches/gpu.py                    on a GPU; writes benches/results/<its name>.json
    TRITON_INTERPRET=1 python benches/gpu.py --tiny --device cpu --out FILE      that it runs, anywhere; no figures

Each part is timed against the same mathematics written out by hand, in turn. Sweeps too long for their share of the
time are cut, and the rest is counted at their pace: `done` says how much was run. Each part is a process of its own,
since an error on the GPU is the end of a process there, and the file is written after each: whatever ends the script
early leaves what was measured, and a part that fails stands in it with its error.
"""

import argparse
import json
import math
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from bench_training import WIDTHS, make_training
from results import FOLDER, machine
from torch import Tensor
from torch.nn.functional import softplus

from unibound import Run
from unibound.kernels import fused, reference
from unibound.runs import compiled
from unibound.runs.train import Training
from unibound.settings import sources
from unibound.testing.by_hand import Machine, VimcoRBM
from unibound.testing.listing import all_bits
from unibound.testing.verdict import FALSE_ALARM, chi_square

LAYOUT = "chains as columns, in registers; units as rows, the weight in two parts of bfloat16"


@attrs.frozen
class Sizes:
    """How large everything is, and how many seconds the sweeps may take."""

    units: tuple[int, int] = (200, 400)
    chains: int = 5000
    temperatures: int = 100_000
    block: int = 1000
    raised: tuple[int, int, int] = (10_000, 100, 1000)  # data, chains of each, temperatures
    raised_block: int = 50_000
    particles: tuple[int, ...] = (10, 50)
    batch: int = 100
    product: int = 8192
    rounds: int = 20
    draws: int = 100_000
    epochs: int = 10
    seconds: float = 60.0


TINY = Sizes((5, 6), 32, 8, 4, (3, 2, 4), 4, (2,), 4, 16, 1, 400, 1, 5.0)


def clock(device: str, work: Callable[[], object]) -> float:
    """Seconds that some work takes, all of it done."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def race(device: str, systems: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each, taken in turn after three rounds that do not count."""
    times: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(rounds + min(rounds, 3)):
        for name, system in systems.items():
            times[name].append(clock(device, system))
    return {name: 1e3 * statistics.median(taken[-rounds:]) for name, taken in times.items()}


def on(device: str, units: tuple[int, int], chains: int) -> Machine:
    """A random machine and its chains there."""
    return Machine(*(value.to(device) for value in attrs.astuple(Machine.random(*units, chains), recurse=False)))


def agreement(device: str, sizes: Sizes) -> dict[str, Any]:
    """Values and gradients of the kernels against plain torch, and log Z by annealing against the sum over states."""
    logits = torch.randn(4, sizes.batch, 784, device=device, requires_grad=True)
    bits, log_w = (torch.rand(sizes.batch, 784, device=device) < 0.3).float(), 9 * torch.randn(50, 7, device=device)
    ours, theirs = (path.bernoulli_log_prob(logits, bits) for path in (fused, reference))
    pairs = {
        "bernoulli_log_prob": (ours, theirs),
        "its gradient": tuple(torch.autograd.grad(value.sum(), logits)[0] for value in (ours, theirs)),
        "leave_one_out": (fused.leave_one_out(log_w), reference.leave_one_out(log_w)),
    }
    apart = {name: (a - b).abs().max().item() for name, (a, b) in pairs.items()}
    small = on(device, (6, 5), sizes.draws // 4)
    betas = torch.linspace(0, 1, min(100, sizes.temperatures) + 1, dtype=torch.float64)
    every = all_bits((6,)).float().to(device)
    exact = (-reference.rbm_free_energy(every, *small.parameters).double()).logsumexp(0).item()
    found = fused.rbm_ais(small.v, *small.parameters, torch.zeros(6, device=device), betas)[1]
    # Of the machine at beta 0: 6 fair visible bits and 5 hidden ones.
    ratio = (found + 11 * math.log(2) - exact).exp()  # has mean 1
    sigmas = abs(ratio.mean().item() - 1) / (ratio.std().item() / len(ratio) ** 0.5)
    agrees = max(apart.values()) < 1e-3 and sigmas < FALSE_ALARM
    return {"agrees": agrees, "largest difference": apart, "log Z": exact, "standard errors from it": sigmas}


def transitions(device: str, sizes: Sizes) -> dict[str, Any]:
    """Where chains go in three steps, against the exact transition probabilities of a machine that can be listed."""
    small = on(device, (3, 4), 1)
    weight, b, c = (value.double().cpu() for value in small.parameters)
    v, h = all_bits((3,)).double(), all_bits((4,)).double()
    up, down = torch.sigmoid(c + v @ weight), torch.sigmoid(b + h @ weight.T)
    to_h = torch.where(h[None] > 0, up[:, None], 1 - up[:, None]).prod(-1)
    to_v = torch.where(v[None] > 0, down[:, None], 1 - down[:, None]).prod(-1)
    law = torch.linalg.matrix_power(to_h @ to_v, 3)
    found = []
    for start in (0, 5):
        end = fused.rbm_gibbs(v[start].float().to(device).repeat(sizes.draws, 1), *small.parameters, 3)
        codes = (end.cpu()[:, None] == v[None].float()).all(-1).long().argmax(1)
        found.append(chi_square(codes, law[start]))
    return {"agrees": all(value < limit for value, limit in found), "chi square, limit": found}


def by_hand(device: str, m: Machine, betas: Tensor) -> Callable[[], object]:
    """One temperature of annealing in place, recorded as a CUDA graph where there is one; betas [T + 1]."""
    v, (w, b, c) = m.v.clone(), m.parameters
    at, betas = torch.zeros(1, dtype=torch.long, device=device), betas.to(device, torch.float32)
    log_w = torch.zeros(len(v), dtype=torch.float64, device=device)
    h, seen = v.new_empty(len(v), len(c)), torch.empty_like(v)

    @torch.no_grad()
    def step() -> None:
        cold, warm = betas[at], betas[at + 1]
        x = torch.addmm(c, v, w)
        log_w.add_((warm - cold) * (v @ b) + (softplus(warm * x) - softplus(cold * x)).sum(1))
        h.uniform_().lt_(torch.sigmoid(warm * x))
        torch.sigmoid(warm * torch.addmm(b, h, w.T), out=seen)
        v.uniform_().lt_(seen)
        at.add_(1).remainder_(len(betas) - 1)

    if device != "cuda":
        return step
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return lambda: (graph.replay(), step)  # which keeps the tensors that the graph reads


def annealing(device: str, sizes: Sizes) -> dict[str, Any]:
    """AIS beside the loop by hand and the floor: its products alone, at the pace of the largest there is."""
    m = on(device, sizes.units, sizes.chains)
    betas, base = torch.linspace(0, 1, sizes.temperatures + 1, dtype=torch.float64), torch.zeros_like(m.visible_bias)
    step, v, taken, done = by_hand(device, m, betas), m.v, 0.0, 0
    fused.rbm_ais(v, *m.parameters, base, betas[:2])  # compiled before it is timed
    for start in range(0, sizes.temperatures, sizes.block):
        part = betas[start : start + sizes.block + 1]
        taken += clock(device, lambda part=part: fused.rbm_ais(v, *m.parameters, base, part))
        done += len(part) - 1
        if taken > sizes.seconds:
            break
    few = min(sizes.block, sizes.temperatures)
    loop = clock(device, lambda: [step() for _ in range(few)]) / few
    square = torch.randn(sizes.product, sizes.product, device=device, dtype=torch.bfloat16)
    pace = 2 * sizes.product**3 / (race(device, {"": lambda: square @ square}, sizes.rounds)[""] / 1e3)
    visible, hidden = sizes.units
    floor = 2 * 2 * 2 * visible * hidden * sizes.chains / pace  # two products of two parts
    each = taken / done
    return {
        "seconds": each * sizes.temperatures,
        "done": done / sizes.temperatures,
        "of the graphed loop": each / loop,
        "of the floor": each / floor,
        "Tflop/s of a product": pace / 1e12,
        "layout": LAYOUT,
    }


def reverse(device: str, sizes: Sizes) -> dict[str, Any]:
    """RAISE: chains that begin at data and are annealed to the base, many at once."""
    data, each, temperatures = sizes.raised
    total, betas = data * each, torch.linspace(1, 0, temperatures + 1, dtype=torch.float64)
    m, taken, done = on(device, sizes.units, min(total, sizes.raised_block)), 0.0, 0
    base = torch.zeros_like(m.visible_bias)
    fused.rbm_reverse_ais(m.v, *m.parameters, base, betas[:2])
    while done < total and taken <= sizes.seconds:
        v = m.v[: total - done]
        taken += clock(device, lambda v=v: fused.rbm_reverse_ais(v, *m.parameters, base, betas))
        done += len(v)
    return {
        "seconds": taken * total / done,
        "done": done / total,
        "ns of a chain and temperature": 1e9 * taken / done / temperatures,
    }


def training(device: str, sizes: Sizes) -> dict[str, Any]:
    """A step of VIMCO with the paper's networks and an RBM, sent back all and resampled, beside the loop by hand."""
    rows = {}
    x = (torch.rand(sizes.batch, 784) < 0.13).float()
    there = x.to(device)
    for k in sizes.particles:
        loop = moved(VimcoRBM(WIDTHS, 400, k, 5, 100), device)
        made, estimator = make_training(x, k, 5)
        ours = moved_training(made, there)
        systems: dict[str, Callable[[], object]] = {"hand": lambda loop=loop: loop.step(there)}
        for backward in ("all", "resampled"):
            way = attrs.evolve(estimator, backward=backward)
            systems[backward] = lambda ours=ours, way=way: ours.step(way, there)
        found = race(device, systems, sizes.rounds)
        rows[f"K = {k}"] = {"ms": found, "of hand": {n: found[n] / found["hand"] for n in ("all", "resampled")}}
    return rows


def compiling(device: str, sizes: Sizes) -> dict[str, Any]:
    """The same step by itself, as torch.compile has it, and recorded in CUDA graphs; of the most particles."""
    if device != "cuda":
        torch.compiler.set_stance("force_eager")  # that it runs, not what it gains
    rows = {}
    x = (torch.rand(sizes.batch, 784) < 0.13).float()
    there = x.to(device)
    ways = {"by itself": compiled.as_it_is, "compiled": compiled.compiled, "graphed": compiled.graphed}
    for backward in ("all", "resampled"):
        systems: dict[str, Callable[[], object]] = {}
        for name, way in ways.items():
            made, estimator = make_training(x, sizes.particles[-1], 5)
            ours, estimator = moved_training(made, there), attrs.evolve(estimator, backward=backward)
            ours._called = way
            systems[name] = lambda ours=ours, estimator=estimator: ours.step(estimator, there)
        found = race(device, systems, sizes.rounds)
        rows[backward] = {"ms": found, "of itself": {name: ms / found["by itself"] for name, ms in found.items()}}
    return rows


def moved(loop: VimcoRBM, device: str) -> VimcoRBM:
    """A loop by hand whose tensors are there, with the optimizer of the parameters there."""
    loop.q, loop.g, loop.chains = loop.q.to(device), loop.g.to(device), loop.chains.to(device)
    for name in ("w", "b", "c"):
        setattr(loop, name, torch.nn.Parameter(getattr(loop, name).detach().to(device)))
    parameters = [*loop.q.parameters(), *loop.g.parameters(), loop.w, loop.b, loop.c]
    loop.optimizer = torch.optim.AdamW(parameters, 1e-3, weight_decay=0.0, fused=True)
    return loop


def moved_training(training: Training, x: Tensor) -> Training:
    """The same of a `Training`, whose data are x [B, *X], there."""
    return Training(training.joint.to(x.device), training.stages, x, batch_size=len(x))


def recipe(device: str, sizes: Sizes) -> dict[str, Any]:
    """A recipe shortened, from data to a result: the digits that come with scikit-learn, an RBM, VIMCO."""
    chosen = {"data": "digits", "device": device, "prior": {"name": "rbm", "num_hidden": 64}, "num_particles": 100}
    stage = {"epochs": sizes.epochs, "estimator": {"name": "vimco", "num_particles": 10}}
    partition = {"name": "ais", "num_chains": 100, "num_temperatures": 100}
    settings = sources.resolve([sources.Layer(chosen | stage | {"partition": partition})])
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", settings)
        seconds = clock(device, lambda: [None for _ in run.train()])
        result = run.finish(seconds)
    return {"seconds of training": seconds, "nll": result.nll, "agrees": math.isfinite(result.nll)}


PARTS = (agreement, transitions, annealing, reverse, training, compiling, recipe)


def main(words: list[str] | None = None) -> bool:
    """Run every part, and write the file; whether none failed or disagreed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", help="one part, here and now, into a file that may have others")
    given = parser.parse_args(words)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here; --tiny --device cpu, with TRITON_INTERPRET=1, shows that the script runs")
    name = torch.cuda.get_device_name() if given.device == "cuda" else "cpu"
    out = given.out or FOLDER / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
    if given.only:
        (part,) = [part for part in PARTS if part.__name__ == given.only]
        return note(out, given.only, measure(part, given))
    out.write_text(json.dumps({"machine": {"device": name, "tiny": given.tiny, **machine()}, "parts": {}}))
    fine = []
    for part in PARTS:
        again = ["--device", given.device, "--out", str(out), "--only", part.__name__, *["--tiny"] * given.tiny]
        code = subprocess.run([sys.executable, __file__, *again], check=False).returncode
        if part.__name__ not in json.loads(out.read_text())["parts"]:
            note(out, part.__name__, {"agrees": False, "error": f"its process ended with exit code {code}"})
        fine.append(code == 0)
    return all(fine)


def measure(part: Callable[[str, Sizes], dict[str, Any]], given: argparse.Namespace) -> dict[str, Any]:
    """What a part found, or why it could not."""
    torch.manual_seed(0)
    start = time.perf_counter()
    try:
        row = part(given.device, TINY if given.tiny else Sizes())
    except Exception as error:  # what one part cannot do is no reason to lose the others
        row = {"agrees": False, "error": f"{type(error).__name__}: {error}"[:300]}
    return row | {"took": time.perf_counter() - start}


def note(out: Path, name: str, row: dict[str, Any]) -> bool:
    """Add a part to the file; whether it is one that agrees."""
    found = json.loads(out.read_text()) if out.exists() else {"parts": {}}
    found["parts"][name] = row
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{name}: {json.dumps(row)}", flush=True)
    return row.get("agrees", True)


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
