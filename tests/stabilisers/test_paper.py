"""What the paper's chain does at the paper's own ratio of norms, 500 to 1."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gaba.stabilisers import EMA, Chain, Floor, Warmup

NORMS = torch.tensor([5.0, 0.01], dtype=torch.float64)
PAPER = Chain((Warmup(100), EMA(0.99), Floor(0.05)))


@pytest.fixture(scope="module")
def run() -> tuple[np.ndarray, np.ndarray]:
    """Weights and saturation of 2,000 steps; row n − 1 is step n."""
    rule = NORMS.flip(0) / NORMS.sum()
    state = PAPER.init(2)
    weights, saturated = [], []
    for _ in range(2000):
        value, state = PAPER.update(rule, state)
        weights.append(value.numpy())
        saturated.append(state[2].saturated.numpy())
    return np.array(weights), np.array(saturated)


def test_the_first_hundred_steps_are_uniform(run: tuple[np.ndarray, np.ndarray]) -> None:
    weights, _ = run
    np.testing.assert_allclose(weights[:100], 0.5, rtol=1e-12)
    assert weights[100, 0] < 0.5


def test_it_saturates_at_step_333_and_stays_so(run: tuple[np.ndarray, np.ndarray]) -> None:
    """0.99ⁿ (½ − .002) + .002 falls below .05 at n = 233, after 100 steps of warm-up."""
    _, saturated = run
    assert not saturated[:332].any()
    assert saturated[332:, 0].all()
    assert not saturated[:, 1].any()
    asked = float(NORMS[1] / NORMS.sum())
    assert np.ceil(np.log((0.05 - asked) / (0.5 - asked)) / np.log(0.99)) == 233


def test_then_it_stands_still(run: tuple[np.ndarray, np.ndarray]) -> None:
    """At .05/(1.05 − λ), where λ = .002 is what the rule asked for: .0477, almost .05/1.05."""
    weights, _ = run
    asked = float(NORMS[1] / NORMS.sum())
    rest = 0.05 / (1.05 - asked)
    np.testing.assert_allclose(weights[-1], [rest, 1 - rest], rtol=1e-6)
    np.testing.assert_allclose(weights[-1], [0.05 / 1.05, 1 / 1.05], atol=1.1e-4)
    assert np.ptp(weights[332:, 0]) < 0.0024
    assert np.ptp(weights[1000:, 0]) < 3e-6


def test_contributions_stay_25_to_1(run: tuple[np.ndarray, np.ndarray]) -> None:
    weights, _ = run
    contributions = weights * NORMS.numpy()
    imbalance = contributions.max(-1) / contributions.min(-1)
    assert imbalance[-1] == pytest.approx(25.05, abs=0.01)
    assert imbalance.min() == imbalance[-1]


def test_without_the_floor_the_same_chain_balances() -> None:
    chain = Chain((Warmup(100), EMA(0.99)))
    state = chain.init(2)
    weights = NORMS
    for _ in range(3000):
        weights, state = chain.update(NORMS.flip(0) / NORMS.sum(), state)
    contributions = weights * NORMS
    assert float(contributions.max() / contributions.min()) == pytest.approx(1, abs=1e-9)
