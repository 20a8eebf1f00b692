"""Exact norms and Gramian against plain backward passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from _engines import observe
from _models import TwoStage, batch, task_gradients
from gaba.autograd.graph import LossGraph
from gaba.autograd.shared import as_shared
from gaba.measurement import ExactNorms, Observation


def observed(losses: list[Any], shared: Any, **asked: bool) -> Observation:
    return observe(ExactNorms(), LossGraph(losses, as_shared(shared)), **asked)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [2, 5])
def test_gramian_and_norms_are_those_of_plain_backward_passes(dtype: torch.dtype, k: int) -> None:
    model, x = TwoStage([10.0**i for i in range(k)], dtype=dtype), batch(dtype=dtype)
    own = torch.stack(task_gradients(model, x)).double()
    seen = observed(list(model.losses(x).values()), model.trunk, gramian=True)
    rtol = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(seen.norms, own.norm(dim=1), rtol=rtol, atol=0)
    assert seen.gramian is not None
    expected = own @ own.T
    scale = own.norm(dim=1)
    torch.testing.assert_close(
        seen.gramian / scale / scale[:, None], expected / scale / scale[:, None], rtol=0, atol=rtol
    )
    assert torch.equal(seen.gramian.diagonal(), seen.norms.square())
    assert torch.equal(seen.gramian, seen.gramian.T)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("value", [1e-30, 1e-23, 1e-10, 1.0, 1e10, 1e20, 1e30])
@pytest.mark.parametrize("n", [1, 1000])
def test_norms_from_tiny_to_huge(value: float, n: int) -> None:
    theta = nn.Parameter(torch.zeros(2, n))
    seen = observed([(value * theta[0]).sum(), theta[1].sum()], [theta], gramian=True)
    expected = value * n**0.5
    assert float(seen.norms[0]) == pytest.approx(expected, rel=1e-6)
    assert seen.gramian is not None
    assert float(seen.gramian[0, 0]) == pytest.approx(expected**2, rel=1e-6)
    assert float(seen.gramian[0, 1]) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_gradients_are_summed_in_float32(dtype: torch.dtype) -> None:
    theta = nn.Parameter(torch.zeros(100_000, dtype=dtype))
    seen = observed([theta.sum(), (theta * 2).sum()], [theta])
    torch.testing.assert_close(
        seen.norms, torch.tensor([1.0, 2.0], dtype=torch.float64) * 100_000**0.5, rtol=1e-6, atol=0
    )


def test_sparse_and_complex_gradients() -> None:
    table = nn.Embedding(10, 3, sparse=True)
    rows = table(torch.tensor([1, 1, 4]))
    seen = observed([rows.sum(), (2 * rows[:, 0]).sum()], table, gramian=True)
    torch.testing.assert_close(seen.norms, torch.tensor([15.0**0.5, 20.0**0.5]).double())
    assert seen.gramian is not None
    assert float(seen.gramian[0, 1]) == pytest.approx(2 * 4 + 1 * 2)

    wave = nn.Parameter(torch.tensor([1 + 2j, 3 - 1j]))
    seen = observed([wave.real.sum(), wave.abs().square().sum()], [wave], gramian=True)
    torch.testing.assert_close(seen.norms, torch.tensor([2.0**0.5, 60.0**0.5]).double())
    assert seen.gramian is not None
    assert float(seen.gramian[0, 1]) == pytest.approx(8)


def test_a_task_that_reaches_nothing_shared_is_named() -> None:
    model = TwoStage([1.0, 2.0, 3.0])
    losses = list(model.losses(batch()).values())
    losses[1] = model.heads[1](torch.ones(5)).sum()
    assert observed(losses, model.trunk).unreached == (1,)
    assert observed(losses, "auto").unreached == (1,)


def test_auto_has_the_parameters_that_two_tasks_reach() -> None:
    common, some, own = (nn.Parameter(torch.ones(2)) for _ in range(3))
    shared = as_shared("auto")
    losses: list[Tensor] = [common.sum(), (common + some).sum(), (common * some * own).sum()]
    observe(ExactNorms(), LossGraph(losses, shared))
    assert {id(p) for p in shared.parameters()} == {id(common), id(some)}


def test_two_networks_that_share_parameters_but_no_features() -> None:
    """As in a physics-informed network: one net, evaluated at other points for each loss."""
    net = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x, y = batch(0, dtype=torch.float64), batch(1, dtype=torch.float64)
    losses = [net(x).square().mean(), net(y).mean()]
    seen = observed(losses, net)
    expected = []
    for loss in losses:
        parts = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
        expected.append(torch.cat([p.flatten() for p in parts]).norm())
    torch.testing.assert_close(seen.norms, torch.stack(expected))


def test_graph_is_kept_for_the_caller_unless_gradients_are_taken() -> None:
    model = TwoStage([1.0, 2.0])
    losses = list(model.losses(batch()).values())
    observed(losses, model.trunk)
    observed(losses, model.trunk, gradients=True)
    with pytest.raises(RuntimeError, match="second time"):
        observed(losses, model.trunk)


def test_shared_parameters_of_several_dtypes() -> None:
    dtypes = (torch.float32, torch.float64, torch.bfloat16)
    theta = [nn.Parameter(torch.ones(4, dtype=dtype)) for dtype in dtypes]
    seen = observed([sum(p.sum() for p in theta), theta[0].sum() * 3], theta)
    torch.testing.assert_close(seen.norms, torch.tensor([12.0**0.5, 6.0]).double())
