"""The rules without memory that descend on logarithms of losses or on their geometric mean."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import gaba
from _asserts import (
    assert_batched_like_loop,
    assert_no_host_sync,
    assert_on_simplex,
    assert_permutation_equivariant,
    assert_same_on_numpy_and_torch,
    assert_scale_invariant,
)
from _inputs import BATCH_SHAPES, norm_families
from _models import TwoStage, batch, grads
from gaba.rules import GeometricMean, ScaleInvariant, Weighting, by_name

SCALARS: dict[Weighting, Callable[[Tensor], Tensor]] = {
    ScaleInvariant(): lambda losses: losses.log().sum(),
    GeometricMean(): lambda losses: losses.log().mean().exp(),
}
LOSSES = norm_families()
every_rule = pytest.mark.parametrize("rule", SCALARS, ids=repr)


@every_rule
@pytest.mark.parametrize("name", LOSSES)
def test_weights_of_every_family(rule: Weighting, name: str) -> None:
    losses = LOSSES[name]
    assert_on_simplex(rule(losses))
    assert_permutation_equivariant(rule, losses)
    assert_scale_invariant(rule, losses)
    assert_same_on_numpy_and_torch(rule, losses)
    assert_same_on_numpy_and_torch(rule.raw, losses)
    weights = rule(losses) * (losses / losses.max())
    np.testing.assert_allclose(weights / weights.max(), 1.0, rtol=1e-12)


@every_rule
@pytest.mark.parametrize("name", LOSSES)
def test_raw_weights_are_the_derivative_of_the_scalar(rule: Weighting, name: str) -> None:
    losses = torch.tensor(LOSSES[name], requires_grad=True)
    SCALARS[rule](losses).backward()
    assert losses.grad is not None
    torch.testing.assert_close(rule.raw(losses.detach()), losses.grad, rtol=1e-9, atol=0)
    assert_permutation_equivariant(rule.raw, LOSSES[name], rtol=1e-9)


@every_rule
@pytest.mark.parametrize("shape", BATCH_SHAPES)
def test_any_batch_shape(rule: Weighting, shape: tuple[int, ...]) -> None:
    losses = np.exp(np.random.default_rng(1).standard_normal((*shape, 5)))
    for call in (rule, rule.raw):
        assert_batched_like_loop(call, losses)
        assert_no_host_sync(call, losses)


def test_the_product_of_two_is_the_square_of_their_mean() -> None:
    # √(L₁L₂): w = (½ √(L₂/L₁), ½ √(L₁/L₂))
    assert GeometricMean().raw(np.array([9.0, 4.0])).round(12).tolist() == [0.333333333333, 0.75]


@every_rule
@pytest.mark.parametrize("bad", [0.0, -2.0, np.nan])
def test_a_loss_without_logarithm_gives_nan_throughout(rule: Weighting, bad: float) -> None:
    losses = np.array([[1.0, bad], [1.0, 4.0]])
    for call in (rule, rule.raw):
        for weights in (call(losses), call(torch.tensor(losses)).numpy()):
            assert np.isnan(weights[0]).all()
            assert np.isfinite(weights[1]).all()


@every_rule
def test_the_update_is_the_gradient_of_the_scalar(rule: Weighting) -> None:
    model = TwoStage((1.0, 30.0, 0.1), dtype=torch.float64)
    x = batch(dtype=torch.float64)
    balancer = gaba.Balancer(
        model.names, model.trunk, weighting=rule, norm_stabiliser=None, scale="rule"
    )
    step = balancer.backward(model.losses(x))
    found = grads(model)
    model.zero_grad()
    SCALARS[rule](torch.stack([v for v in model.losses(x).values() if v is not None])).backward()
    torch.testing.assert_close(found, grads(model), rtol=1e-10, atol=1e-15)
    assert not step.measured


@every_rule
def test_a_negative_loss_is_a_step_without_learning(rule: Weighting) -> None:
    model = TwoStage((1.0, 30.0, 0.1), dtype=torch.float64)
    balancer = gaba.Balancer(model.names, model.trunk, weighting=rule, scale="rule")
    balancer.backward(model.losses(batch(1, dtype=torch.float64)))
    weights = balancer.weights
    losses = model.losses(batch(2, dtype=torch.float64))
    assert losses["task1"] is not None
    assert not bool(balancer.backward({**losses, "task1": -losses["task1"]}).finite)
    assert balancer.weights == weights


def test_both_have_a_name() -> None:
    assert by_name("scale-invariant") == ScaleInvariant()
    assert by_name("geometric-mean") == GeometricMean()
