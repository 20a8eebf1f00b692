"""The rules without memory that descend on logarithms of losses or on their geometric mean."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from _asserts import (
    assert_batched_like_loop,
    assert_no_host_sync,
    assert_on_simplex,
    assert_permutation_equivariant,
    assert_same_on_numpy_and_torch,
    assert_scale_invariant,
)
from _inputs import BATCH_SHAPES, norm_families
from gaba.rules import GeometricMean, Rule, ScaleInvariant, Seen, asked

SCALARS: dict[Rule, Callable[[Tensor], Tensor]] = {
    ScaleInvariant(): lambda losses: losses.log().sum(),
    GeometricMean(): lambda losses: losses.log().mean().exp(),
}
LOSSES = norm_families()
every_rule = pytest.mark.parametrize("rule", SCALARS, ids=repr)


@every_rule
@pytest.mark.parametrize("name", LOSSES)
def test_weights_of_every_family(rule: Rule, name: str) -> None:
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
def test_raw_weights_are_the_derivative_of_the_scalar(rule: Rule, name: str) -> None:
    losses = torch.tensor(LOSSES[name], requires_grad=True)
    SCALARS[rule](losses).backward()
    assert losses.grad is not None
    torch.testing.assert_close(rule.raw(losses.detach()), losses.grad, rtol=1e-9, atol=0)
    assert_permutation_equivariant(rule.raw, LOSSES[name], rtol=1e-9)


@every_rule
@pytest.mark.parametrize("shape", BATCH_SHAPES)
def test_any_batch_shape(rule: Rule, shape: tuple[int, ...]) -> None:
    losses = np.exp(np.random.default_rng(1).standard_normal((*shape, 5)))
    for call in (rule, rule.raw):
        assert_batched_like_loop(call, losses)
        assert_no_host_sync(call, losses)


def test_the_product_of_two_is_the_square_of_their_mean() -> None:
    # √(L₁L₂): w = (½ √(L₂/L₁), ½ √(L₁/L₂))
    assert GeometricMean().raw(np.array([9.0, 4.0])).round(12).tolist() == [0.333333333333, 0.75]


@every_rule
@pytest.mark.parametrize("bad", [0.0, -2.0, np.nan])
def test_a_loss_without_logarithm_gives_nan_throughout(rule: Rule, bad: float) -> None:
    losses = np.array([[1.0, bad], [1.0, 4.0]])
    for call in (rule, rule.raw):
        for weights in (call(losses), call(torch.tensor(losses)).numpy()):
            assert np.isnan(weights[0]).all()
            assert np.isfinite(weights[1]).all()


@every_rule
def test_a_missing_task_is_as_if_there_were_none(rule: Rule) -> None:
    losses = torch.tensor([2.0, torch.nan, 0.5], dtype=torch.float64)
    raw, _ = asked(rule, Seen(losses, torch.full_like(losses, torch.nan)), ())
    torch.testing.assert_close(raw[[0, 2]], rule.raw(losses[[0, 2]]), rtol=1e-15, atol=0)
    assert bool(raw[1].isnan())
