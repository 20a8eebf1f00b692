"""Floors: what they keep, what they do not, and what they say of it."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from gaba.stabilisers import Clip, Floor

Mode: TypeAlias = Literal["renormalise", "project"]


def random_weights(K: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    weights = np.exp(rng.normal(0, 3, K))
    return weights / weights.sum()


def floored(floor: Floor, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    value, state = floor.update(torch.from_numpy(weights), floor.init(len(weights)))
    return value.numpy(), state.saturated.numpy()


@pytest.mark.parametrize("least", [0.01, 0.05, 0.2])
def test_renormalising_does_not_keep_the_floor(least: float) -> None:
    """For K = 2 the smallest weight there can be is m / (1 + m): .0476 for .05."""
    weights, saturated = floored(Floor(least), np.array([0.0, 1.0]))
    assert weights[0] == pytest.approx(least / (1 + least), rel=1e-14)
    assert list(saturated) == [True, False]
    lowest = [floored(Floor(least), np.array([x, 1 - x]))[0].min() for x in np.linspace(0, 1, 101)]
    assert min(lowest) == pytest.approx(least / (1 + least), rel=1e-14)
    assert round(0.05 / 1.05, 4) == 0.0476


@pytest.mark.parametrize("least", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("x", [0.0, 1e-9, 0.002, 0.3, 0.5, 0.999])
def test_projecting_keeps_the_floor_exactly(least: float, x: float) -> None:
    weights, saturated = floored(Floor(least, mode="project"), np.array([x, 1 - x]))
    assert weights.min() >= least
    if x < least:
        assert weights[0] == least
    else:
        assert weights[0] == pytest.approx(
            max(x, least) if 1 - x >= least else 1 - least, abs=1e-15
        )
    assert weights.sum() == pytest.approx(1, abs=1e-15)
    assert list(saturated) == [x < least, 1 - x < least]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("K", [2, 3, 6])
def test_projecting_finds_the_nearest_point(K: int, seed: int) -> None:
    least = 0.6 / K
    asked = random_weights(K, seed)
    weights, _ = floored(Floor(least, mode="project"), asked)
    solution = minimize(
        lambda x: np.sum((x - asked) ** 2),
        np.full(K, 1 / K),
        jac=lambda x: 2 * (x - asked),
        bounds=[(least, 1)] * K,
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1, "jac": np.ones_like},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    assert solution.success
    np.testing.assert_allclose(weights, solution.x, atol=1e-7)
    assert np.sum((weights - asked) ** 2) <= np.sum((solution.x - asked) ** 2) + 1e-12


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("K", [2, 3, 10, 100])
def test_projecting_meets_the_conditions_of_optimality(K: int, seed: int) -> None:
    """λ_k − x_k is one number τ off the floor, and at least τ on it; Σλ = 1."""
    least = 0.5 / K
    asked = random_weights(K, seed)
    weights, saturated = floored(Floor(least, mode="project"), asked)
    free = weights > least
    moved = (weights - asked)[free]
    assert np.ptp(moved) < 1e-14
    assert (weights[~free] == least).all()
    assert ((weights - asked)[~free] >= moved.max() - 1e-14).all()
    assert weights.sum() == pytest.approx(1, abs=1e-14)
    assert (saturated == (asked < least)).all()
    assert (weights[saturated] == least).all()


@pytest.mark.parametrize("mode", ["renormalise", "project"])
def test_weights_above_the_floor_are_left_alone(mode: Mode) -> None:
    asked = np.array([0.2, 0.3, 0.5])
    weights, saturated = floored(Floor(0.2, mode=mode), asked)
    np.testing.assert_allclose(weights, asked, rtol=1e-15)
    assert not saturated.any()


@pytest.mark.parametrize("mode", ["renormalise", "project"])
@pytest.mark.parametrize("seed", range(5))
def test_with_tasks_missing_the_others_are_floored_as_if_alone(mode: Mode, seed: int) -> None:
    floor = Floor(0.1, mode=mode)
    asked = random_weights(6, seed)
    present = np.array([True, True, False, True, False, True])
    here = np.where(present, asked, np.nan)
    value, state = floor.update(torch.from_numpy(here), floor.init(6))
    alone, saturated = floored(floor, asked[present] / asked[present].sum())
    np.testing.assert_allclose(value.numpy()[present], alone, rtol=1e-13)
    assert value.numpy()[present].sum() == pytest.approx(1, abs=1e-14)
    assert (state.saturated.numpy()[present] == saturated).all()
    assert not state.saturated.numpy()[~present].any()
    assert np.isnan(value.numpy()[~present]).all()


@pytest.mark.parametrize("ratio", [10, 19, 20, 500])
def test_a_floor_caps_the_imbalance_that_can_be_repaired(ratio: float) -> None:
    """At (1 − m)/m, which is 19 for .05."""
    norms = np.array([ratio, 1.0])
    asked = (1 / norms) / (1 / norms).sum()
    weights, saturated = floored(Floor(0.05, mode="project"), asked)
    contributions = weights * norms
    imbalance = contributions.max() / contributions.min()
    assert imbalance == pytest.approx(max(1.0, ratio / 19), rel=1e-12)
    assert saturated[0] == (ratio > 19)


def test_clip_bounds_each_value_by_itself() -> None:
    clip = Clip(low=0.1, high=2.0)
    value, state = clip.update(
        torch.tensor([0.0, 0.1, 1.0, 3.0], dtype=torch.float64), clip.init(4)
    )
    assert value.tolist() == [0.1, 0.1, 1.0, 2.0]
    assert state.saturated.tolist() == [True, False, False, False]
