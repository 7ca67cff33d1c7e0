"""The free energy of an RBM and the products of bits behind it, against their definitions."""

from __future__ import annotations

import pytest
import torch

from unibound import kernels
from unibound.kernels import reference


def machine(visible, hidden, dtype=torch.float32):
    return [torch.randn(visible, hidden, dtype=dtype) * 0.1, *(torch.randn(n, dtype=dtype) for n in (visible, hidden))]


def value_and_gradients(path, v, parameters, weights):
    leaves = [p.clone().requires_grad_() for p in parameters]
    free = path.rbm_free_energy(v, *leaves)
    (free * weights).sum().backward()
    return [free.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize(("rows", "columns", "count"), [(1, 1, 1), (31, 33, 5), (33, 64, 40), (130, 7, 1030)])
def test_products_of_bits(compiled, rows, columns, count):
    from unibound.kernels import lookup

    bits, w, out = (torch.rand(count, rows) < 0.5).float(), torch.randn(rows, columns), torch.randn(count, columns)
    expected = out.double() + bits.double() @ w.double()
    transposed = out.clone()
    lookup.add_product(lookup.encoded(bits), lookup.packed(w), out.numpy())
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=1e-4)
    lookup.add_product(lookup.encoded(bits.T.contiguous().T), lookup.packed(w.T.contiguous().T), transposed.numpy())
    assert torch.equal(transposed, out)  # strides are no matter


@pytest.mark.parametrize(("visible", "hidden", "lead"), [(131, 129, (33,)), (129, 257, (3, 35)), (784, 500, (64,))])
def test_twin_has_the_value_and_gradients_of_the_reference(compiled, visible, hidden, lead):
    v, parameters, weights = (torch.rand(*lead, visible) < 0.3).float(), machine(visible, hidden), torch.rand(lead)
    got = value_and_gradients(compiled, v, parameters, weights)
    expected = value_and_gradients(reference, v.double(), [p.double() for p in parameters], weights.double())
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=2e-4)


def test_large_activations_neither_overflow_nor_lose_the_small(compiled):
    v = torch.ones(40, 130)
    weight = torch.zeros(130, 130)
    hidden_bias = torch.linspace(-1000, 1000, 130)
    got = compiled.rbm_free_energy(v, weight, torch.zeros(130), hidden_bias)
    exact = -torch.nn.functional.softplus(hidden_bias.double()).sum()
    torch.testing.assert_close(got.double(), exact.expand(40), rtol=1e-6, atol=0)


def test_what_bits_cannot_do_is_left_to_the_definition(compiled):
    parameters, v = machine(131, 129), (torch.rand(40, 131) < 0.3).float()
    relaxed = (0.5 * v).requires_grad_()
    free = compiled.rbm_free_energy(relaxed, *parameters)
    torch.testing.assert_close(free, reference.rbm_free_energy(relaxed, *parameters), rtol=0, atol=0)
    assert torch.autograd.grad(free.sum(), relaxed)[0].abs().sum() > 0
    tempered = {"beta": 0.3, "base_bias": torch.randn(131)}
    for states, options in ((v, tempered), (relaxed.detach(), {}), (v[:3], {})):
        got = compiled.rbm_free_energy(states, *parameters, **options)
        assert torch.equal(got, reference.rbm_free_energy(states, *parameters, **options))


def test_tempered_free_energy_is_minus_log_f():
    v, (weight, b, c), a = (torch.rand(6, 5) < 0.5).double(), machine(5, 3, torch.float64), torch.randn(5).double()
    free = kernels.rbm_free_energy(v, weight, b, c, beta=0.3, base_bias=a)
    log_f = v @ (0.7 * a + 0.3 * b) + torch.nn.functional.softplus(0.3 * (c + v @ weight)).sum(-1)
    torch.testing.assert_close(free, -log_f)
    with pytest.raises(ValueError, match="v must be"):
        kernels.rbm_free_energy(v[:, :4], weight, b, c)
