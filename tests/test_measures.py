"""Contributions, imbalance and shares against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from _asserts import assert_no_host_sync, assert_same_on_numpy_and_torch
from _inputs import norm_families, random_gramians
from gaba.measures import contributions, imbalance, shares

NORMS = norm_families()


def some_weights(n_tasks: int) -> np.ndarray:
    return np.random.default_rng(n_tasks).dirichlet(np.ones(n_tasks))


@pytest.mark.parametrize("name", NORMS)
def test_contributions_and_imbalance_are_their_definitions(name: str) -> None:
    norms = NORMS[name]
    weights = some_weights(len(norms))
    pulls = [weight * norm for weight, norm in zip(weights, norms, strict=True)]
    assert contributions(weights, norms).tolist() == pulls
    assert float(imbalance(weights, norms)) == pytest.approx(max(pulls) / min(pulls), rel=1e-15)
    assert_same_on_numpy_and_torch(contributions, weights, norms)
    assert_same_on_numpy_and_torch(imbalance, weights, norms)


def test_imbalance_is_1_only_where_all_pull_equally() -> None:
    assert float(imbalance(np.array([0.25, 0.75]), np.array([3.0, 1.0]))) == 1.0
    assert float(imbalance(np.array([0.25, 0.75]), np.array([3.0, 1.001]))) > 1.0


@pytest.mark.parametrize(
    ("weights", "norms", "expected"),
    [
        ([0.5, 0.5], [1.0, 0.0], np.inf),
        ([0.5, 0.5], [0.0, 0.0], 1.0),
        ([0.5, 0.5, 0.0], [1.0, 4.0, np.nan], 4.0),
        ([1.0, 0.0], [1.0, np.nan], 1.0),
        ([0.0, 0.0], [np.nan, np.nan], np.nan),
        ([0.5, 0.5], [1.0, np.nan], np.nan),
        ([2.0, 3.0, np.nan], [1.0, 4.0, np.nan], 6.0),
        ([np.nan, 3.0], [1.0, 4.0], np.nan),
    ],
)
def test_imbalance_of_zero_missing_and_broken_norms(
    weights: list[float], norms: list[float], expected: float
) -> None:
    arrays = np.array(weights), np.array(norms)
    np.testing.assert_equal(float(imbalance(*arrays)), expected)
    assert_same_on_numpy_and_torch(imbalance, *arrays)


def test_a_missing_task_has_no_contribution() -> None:
    pulls = contributions(np.array([1.0, 0.0]), np.array([2.0, np.nan]))
    np.testing.assert_equal(pulls, [2.0, np.nan])


@pytest.mark.parametrize("n_tasks", [1, 2, 3, 20])
def test_shares_are_parts_of_the_squared_length_of_the_update(n_tasks: int) -> None:
    rng = np.random.default_rng(n_tasks)
    gradients = rng.standard_normal((n_tasks, 50))
    weights = some_weights(n_tasks)
    update = weights @ gradients
    expected = [
        weight * (gradient @ update) / (update @ update)
        for weight, gradient in zip(weights, gradients, strict=True)
    ]
    found = shares(weights, gradients @ gradients.T)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13)
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-12)


def test_a_task_that_opposes_the_update_has_a_negative_share() -> None:
    found = shares(np.array([0.9, 0.1]), np.array([[1.0, -0.5], [-0.5, 1.0]]))
    assert found[1] < 0 < found[0]


def test_shares_of_no_update_are_not_numbers() -> None:
    opposite = np.array([[1.0, -1.0], [-1.0, 1.0]])
    assert np.isnan(shares(np.array([0.5, 0.5]), opposite)).all()


@pytest.mark.parametrize("weight", [0.0, np.nan])
def test_a_missing_task_has_no_share_and_leaves_the_others_theirs(weight: float) -> None:
    gramian = random_gramians(3, count=1)[0]
    expected = shares(np.array([0.2, 0.8]), gramian[:2, :2])
    gramian[2] = gramian[:, 2] = np.nan
    found = shares(np.array([0.2, 0.8, weight]), gramian)
    np.testing.assert_allclose(found, [*expected, 0.0], rtol=1e-14)
    assert np.isnan(shares(np.array([0.2, 0.7, 0.1]), gramian)).all()


def test_shares_of_a_batch() -> None:
    gramians = random_gramians(4, count=6).reshape(2, 3, 4, 4)
    weights = np.random.default_rng(0).dirichlet(np.ones(4), (2, 3))
    found = shares(weights, gramians)
    for index in np.ndindex(2, 3):
        np.testing.assert_allclose(found[index], shares(weights[index], gramians[index]))
    assert_same_on_numpy_and_torch(shares, weights, gramians)


def test_measures_never_wait_for_the_device() -> None:
    weights = torch.tensor([0.25, 0.75])
    assert_no_host_sync(lambda norms: contributions(weights.to(norms.device), norms), np.ones(2))
    assert_no_host_sync(lambda norms: imbalance(weights.to(norms.device), norms), np.ones(2))
    assert_no_host_sync(lambda gramian: shares(weights.to(gramian.device), gramian), np.eye(2))


def test_other_tasks_on_the_two_sides_are_refused() -> None:
    with pytest.raises(ValueError, match=r"contributions: weights and norms .* \(2,\) and \(3,\)"):
        contributions(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="same tasks"):
        imbalance(np.ones(2), np.array(1.0))
    with pytest.raises(ValueError, match="weights and gramian"):
        shares(np.ones(2), np.eye(3))
    with pytest.raises(ValueError, match=r"shape \(..., K, K\), found \(3, 2\)"):
        shares(np.ones(2), np.ones((3, 2)))
