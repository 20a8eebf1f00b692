"""Constant weights and targets; and rules as frozen, hashable values."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from _asserts import (
    assert_batched_like_loop,
    assert_equal_shares,
    assert_no_host_sync,
    assert_on_simplex,
    assert_same_on_numpy_and_torch,
    assert_scale_invariant,
    projections,
)
from _inputs import BATCH_SHAPES, gramian_families, norm_families, random_gramians
from gaba.rules import (
    EqualProjection,
    EqualShare,
    Fixed,
    Gaba,
    InverseNorm,
    Rule,
    Seen,
    Targets,
    Uniform,
    asked,
)

NORMS = norm_families()


# ---- uniform and fixed ---------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [Uniform(), Fixed((1, 2, 3))])
@pytest.mark.parametrize("shape", BATCH_SHAPES)
def test_constant_weights_in_any_batch_shape(rule: Rule, shape: tuple[int, ...]) -> None:
    losses = np.random.default_rng(0).standard_normal((*shape, 3))
    assert_on_simplex(rule(losses))
    assert_batched_like_loop(rule, losses)
    assert_same_on_numpy_and_torch(rule, losses)
    assert_no_host_sync(rule, losses)
    assert rule.needs == "losses"


def test_constant_weights_do_not_look_at_the_losses() -> None:
    losses = np.array([0.0, -3.0, np.inf])
    np.testing.assert_allclose(Uniform()(losses), 1 / 3)
    np.testing.assert_allclose(Uniform().raw(losses), 1)
    np.testing.assert_allclose(Fixed((1, 2, 1))(losses), [0.25, 0.5, 0.25])
    np.testing.assert_allclose(Fixed((1, 2, 1)).raw(losses), [1, 2, 1])
    assert Fixed((1, 0))(np.array([1, 2])).tolist() == [1.0, 0.0]
    assert Uniform()(torch.tensor([1, 2])).tolist() == [0.5, 0.5]


def test_constant_weights_of_a_missing_task() -> None:
    losses = torch.tensor([torch.nan, 2.0, 3.0])
    seen = Seen(losses, torch.full_like(losses, torch.nan))
    raw, _ = asked(Fixed((1, 2, 3)), seen, ())
    torch.testing.assert_close(raw, torch.tensor([torch.nan, 2.0, 3.0]), equal_nan=True)
    assert np.isnan(Uniform()(losses.numpy())).all()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((1, -1), "weights must be finite and zero or more, found -1"),
        ((1, float("nan")), "found nan"),
        ((1, float("inf")), "found inf"),
        ((0, 0), "must not all be zero"),
        ((), "found none"),
    ],
)
def test_impossible_constants_are_refused(weights: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fixed(weights)


def test_another_number_of_tasks_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"Fixed: weights must hold .* found 2 for 3 tasks; give 3"
    ):
        Fixed((1, 2))(np.ones(3))
    with pytest.raises(ValueError, match=r"Targets: ratios must hold .* found 2 for 3 tasks"):
        Targets((1, 2))(np.ones(3))
    with pytest.raises(ValueError, match=r"Targets: ratios must hold .* found 2 for 3 tasks"):
        Targets((1, 2), EqualShare())(np.eye(3))


# ---- targets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NORMS)
def test_contributions_in_proportion(name: str) -> None:
    norms = NORMS[name]
    ratios = np.exp(np.random.default_rng(0).standard_normal(len(norms)))
    rule = Targets(tuple(ratios))
    pulls = rule(norms) * norms
    np.testing.assert_allclose(pulls / pulls.sum(), ratios / ratios.sum(), rtol=1e-12)
    assert_on_simplex(rule(norms))
    assert_scale_invariant(rule, norms)
    assert_same_on_numpy_and_torch(rule, norms)
    assert_no_host_sync(rule, norms)


@pytest.mark.parametrize("n_tasks", [2, 3, 10, 100])
def test_shares_in_proportion(n_tasks: int) -> None:
    ratios = tuple(np.random.default_rng(0).uniform(0.2, 5, n_tasks))
    rule = Targets(ratios, EqualShare())
    for gramian in gramian_families(n_tasks).values():
        assert_equal_shares(rule(gramian), gramian, ratios=ratios, rtol=1e-10)
    assert_no_host_sync(rule, random_gramians(n_tasks))


def test_projections_in_proportion() -> None:
    compared = 0
    for gramian in random_gramians(3, count=30):
        weights = Targets((3, 2, 2), EqualProjection())(gramian)
        if (weights > 1e-6).all():
            along = projections(weights, gramian) / np.array([3, 2, 2])
            np.testing.assert_allclose(along, along.mean(), rtol=1e-9)
            compared += 1
    assert compared >= 5


@pytest.mark.parametrize("wrapped", [InverseNorm(), InverseNorm(power=0.5)])
def test_equal_targets_change_nothing(wrapped: InverseNorm) -> None:
    for norms in NORMS.values():
        rule = Targets((2.5,) * len(norms), wrapped)
        np.testing.assert_allclose(rule(norms), wrapped(norms), rtol=1e-14)


def test_a_target_needs_what_its_rule_needs() -> None:
    assert Targets((1, 2)).needs == "norms"
    assert Targets((1, 2), EqualShare()).needs == "gramian"


@pytest.mark.parametrize("ratios", [(1, 0), (1, -1), (1, float("nan")), (1, float("inf")), ()])
def test_impossible_targets_are_refused(ratios: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="Targets: ratios must"):
        Targets(ratios)


def test_a_target_around_a_rule_that_makes_nothing_equal_is_refused() -> None:
    other: Any = Gaba()
    with pytest.raises(TypeError, match=r"found Gaba\(\); use InverseNorm"):
        Targets((1, 2), other)


@pytest.mark.parametrize("power", [-1.0, float("nan"), float("inf")])
def test_impossible_powers_are_refused(power: float) -> None:
    with pytest.raises(ValueError, match="power must be finite and zero or more"):
        InverseNorm(power=power)


@pytest.mark.parametrize(
    "rule", [InverseNorm(power=2), Fixed([1, 3]), Targets([1, 2], EqualShare(iterations=40))]
)
def test_rules_are_frozen_values(rule: Any) -> None:
    assert pickle.loads(pickle.dumps(rule)) == rule
    assert hash(dataclasses.replace(rule)) == hash(rule)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(rule, dataclasses.fields(rule)[0].name, 1)
