"""RBMs of reals and bits: log Z and its path, moments, and every gradient."""

import pytest
import torch
from golden import Item, items, tensor
from listing import bits, gradients
from torch import Tensor

GaussianRBM = pytest.importorskip("unibound_plugins.priors.gaussian_rbm").GaussianRBM
Exact = pytest.importorskip("unibound_plugins.partition.exact").Exact


def machine(item: Item):
    rbm = GaussianRBM.from_weights(*(tensor(item.input[name]) for name in ("W", "mu", "c", "sigma"))).double()
    state = {"weight": item.input["W"], "mean": item.input["mu"], "hidden_bias": item.input["c"]}
    given = {name: tensor(value) for name, value in state.items()}
    rbm.load_state_dict(given | {"log_scale": tensor(item.input["sigma"]).log()}, strict=False)
    return rbm


def log_z(rbm) -> Tensor:
    states = rbm.enumeration()
    return states.log_f(bits(states.num_digits)).logsumexp(0)


def log_z_at(rbm, beta: float) -> float:
    """On the path from the machine's own visible units: W and c scaled by beta, the quadratic term kept."""
    rbm.weight.data *= beta
    rbm.hidden_bias.data *= beta
    return Exact().fit(rbm).log_z.value


@pytest.mark.parametrize("item", items("28_gaussian_bernoulli_rbm"))
def test_machine(item: Item) -> None:
    rbm, v = machine(item), tensor(item.input["v"])
    exact = Exact().fit(rbm)
    weight, visible, hidden = rbm.machine()
    states = bits(hidden.num_units)
    means = visible.given(hidden.onto(states, weight.mT)).mean  # [S, V]
    p_h = (hidden.log_measure(states) + visible.log_partition(hidden.onto(states, weight.mT))).softmax(0)
    mean = p_h @ means
    names = {"W": rbm.weight, "mu": rbm.mean, "c": rbm.hidden_bias, "log_sigma": rbm.log_scale}
    item.check(
        log_Z=exact.log_z.value,
        free_energy=rbm.free_energy(v),
        log_p=exact.log_prob(v.unsqueeze(0))[0],
        p_h_by_state=p_h,
        mean_v_given_h_by_state=means,
        p_h_one_given_v=hidden.given(visible.onto(v, weight)).mean,
        mean_v=mean,
        var_v=visible.precision**-1 + p_h @ means.square() - mean.square(),
        grad_log_p=gradients(-rbm.free_energy(v) - log_z(rbm), names),
        log_Z_path={beta: log_z_at(machine(item), float(beta)) for beta in item.expected["log_Z_path"]},
    )


@pytest.mark.parametrize("item", items("28_gaussian_bernoulli_rbm"))
def test_the_annealing_path_is_that_one_from_its_own_base(item: Item) -> None:
    rbm = machine(item)
    for name, value in rbm.machine()[1].naturals.items():
        getattr(rbm, f"base_{name}").copy_(value.detach())
    assert rbm.base_log_z() == pytest.approx(item.expected["log_Z_path"]["0.0"], abs=1e-10)
    for beta in item.expected["log_Z_path"]:
        half = machine(item)
        half.weight.data *= float(beta)
        half.hidden_bias.data *= float(beta)
        v = tensor(item.input["v"]) * torch.linspace(-1, 2, 5).double().unsqueeze(1)
        assert torch.allclose(rbm.free_energy(v, float(beta)), half.free_energy(v), atol=1e-10)


@pytest.mark.parametrize("item", items("28_gaussian_bernoulli_rbm"))
def test_weights_of_the_other_convention_are_the_same_machine(item: Item) -> None:
    W, mu, c, sigma = (tensor(item.input[name]) for name in ("W", "mu", "c", "sigma"))
    other = GaussianRBM.from_weights(W / sigma.unsqueeze(1), mu, c, sigma, convention="scale")
    wrong = GaussianRBM.from_weights(W / sigma.unsqueeze(1), mu, c, sigma)  # sigma squared against sigma
    assert Exact().fit(other).log_z.value == pytest.approx(item.expected["log_Z"], abs=1e-5)
    assert abs(Exact().fit(wrong).log_z.value - item.expected["log_Z"]) > 0.1
