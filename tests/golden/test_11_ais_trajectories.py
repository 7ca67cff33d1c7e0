"""Log-weights of given annealing paths, forward (AIS) and in reverse (RAISE)."""

import pytest
from golden import Item, items, tensor
from machines import Played, machine
from torch import Tensor

from unibound.partition import annealing

AIS = pytest.importorskip("unibound_plugins.partition.ais").AIS
Raise = pytest.importorskip("unibound_plugins.partition.raise_").Raise
CASE = "11_ais_trajectories"


def path_of(item: Item) -> tuple[Tensor, Tensor, Played]:
    """States [T + 1, 1, V], temperatures [T + 1] and the machine."""
    rbm = machine(item.input["rbm"], item.input["base_visible_bias"], Played)
    return tensor(item.input["v"]).unsqueeze(1), tensor(item.input["betas"]), rbm


@pytest.mark.parametrize("item", items(CASE))
def test_log_weights(item: Item) -> None:
    path, betas, rbm = path_of(item)
    rbm.play(path)
    log_z = AIS(num_chains=1, betas=tuple(betas.tolist())).fit(rbm).log_z
    rbm.play(path.flip(0)[1:])
    raised = Raise(num_chains=1, betas=tuple(betas.tolist())).fit(rbm)
    item.check(
        ais_log_weight=annealing.path_log_weight(rbm, path, betas)[0],
        ais_log_Z_hat=log_z.value,
        raise_log_phat_of_last_v=raised.log_prob(path[-1])[0],
        log_f=[-rbm.free_energy(path[:, 0], beta) for beta in betas.tolist()],
    )


@pytest.mark.parametrize("item", items(CASE))
def test_the_rbms_own_sweep_weighs_the_same(item: Item) -> None:
    path, betas, _ = path_of(item)
    rbm = machine(item.input["rbm"], item.input["base_visible_bias"])
    # A step is weighed where it begins, so that one step at a time the path can be given.
    steps = [rbm.anneal(start, betas[k : k + 2])[1].item() for k, start in enumerate(path[:-1])]
    assert sum(steps) == pytest.approx(item.expected["ais_log_weight"], **item.tolerance)
