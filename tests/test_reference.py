"""The oracle itself: each formula by its defining property, and the pipeline by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

import _reference as reference
from _reference import Pipeline

Array = NDArray[np.float64]
NORM_RULES: dict[str, Callable[[Array], Array]] = {
    "uniform": reference.uniform,
    "gaba": reference.gaba,
    "inverse": reference.inverse,
    "square-root": lambda g: reference.inverse(g, 0.5),
    "log-inverse": reference.log_inverse,
    "rank-inverse": reference.rank_inverse,
    "targets": lambda g: reference.targets(g, np.arange(1, len(g) + 1)),
}
norm_rule = pytest.mark.parametrize("name", NORM_RULES)
GRAMIAN_RULES = {
    "equal-share": reference.equal_share,
    "equal-projection": reference.equal_projection,
}


def norms(K: int, seed: int, spread: float = 3.0) -> Array:
    return np.exp(np.random.default_rng(seed).normal(0, spread, K))


def gramian(K: int, seed: int, dimension: int = 30) -> Array:
    rng = np.random.default_rng(seed)
    gradients = rng.normal(size=(K, dimension)) * norms(K, seed)[:, None]
    return gradients @ gradients.T


@norm_rule
@pytest.mark.parametrize("K", [1, 2, 5])
def test_weights_lie_on_the_simplex(name: str, K: int) -> None:
    for seed in range(5):
        weights = NORM_RULES[name](norms(K, seed))
        assert weights.sum() == pytest.approx(1, abs=1e-14)
        assert (weights >= 0).all()


@norm_rule
def test_a_common_factor_changes_nothing(name: str) -> None:
    g = norms(4, 0)
    for factor in (1e-23, 7.0, 1e20):
        np.testing.assert_allclose(NORM_RULES[name](factor * g), NORM_RULES[name](g), rtol=1e-12)


@norm_rule
def test_extremes_in_one_vector(name: str) -> None:
    weights = NORM_RULES[name](np.array([1e-23, 1.0, 1e20]))
    assert np.isfinite(weights).all()
    assert weights.sum() == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("name", [name for name in NORM_RULES if name not in ("targets", "gaba")])
def test_a_zero_norm_gets_the_uniform_weight(name: str) -> None:
    rule = NORM_RULES[name]
    weights = rule(np.array([0.0, 3.0, 1.0, 0.5]))
    assert weights[0] == 0.25
    np.testing.assert_allclose(weights[1:], 0.75 * rule(np.array([3.0, 1.0, 0.5])), rtol=1e-14)
    np.testing.assert_array_equal(rule(np.zeros(4)), np.full(4, 0.25))


def test_the_table_of_the_design() -> None:
    g = np.array([5.0, 0.01])
    rows = [
        (reference.uniform(g), "0.5000/0.5000", "2.500000/0.005000", 500.00),
        (reference.inverse(g, 0.5), "0.0428/0.9572", "0.214035/0.009572", 22.36),
        (reference.gaba(g), "0.0020/0.9980", "0.009980/0.009980", 1.00),
    ]
    for weights, shown, contributions, imbalance in rows:
        c = weights * g
        assert "{:.4f}/{:.4f}".format(*weights) == shown
        assert "{:.6f}/{:.6f}".format(*c) == contributions
        assert round(c.max() / c.min(), 2) == imbalance


@pytest.mark.parametrize("K", [2, 3, 10, 100])
def test_inverse_makes_contributions_equal(K: int) -> None:
    g = norms(K, K)
    contributions = reference.inverse(g) * g
    assert np.ptp(contributions) < 1e-12 * contributions.max()
    proportions = np.arange(1, K + 1)
    contributions = reference.targets(g, proportions) * g
    np.testing.assert_allclose(contributions / contributions[0], proportions, rtol=1e-12)


def test_powers_of_the_inverse() -> None:
    g = norms(5, 0)
    np.testing.assert_allclose(reference.inverse(g, 0), np.full(5, 0.2))
    for power in (0.5, 1, 2):
        scaled = reference.inverse(g, power) * g**power
        np.testing.assert_allclose(scaled, scaled[0], rtol=1e-12)


def test_gaba_only_bounds_weights_for_three_tasks() -> None:
    g = np.array([100.0, 1.0, 0.01])
    weights = reference.gaba(g)
    assert [round(w, 3) for w in weights] == [0.005, 0.495, 0.5]
    contributions = weights * g
    assert [round(c, 3) for c in contributions] == [0.5, 0.495, 0.005]
    assert round(contributions.max() / contributions.min()) == 100


def test_softer_rules_by_hand() -> None:
    g = np.array([4.0, 1.0, 9.0])
    logs = 1 / np.log([5.0, 2.0, 10.0])
    np.testing.assert_allclose(reference.log_inverse(g), logs / logs.sum(), rtol=1e-14)
    np.testing.assert_allclose(reference.rank_inverse(g), np.array([3, 6, 2]) / 11, rtol=1e-14)
    np.testing.assert_allclose(reference.fixed([1.0, 3.0]), [0.25, 0.75])


@pytest.mark.parametrize("K", [2, 3, 8, 20])
def test_equal_share_makes_shares_equal(K: int) -> None:
    for seed in range(3):
        G = gramian(K, seed)
        weights = reference.equal_share(G)
        shares = weights * (G @ weights) / (weights @ G @ weights)
        np.testing.assert_allclose(shares, 1 / K, rtol=1e-9)
        assert (weights > 0).all()


@pytest.mark.parametrize("K", [2, 3, 8, 20])
def test_equal_projection_makes_projections_equal(K: int) -> None:
    for seed in range(3):
        G = gramian(K, seed)
        projections = G @ reference.equal_projection(G) / np.sqrt(np.diag(G))
        np.testing.assert_allclose(projections, projections.mean(), rtol=1e-8)


def test_for_two_tasks_all_four_rules_are_one() -> None:
    for seed in range(10):
        G = gramian(2, seed)
        g = np.sqrt(np.diag(G))
        for weights in (
            reference.gaba(g),
            reference.equal_share(G),
            reference.equal_projection(G),
        ):
            np.testing.assert_allclose(weights, reference.inverse(g), rtol=1e-10)


@pytest.mark.parametrize("K", [2, 5])
@pytest.mark.parametrize("name", GRAMIAN_RULES)
def test_for_orthogonal_gradients_gramian_rules_are_the_inverse(name: str, K: int) -> None:
    g = norms(K, 0)
    np.testing.assert_allclose(GRAMIAN_RULES[name](np.diag(g**2)), reference.inverse(g), rtol=1e-10)


def test_two_opposed_tasks_of_three() -> None:
    G = np.array([[1, 0, 0], [0, 1, -0.9], [0, -0.9, 1]])
    inverse = reference.inverse(np.ones(3))
    shares = inverse * (G @ inverse) / (inverse @ G @ inverse)
    np.testing.assert_allclose(shares, np.array([1, 0.1, 0.1]) / 1.2, rtol=1e-12)
    weights = reference.equal_share(G)
    np.testing.assert_allclose(weights * (G @ weights) / (weights @ G @ weights), 1 / 3, rtol=1e-9)


def test_opposite_gradients_have_no_equal_shares() -> None:
    with pytest.raises(ArithmeticError, match="no equal shares after 50 sweeps"):
        reference.equal_share(np.array([[1.0, -1.0], [-1.0, 1.0]]), sweeps=50)


# The pipeline


def test_the_paper_saturates_from_step_333_and_stands_still() -> None:
    pipeline = Pipeline.paper(2)
    outcomes = [pipeline.step([5.0, 0.01]) for _ in range(1500)]
    first = next(n for n, outcome in enumerate(outcomes, 1) if outcome.saturated[0])
    assert first == 333
    assert all(outcome.saturated[0] for outcome in outcomes[332:])
    np.testing.assert_allclose(outcomes[-1].weights, [0.0477, 0.9523], atol=5e-5)
    assert outcomes[-1].imbalance == pytest.approx(25.05, abs=0.01)
    for outcome in outcomes:
        assert outcome.multipliers.sum() == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("K", [2, 5])
def test_scales(K: int) -> None:
    for seed in range(5):
        g = norms(K, seed)
        total = Pipeline(K, reference.inverse, limit=math.inf).step(list(g))
        assert total.contributions.sum() == pytest.approx(g.sum(), rel=1e-12)
        greatest = Pipeline(K, reference.inverse, scale="max", limit=math.inf).step(list(g))
        assert greatest.contributions.max() == pytest.approx(g.max(), rel=1e-12)
        geometric = Pipeline(K, reference.inverse, scale="geometric", limit=math.inf).step(list(g))
        assert np.log(geometric.multipliers).sum() == pytest.approx(0, abs=1e-12)
        anchored = Pipeline(K, reference.inverse, anchor=1, limit=math.inf).step(list(g))
        assert anchored.multipliers[1] == pytest.approx(1, rel=1e-12)
        simplex = Pipeline(K, reference.inverse, scale="simplex").step(list(g))
        assert simplex.multipliers.sum() == pytest.approx(1, rel=1e-12)
        plain = Pipeline(K, reference.uniform).step(list(g))
        np.testing.assert_allclose(plain.multipliers, 1, rtol=1e-12)


@pytest.mark.parametrize("scale", ["sum", "max", "geometric"])
def test_without_any_pull_the_multipliers_are_those_of_the_plain_sum(
    scale: Literal["sum", "max", "geometric"],
) -> None:
    outcome = Pipeline(2, reference.inverse, scale=scale).step([0.0, 0.0])
    np.testing.assert_allclose(outcome.multipliers, 1, rtol=1e-12)


@pytest.mark.parametrize("limit", [2.0, 10.0, 1e6])
def test_within_the_limit_the_update_still_pulls_as_hard_as_the_plain_sum(limit: float) -> None:
    for seed in range(5):
        g = norms(5, seed)
        outcome = Pipeline(5, reference.inverse, limit=limit).step(list(g))
        assert (outcome.multipliers <= limit).all()
        assert (outcome.multipliers >= 1 / limit).all()
        assert outcome.contributions.sum() == pytest.approx(g.sum(), rel=1e-12)
        free = ~outcome.saturated
        assert np.ptp(outcome.contributions[free]) < 1e-9 * g.sum()


def test_a_task_that_converges_is_not_amplified_beyond_its_recovery() -> None:
    pipeline = Pipeline(2, reference.inverse, believe=reference.LogEMA(2, 0.0), recovery=8.0)
    first = pipeline.step([1.0, 1.0])
    np.testing.assert_allclose(first.multipliers, 1)
    last = first
    for n in range(20):
        last = pipeline.step([1.0, 2.0**-n])
    assert last.multipliers[1] / last.multipliers[0] == pytest.approx(8, rel=1e-12)


def test_a_missing_task_changes_nothing_for_the_others_that_a_belief_remembers() -> None:
    whole, gappy = Pipeline.default(3), Pipeline.default(3)
    for n in range(60):
        g = [4.0, 0.5, 30.0]
        present = [True, n % 3 == 0, n % 2 == 0]
        expected = whole.step(g).multipliers
        found = gappy.step(g, present).multipliers
        np.testing.assert_allclose(found[present], expected[present], rtol=1e-12)
        assert np.isnan(found[~np.array(present)]).all()


def test_missing_tasks_by_hand() -> None:
    """Task 3 goes missing: it keeps its last weight, the others share what is left."""
    pipeline = Pipeline(3, reference.inverse, smooth=reference.EMA(3, 0.5), scale="simplex")
    pipeline.step([1.0, 2.0, 2.0])
    np.testing.assert_allclose(pipeline.last, (1 / 3 + np.array([0.5, 0.25, 0.25])) / 2)
    third = pipeline.last[2]
    asked = (1 - third) * np.array([0.75, 0.25])
    smoothed = (pipeline.last[:2] + asked) / 2
    outcome = pipeline.step([1.0, 3.0, None])
    np.testing.assert_allclose(outcome.multipliers[:2], smoothed, rtol=1e-14)
    np.testing.assert_allclose(pipeline.last, [*smoothed, third], rtol=1e-14)
    assert outcome.weights[2] == 0
    assert outcome.weights.sum() == pytest.approx(1, abs=1e-15)
    assert math.isnan(outcome.contributions[2])


def test_one_task_a_batch_pulls_like_the_others_once_all_are_known() -> None:
    pipeline, g = Pipeline.default(3), [50.0, 1.0, 20.0]
    pulls = []
    for n in range(60):
        outcome = pipeline.step([g[k] if k == n % 3 else None for k in range(3)])
        if 1.2**n >= 71 / 3:  # the quiet task has come up
            pulls.append(float(outcome.contributions[n % 3]))
    assert max(pulls) / min(pulls) == pytest.approx(1, rel=1e-9)


def test_the_default_limit_leaves_500_to_1_at_7_to_1() -> None:
    """The quiet task is multiplied by 64, and the loud one has what is left of the sum: 437."""
    pipeline = Pipeline.default(2)
    outcomes = [pipeline.step([500.0, 1.0]) for _ in range(30)]
    for n, outcome in enumerate(outcomes, 1):
        expected = [437.0, min(64.0, 1.2**n)]
        np.testing.assert_allclose(outcome.contributions, expected, rtol=1e-9)
        assert outcome.saturated.tolist() == [False, True]
    assert outcomes[-1].imbalance == pytest.approx(437 / 64, rel=1e-9)


@pytest.mark.parametrize("rise", [1.01, 1.2, 3.0])
def test_multipliers_in_use_rise_by_a_bounded_factor_and_fall_at_once(rise: float) -> None:
    slow = Pipeline(3, reference.inverse, rise=rise)
    free = Pipeline(3, reference.inverse)
    before, risen = np.ones(3), 0
    for seed in range(200):
        g = list(norms(3, seed, spread=1.0))
        used, asked = slow.step(g).multipliers, free.step(g).multipliers
        np.testing.assert_allclose(used, np.minimum(asked, rise * before), rtol=1e-14)
        risen += int((used < asked).sum())
        before = used
    assert 0 < risen < 600
    last = [[one.step([9.0, 1.0, 30.0]) for _ in range(2000)][-1] for one in (slow, free)]
    np.testing.assert_array_equal(last[0].multipliers, last[1].multipliers)


def test_a_belief_by_hand() -> None:
    """Rates 0.3, 0.36 (same sign), then 1/(1 + n), which is above 0.6 of the last, then 0.2."""
    belief, log = reference.Belief(1), 0.0
    assert belief.step(np.array([1.0]), [True])[0] == 1
    rows = (2.0, 0.3), (2.0, 0.36), (0.5, 1 / 4), (4.0, 1 / 5), (0.25, 1 / 6), (0.25, 0.2)
    for norm, rate in rows:
        log += rate * (math.log(norm) - log)
        assert belief.step(np.array([norm]), [True])[0] == pytest.approx(math.exp(log), rel=1e-14)
    log -= 0.24 * 2.3
    assert belief.step(np.array([-7.0]), [True])[0] == pytest.approx(math.exp(log), rel=1e-14)
    for norm in (0.0, math.nan):
        found = belief.step(np.array([norm]), [not math.isnan(norm)])[0]
        assert found == pytest.approx(math.exp(log), rel=1e-14)
    found = belief.step(np.array([1e9]), [True])[0]
    assert found == pytest.approx(1e9 * math.exp(-2.3), rel=1e-14)
    wild = reference.Belief(1, jump=50.0)
    wild.step(np.array([1.0]), [True])
    assert [wild.step(np.array([1e9]), [True])[0] for _ in range(2)] == pytest.approx([2, 4])
    opposed = reference.Belief(1).step(np.array([-5.0]), [True])[0]
    assert opposed == pytest.approx(5 * math.exp(-2.3), rel=1e-14)


def test_settings_of_the_rule_follow_their_tasks() -> None:
    pipeline = Pipeline(3, reference.targets, per_task=np.array([1.0, 2.0, 3.0]))
    outcome = pipeline.step([7.0, None, 0.5])
    assert outcome.contributions[2] / outcome.contributions[0] == pytest.approx(3, rel=1e-12)
    weights = np.array([1.0, 2.0, 5.0])
    kept = Pipeline(3, lambda _, own: reference.fixed(own), per_task=weights)
    np.testing.assert_allclose(kept.step([1.0, 1.0, None]).weights, [1 / 3, 2 / 3, 0], rtol=1e-14)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_norms_that_are_not_finite_change_nothing(bad: float) -> None:
    for make in (Pipeline.default, Pipeline.paper):
        clean, spoilt = make(2), make(2)
        for n in range(150):
            g = list(norms(2, n))
            if n % 7 == 3:
                multipliers = np.minimum(spoilt.last, spoilt.rise * spoilt.used)
                outcome = spoilt.step([bad, g[1]], present=[True, True])
                assert not outcome.finite
                np.testing.assert_array_equal(outcome.multipliers, multipliers)
            np.testing.assert_array_equal(clean.step(g).multipliers, spoilt.step(g).multipliers)
