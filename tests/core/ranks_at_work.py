"""What one of several ranks finds, as a line of JSON: python ranks_at_work.py RANK SIZE STORE."""

import json
import sys

import torch
import torch.distributed as dist

from unibound import Estimate, Estimator, JointBound, UsageError, ranks
from unibound.data.binarization import batches
from unibound.evaluation.evaluate import evaluate
from unibound.runs.train import Training
from unibound.settings.records import Choice, Optimizer, Stage
from unibound.testing import World
from unibound.testing.priors import Rates


class Held(Estimator):
    """A surrogate whose draws are held fixed: each datum's latent follows from it."""

    def __call__(self, joint: JointBound, x: torch.Tensor) -> Estimate:
        tau = torch.stack([x.flatten(1)[:, 0], 1 - x.flatten(1)[:, 1]], 1).unsqueeze(0)
        log_w = joint.p.log_joint(x, tau) - joint.q(x).log_prob(tau)
        return Estimate(-log_w[0] * (1 + x.flatten(1).sum(1)), None, None, side="none")


def training(world: World) -> Training:
    stage = Stage(estimator=Choice("estimator", "held", Held, Held()), optimizer=Optimizer(algorithm="sgd"))
    return Training(world.joint, [stage], world.xs, batch_size=5)


def found(rank: int) -> dict[str, object]:
    torch.manual_seed(7)
    world = World.of_bits(3, Rates((2,)))
    ranks.part()
    run = training(world)
    x = world.xs[[0, 1, 3, 2, 1]]
    run.step(run.stages[0].estimator.settings, x[ranks.rows(torch.arange(5))])
    gradient = torch.cat([p.grad.flatten() for p in run.joint.parameters() if p.grad is not None])
    order = torch.cat(list(batches(torch.arange(11.0).unsqueeze(1), 4))).flatten()
    few = torch.cat(list(batches(torch.arange(1.0).unsqueeze(1), 4))).flatten()
    noise = torch.rand(())
    torch.manual_seed(3)
    evaluation = evaluate(world.joint, world.xs[:3].repeat(20, *[1] * (world.xs.dim() - 1)), num_particles=7)
    alike = torch.rand(())
    try:
        ranks.require_same("data", rank)
        said = ""
    except (UsageError, ranks.LostRankError) as error:
        said = f"{type(error).__name__}: {error}"
    return {
        "gradient": gradient.tolist(), "order": order.tolist(), "few": few.tolist(), "noise": noise.item(),
        "alike": alike.item(), "said": said, "bounds": [] if evaluation.bounds is None else evaluation.bounds.tolist(),
    }  # fmt: skip


if __name__ == "__main__":
    own, size, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=own, world_size=size)
    print(json.dumps(found(own)))
