"""The free energy of an RBM and the products of bits behind it, against their definitions."""

from __future__ import annotations

import pytest
import torch

from unibound import kernels
from unibound.kernels import reference
from unibound.testing.verdict import FALSE_ALARM


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


def certain(visible, hidden, count):
    """Bits and a machine whose every draw is certain."""
    v = (torch.rand(count, visible) < 0.5).float()
    weight, b, c = (torch.randint(-2, 3, size).float() for size in ((visible, hidden), (visible,), (hidden,)))
    return v, [1000 * weight, 1000 * b + 400, 1000 * c + 400]


@pytest.mark.parametrize(("visible", "hidden", "count"), [(131, 129, 33), (784, 500, 64), (129, 257, 40)])
@pytest.mark.parametrize("steps", [1, 3])
def test_contrast_of_certain_chains_is_the_definition(twin, visible, hidden, count, steps):
    if twin.__name__.endswith("fused") and visible * steps > 200:
        pytest.skip("the interpreter takes its time")
    v, parameters = certain(visible, hidden, count)
    leaves = [p.clone().requires_grad_() for p in parameters]
    got, expected = twin.rbm_contrast(v, *leaves, steps), reference.rbm_contrast(v, *leaves, steps)
    weights = torch.rand(2, count)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1)
    slopes = [torch.autograd.grad((torch.stack(both) * weights).sum(), leaves) for both in (got, expected)]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)
    assert not torch.equal(reference.rbm_gibbs(v, *parameters, steps), v)


def test_contrast_moves_as_gibbs_does(backend):
    """Over chains that begin alike: equal means of the ends' free energy, within what draws let them differ."""
    count = 64 if backend.__name__.endswith("fused") else 2000
    v, parameters = (torch.rand(1, 131) < 0.3).float().expand(count, -1).contiguous(), machine(131, 129)
    start, end = backend.rbm_contrast(v, *parameters, 2)
    exact = reference.rbm_free_energy(v, *parameters)
    torch.testing.assert_close(start, exact, rtol=1e-5, atol=1e-3)
    other = reference.rbm_free_energy(reference.rbm_gibbs(v.repeat(1, 1), *parameters, 2), *parameters)
    error = ((end.var() + other.var()) / count).sqrt()
    assert (end.mean() - other.mean()).abs() < FALSE_ALARM * error
    assert end.std() > 0.5 * other.std()


def test_contrast_of_what_are_no_bits_is_left_to_the_definition(compiled):
    parameters, v = machine(131, 129), 0.5 * (torch.rand(40, 131) < 0.3).float()
    for states, steps in ((v, 1), (v.round()[:3], 1), (v.round(), 0)):
        torch.manual_seed(1)
        got = compiled.rbm_contrast(states, *parameters, steps)
        torch.manual_seed(1)
        for one, other in zip(got, reference.rbm_contrast(states, *parameters, steps), strict=True):
            assert torch.equal(one, other)
    with pytest.raises(ValueError, match="steps counts Gibbs steps"):
        kernels.rbm_contrast(v, *parameters, -1)


def test_threads_change_no_draw_and_no_value(compiled):
    """Blocks of chains draw by generators of their own; rows are shared out."""
    v, parameters = (torch.rand(2500, 131) < 0.3).float(), machine(131, 129)
    betas, base = torch.linspace(0, 1, 4, dtype=torch.float64), torch.zeros(131)
    found = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            torch.manual_seed(3)
            found.append([*compiled.rbm_ais(v, *parameters, base, betas), compiled.rbm_free_energy(v, *parameters)])
    finally:
        torch.set_num_threads(1)
    for some in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], some, strict=True))
    blocks = found[0][0].split(256)
    assert not torch.equal(blocks[0], blocks[1])  # no two of them by the same draws
