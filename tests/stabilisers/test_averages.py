"""Averages: their defining sums, and why norms are averaged as logarithms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gaba.stabilisers import EMA, Belief, Chain, Freeze, LogEMA, Stabiliser, Warmup


def last_of(stabiliser: Stabiliser, values: torch.Tensor) -> np.ndarray:
    state = stabiliser.init(values.shape[-1])
    result = values[0]
    for value in values:
        result, state = stabiliser.update(value, state)
    return result.numpy()


def lognormal(n: int, means: list[float], sigmas: list[float], seed: int = 0) -> torch.Tensor:
    """n draws (n, K) of log-normal norms with the given means and standard deviations of log g."""
    generator = torch.Generator().manual_seed(seed)
    sigma = torch.tensor(sigmas, dtype=torch.float64)
    normal = torch.randn(n, len(means), generator=generator, dtype=torch.float64)
    return torch.tensor(means, dtype=torch.float64) * (sigma * normal - sigma**2 / 2).exp()


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_an_ema_is_its_sum(decay: float) -> None:
    values = lognormal(60, [1.0, 2.0], [0.5, 1.0])
    powers = decay ** np.arange(59, -1, -1)
    sums = (1 - decay) * (powers[:, None] * values.numpy()).sum(0)
    np.testing.assert_allclose(last_of(EMA(decay), values), decay**60 / 2 + sums, rtol=1e-12)
    debiased = (powers[:, None] * values.numpy()).sum(0) / powers.sum()
    np.testing.assert_allclose(last_of(EMA(decay, debias=True), values), debiased, rtol=1e-12)
    logs = (powers[:, None] * values.log().numpy()).sum(0) / powers.sum()
    np.testing.assert_allclose(last_of(LogEMA(decay), values), np.exp(logs), rtol=1e-12)


@pytest.mark.parametrize("stabiliser", [EMA(0.99, debias=True), LogEMA(0.99)], ids=repr)
def test_debiased_averages_of_a_constant_are_that_constant_at_once(stabiliser: Stabiliser) -> None:
    values = torch.tensor([[1e-23, 3.0, 1e20]], dtype=torch.float64).expand(50, -1)
    for n in (1, 2, 50):
        np.testing.assert_allclose(last_of(stabiliser, values[:n]), values[0], rtol=1e-13)


def test_an_ema_of_weights_stays_on_the_simplex() -> None:
    weights = lognormal(300, [1.0, 10.0, 0.1], [1.0, 1.0, 1.0])
    weights = weights / weights.sum(-1, keepdim=True)
    assert last_of(EMA(0.9), weights).sum() == pytest.approx(1, abs=1e-13)


def test_a_thousand_bfloat16_steps_do_not_stall() -> None:
    """In bfloat16 itself, .99 m + .01 x stops moving long before it has arrived."""
    values = torch.tensor([[1.0, 3.0]], dtype=torch.bfloat16).expand(1500, -1)
    np.testing.assert_allclose(last_of(EMA(0.99), values), [1.0, 3.0], rtol=1e-6)


def test_a_zero_norm_leaves_what_was_believed() -> None:
    smoother = LogEMA(0.9)
    state = smoother.init(2)
    believed, state = smoother.update(torch.tensor([4.0, 1.0]), state)
    again, after = smoother.update(torch.tensor([0.0, 1.0]), state)
    assert again[0] == believed[0]
    assert after.mean[0] == state.mean[0]
    assert after.mass[0] == state.mass[0]
    assert after.mass[1] > state.mass[1]


def test_a_task_that_was_always_zero_or_missing_is_not_known() -> None:
    smoother = LogEMA()
    state = smoother.init(3)
    value = torch.tensor([0.0, 2.0, torch.nan])
    believed = value
    for _ in range(5):
        believed, state = smoother.update(value, state)
    assert believed[0] == 0
    assert believed[2].isnan()
    assert believed[1] == pytest.approx(2, rel=1e-14)
    believed, state = smoother.update(torch.tensor([3.0, 2.0, 7.0]), state)
    np.testing.assert_allclose(believed, [3, 2, 7], rtol=1e-14)


def test_nothing_is_believed_of_a_task_that_never_came() -> None:
    averages: list[Any] = [EMA(debias=True), LogEMA(), Belief()]
    for stabiliser in averages:
        value, _ = stabiliser.update(torch.tensor([torch.nan, 1.0]), stabiliser.init(2))
        assert value.isnan().tolist() == [True, False]


def test_a_belief_takes_the_first_norm_as_it_is_and_then_falls_by_a_bounded_factor() -> None:
    belief = Belief(rate=0.1, jump=2.3)
    believed, state = belief.update(torch.tensor([1e-9, 1e9]), belief.init(2))
    np.testing.assert_allclose(believed, [1e-9, 1e9], rtol=1e-6)
    for n in range(40):
        before = believed
        believed, state = belief.update(torch.tensor([1e9, 1e-9]), state)
        factor = min(2.0, np.exp(2.3 * min(0.5, 0.3 * 1.2**n)))  # 2.3 · 0.3 is just below log 2
        assert float(before[1] / believed[1]) == pytest.approx(factor, rel=1e-9)
        if n == 0:  # what gets loud is believed at once
            assert float(believed[0]) == pytest.approx(1e9 * np.exp(-2.3), rel=1e-9)


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_a_belief_in_errors_that_alternate_becomes_a_log_ema_of_the_smallest_rate(
    rate: float,
) -> None:
    """Between 1/2 and 2 each error is of the other sign: 0.3 · 0.6ⁿ, but no less than 1/(1 + n) for
    n norms so far, down to the smallest rate."""
    belief = Belief(rate=rate)
    believed, state = belief.update(torch.ones(1, dtype=torch.float64), belief.init(1))
    log, eta = 0.0, 0.3
    for n in range(1, 140):
        value = 2.0 if n % 2 else 0.5
        believed, state = belief.update(torch.tensor([value], dtype=torch.float64), state)
        if n > 1:
            eta = max(0.6 * eta, min(0.3, 1 / (1 + n)), rate)
        log += eta * (np.log(value) - log)
        assert float(believed[0]) == pytest.approx(np.exp(log), rel=1e-12)
    assert float(state.rate[0]) == rate


@pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0])
def test_inverting_and_averaging_do_not_commute(sigma: float) -> None:
    """E[1/g] = e^{σ²} / E[g] for log-normal norms."""
    norms = lognormal(200_000, [3.0], [sigma]).numpy()
    assert (1 / norms).mean() * norms.mean() == pytest.approx(np.exp(sigma**2), rel=0.03)
    geometric = np.exp(np.log(norms).mean())
    assert np.exp(np.log(1 / norms).mean()) * geometric == pytest.approx(1, rel=1e-12)


def test_the_rule_after_log_ema_is_the_geometric_mean_of_the_rules() -> None:
    """Smooth then invert = invert then smooth, in any run; for an EMA it is not."""
    norms = lognormal(3000, [5.0, 0.01], [0.2, 1.0])
    before = last_of(LogEMA(0.999), norms)
    after = last_of(LogEMA(0.999), 1 / norms)
    np.testing.assert_allclose(1 / before, after, rtol=1e-12)
    ema = EMA(0.999, debias=True)
    gap = last_of(ema, norms) * last_of(ema, 1 / norms)
    assert gap[1] / gap[0] > 2


def test_log_ema_weighs_by_the_typical_norm_and_is_not_biased_by_noise() -> None:
    """Two tasks with the same median norm, one noisier: equal weights from log-norms only."""
    sigma = 1.0
    norms = lognormal(8000, [1.0, np.exp(sigma**2 / 2)], [0.0, sigma])
    believed = last_of(LogEMA(0.999), norms)
    assert believed[0] / believed[1] == pytest.approx(1, abs=0.1)
    inverses = 1 / norms.numpy()
    weights = (inverses / inverses.sum(-1, keepdims=True)).mean(0)
    assert weights[0] == pytest.approx(0.5, abs=0.02)
    averaged = last_of(EMA(0.999, debias=True), norms)
    assert averaged[1] / averaged[0] == pytest.approx(np.exp(sigma**2 / 2), rel=0.15)
    assert last_of(EMA(0.999, debias=True), 1 / norms)[1] == pytest.approx(
        np.exp(sigma**2) / np.exp(sigma**2 / 2), rel=0.15
    )


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_warm_up_is_uniform_for_exactly_its_steps(steps: int) -> None:
    warmup = Warmup(steps)
    state = warmup.init(4)
    value = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    for n in range(10):
        result, state = warmup.update(value, state)
        assert torch.equal(result, torch.full_like(value, 0.25) if n < steps else value)


@pytest.mark.parametrize("after", [1, 5])
def test_freeze_holds_the_last_of_its_steps_for_ever(after: int) -> None:
    freeze = Freeze(after)
    state = freeze.init(2)
    values = lognormal(30, [1.0, 2.0], [1.0, 1.0])
    for n, value in enumerate(values):
        result, state = freeze.update(value, state)
        assert torch.equal(result, values[min(n, after - 1)])


def test_freeze_holds_a_task_that_comes_late_at_its_first_value() -> None:
    freeze = Freeze(1)
    state = freeze.init(2)
    _, state = freeze.update(torch.tensor([1.0, torch.nan]), state)
    for value in (2.0, 3.0):
        result, state = freeze.update(torch.full((2,), value), state)
        assert result.tolist() == [1.0, 2.0]


def test_a_chain_applies_its_parts_in_order() -> None:
    value = torch.tensor([0.2, 0.8], dtype=torch.float64)
    first = Chain((Warmup(1), EMA(0.0, debias=True)))
    second = Chain((EMA(0.5), Warmup(1)))
    assert first.update(value, first.init(2))[0].tolist() == [0.5, 0.5]
    _, state = second.update(value, second.init(2))
    result, _ = second.update(value, state)
    np.testing.assert_allclose(result, 0.25 * 0.5 + 0.75 * value.numpy(), rtol=1e-15)
