"""What VIMCO makes of K log-weights, as functions and by the gradient that reaches chosen particles."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from golden import Item, items, tensor
from torch import Tensor

from unibound import Estimator, Particles, kernels, weights

NVIL = pytest.importorskip("unibound_plugins.estimators.nvil").NVIL
VIMCO = pytest.importorskip("unibound_plugins.estimators.vimco").VIMCO


def ascent(estimator: Estimator, log_w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Its bound of one datum, and the coefficients of grad log q and grad log p of K particles that weigh so [K]."""
    log_q = torch.zeros_like(log_w).unsqueeze(1).requires_grad_()  # [K, 1]
    log_p = log_w.unsqueeze(1).requires_grad_()
    x = log_w.new_zeros(1, 1)
    joint: Any = SimpleNamespace(particles=lambda x, k, **how: Particles(log_q, log_q, log_p))
    baseline = joint.auxiliary = estimator.auxiliary(joint, x)
    if baseline is not None:
        for parameter in baseline.double().parameters():
            parameter.data.zero_()
    estimate = estimator(joint, x)
    gradients = torch.autograd.grad(-estimate.surrogate.sum(), (log_q, log_p))
    return estimate.bound[0], *(gradient.squeeze(1) for gradient in gradients)


@pytest.mark.parametrize("item", items("07_vimco_coefficients"))
def test_functions_of_log_weights(item: Item) -> None:
    log_w = tensor(item.input["log_w"]).unsqueeze(1)  # [K, 1]
    if len(log_w) == 1:  # there are no others to be compared with
        with pytest.raises(ValueError, match="at least 2 particles"):
            weights.vimco_signal(log_w)
        return
    signal, w_norm = weights.vimco_signal(log_w), weights.normalized(log_w)
    got = {
        "baseline": kernels.leave_one_out(log_w),
        "wtilde": w_norm,
        "phi_coeff": signal - w_norm,
        "signal": signal,
    }
    item.check(L_hat=weights.log_mean_exp(log_w)[0], **{name: value.squeeze(1) for name, value in got.items()})


@pytest.mark.parametrize("item", items("07_vimco_coefficients"))
def test_gradients_of_estimators(item: Item) -> None:
    log_w = tensor(item.input["log_w"])
    if len(log_w) > 1:
        bound, phi, w_norm = ascent(VIMCO(num_particles=len(log_w)), log_w)
        signal = phi + w_norm
    else:  # nvil, its baseline at 0; it leaves out the -1 of the density, whose mean is 0
        bound, signal, w_norm = ascent(NVIL(), log_w)
        phi = signal - w_norm
    item.check(L_hat=bound, baseline=bound - signal, wtilde=w_norm, phi_coeff=phi, signal=signal)
