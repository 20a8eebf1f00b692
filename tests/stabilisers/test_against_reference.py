"""Each stabiliser, stepped beside the plain NumPy one for 1,000 random steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import _reference as reference
from gaba import stabilisers
from gaba.stabilisers import Stabiliser
from gaba.state import flatten

STEPS = 1000

Make = Callable[[int], Any]
CASES: dict[str, tuple[Stabiliser, Make]] = {
    "ema": (stabilisers.EMA(0.99), lambda K: reference.EMA(K, 0.99)),
    "ema-0": (stabilisers.EMA(0.0), lambda K: reference.EMA(K, 0.0)),
    "ema-debiased": (stabilisers.EMA(0.9, debias=True), lambda K: reference.EMA(K, 0.9, True)),
    "identity": (stabilisers.Identity(), lambda K: reference.Chain(K, [])),
    "belief": (stabilisers.Belief(), lambda K: reference.Belief(K)),
    "belief-fast": (stabilisers.Belief(0.3, 1.0), lambda K: reference.Belief(K, 0.3, 1.0)),
    "log-ema": (stabilisers.LogEMA(0.95), lambda K: reference.LogEMA(K, 0.95)),
    "floor": (stabilisers.Floor(0.05), lambda K: reference.Floor(K, 0.05)),
    "floor-project": (
        stabilisers.Floor(0.05, mode="project"),
        lambda K: reference.Floor(K, 0.05, "project"),
    ),
    "warmup": (stabilisers.Warmup(70), lambda K: reference.Warmup(K, 70)),
    "clip-low": (stabilisers.Clip(low=0.1), lambda K: reference.Clip(K, low=0.1)),
    "clip": (stabilisers.Clip(0.1, 0.3), lambda K: reference.Clip(K, 0.1, 0.3)),
    "freeze": (stabilisers.Freeze(500), lambda K: reference.Freeze(K, 500)),
    "freeze-1": (stabilisers.Freeze(1), lambda K: reference.Freeze(K, 1)),
    "paper": (
        stabilisers.Chain(
            (stabilisers.Warmup(100), stabilisers.EMA(0.99), stabilisers.Floor(0.05))
        ),
        lambda K: reference.Chain(
            K, [reference.Warmup(K, 100), reference.EMA(K, 0.99), reference.Floor(K, 0.05)]
        ),
    ),
    "nested": (
        stabilisers.Chain(
            [
                stabilisers.Chain([stabilisers.Clip(low=0.02), stabilisers.EMA(0.9)]),
                stabilisers.Floor(0.1, mode="project"),
                stabilisers.Freeze(800),
            ]
        ),
        lambda K: reference.Chain(
            K,
            [
                reference.Chain(K, [reference.Clip(K, low=0.02), reference.EMA(K, 0.9)]),
                reference.Floor(K, 0.1, "project"),
                reference.Freeze(K, 800),
            ],
        ),
    ),
}
BOUNDING = ("floor", "floor-project", "clip-low", "clip", "nested")
FOR_NORMS = ("log-ema", "belief", "belief-fast", "ema-debiased", "freeze")


def random_step(rng: np.random.Generator, K: int) -> tuple[np.ndarray, np.ndarray]:
    """A vector on the simplex, some of it 0, and a mask; NaN where a task is missing."""
    value = np.exp(rng.normal(0, 2, K))
    value[rng.random(K) < 0.1] = 0.0
    value = value / value.sum() if value.sum() > 0 else np.full(K, 1 / K)
    present = rng.random(K) < (0.8 if rng.random() < 0.5 else 1.0)
    present[rng.integers(K)] = True
    return np.where(present, value, np.nan), present


def saturated_in(state: object, K: int) -> np.ndarray:
    """Which values are at a bound, by any part of the state."""
    flags = np.zeros(K, dtype=bool)
    for name, tensor in flatten(state).items():
        if name.endswith("saturated"):
            flags = flags | tensor.numpy()
    return flags


@pytest.mark.parametrize("K", [2, 3, 7])
@pytest.mark.parametrize("name", CASES)
def test_a_thousand_random_steps(name: str, K: int) -> None:
    fast, make = CASES[name]
    slow = make(K)
    state = fast.init(K)
    rng = np.random.default_rng(K)
    saturated_steps = 0
    for _ in range(STEPS):
        value, present = random_step(rng, K)
        if name in FOR_NORMS:
            value = value * 10 ** rng.uniform(-23, 20)
        result, state = fast.update(torch.from_numpy(value), state)
        expected = slow.step(value, list(present))
        np.testing.assert_allclose(
            result.numpy(),
            expected,
            rtol=1e-11,
            atol=0 if name in FOR_NORMS else 1e-15,
        )
        saturated = saturated_in(state, K)
        np.testing.assert_array_equal(saturated, slow.saturated)
        saturated_steps += int(saturated.any())
    assert (saturated_steps > 0) == (name in BOUNDING)


def test_the_pipeline_of_the_paper_is_rule_and_chain() -> None:
    """The reference's Pipeline, put together from the parts of the library, in 1,000 steps."""
    K = 3
    pipeline = reference.Pipeline.paper(K)
    chain = CASES["paper"][0]
    state = chain.init(K)
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        norms = np.exp(rng.normal(0, 3, K))
        outcome = pipeline.step(list(norms))
        rule = (norms.sum() - norms) / ((K - 1) * norms.sum())
        weights, state = chain.update(torch.from_numpy(rule), state)
        np.testing.assert_allclose(weights.numpy(), outcome.weights, rtol=1e-10)
        np.testing.assert_array_equal(saturated_in(state, K), outcome.saturated)


def test_the_default_pipeline_is_belief_and_inverse() -> None:
    K = 4
    pipeline = reference.Pipeline.default(K)
    belief = stabilisers.Belief()
    state = belief.init(K)
    rng = np.random.default_rng(1)
    peak, used = np.zeros(K), np.ones(K)
    for _ in range(STEPS):
        norms = np.exp(rng.normal(0, 1, K))
        outcome = pipeline.step(list(norms))
        believed, state = belief.update(torch.from_numpy(norms), state)
        np.testing.assert_allclose(believed.numpy(), outcome.believed, rtol=1e-11)
        floored = np.maximum(believed.numpy(), peak / 8)
        peak = np.maximum(peak, floored)
        asked = floored.mean() / floored  # Σ m ĝ = Σ ĝ, each term of it equal
        used = np.minimum(asked, 1.2 * used)
        assert asked.max() < 64
        np.testing.assert_allclose(used, outcome.multipliers, rtol=1e-11)
