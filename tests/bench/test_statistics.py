"""The statistics against closed forms, published tables, brute force and plain SciPy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests

from gaba.bench import statistics as stats

SIZES = (1, 2, 5, 9)


def samples(n: int, count: int = 20) -> list[Any]:
    rng = np.random.default_rng(n)
    return [*rng.normal(0.4, 1, size=(count, n)), *rng.integers(-2, 3, size=(count, n)) * 1.0]


# --- sign flips ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", SIZES)
def test_sign_flips_are_all_counted(n: int) -> None:
    for d in samples(n):
        sums = [abs(np.dot(signs, d)) for signs in itertools.product((-1, 1), repeat=n)]
        p = np.mean(np.array(sums) >= abs(d.sum()) - 1e-9)
        assert stats.sign_flip(d) == pytest.approx(p)
        assert stats.smallest_p(n) <= stats.sign_flip(d) <= 1


@pytest.mark.parametrize("n", [5, 6, 10])
def test_the_smallest_p_is_reached_where_all_signs_agree(n: int) -> None:
    d = np.random.default_rng(n).uniform(0.1, 1, n)
    assert stats.sign_flip(d) == stats.sign_flip(-d) == stats.wilcoxon(d) == stats.smallest_p(n)
    assert stats.smallest_p(n) == 2 / 2**n


def test_five_seeds_cannot_reach_five_per_cent() -> None:
    assert stats.smallest_p(5) > 0.05 > stats.smallest_p(6)


def test_drawn_flips_come_near_the_counted_ones() -> None:
    d = np.random.default_rng(1).normal(0.5, 1, 14)
    zeros = np.concatenate((d, np.full(4, 1e-9)))  # 18 signs: drawn, and hardly different
    assert stats.sign_flip(zeros, draws=40_000) == pytest.approx(stats.sign_flip(d), abs=0.01)
    assert stats.sign_flip(zeros, seed=1) == stats.sign_flip(zeros, seed=1)
    assert stats.sign_flip(np.full(40, 1.0), draws=100) == 2 / 101  # two sides, one count added


@pytest.mark.parametrize("n", [5, 8, 10])
def test_wilcoxon_flips_the_signs_of_ranks(n: int) -> None:
    for d in np.random.default_rng(n).normal(0.3, 1, size=(20, n)):
        ranks = np.sign(d) * scipy_stats.rankdata(np.abs(d))
        assert stats.wilcoxon(d) == pytest.approx(stats.sign_flip(ranks))


def test_wilcoxon_is_exact_with_ties_and_zeros() -> None:
    assert stats.wilcoxon([0.0, 0.0]) == 1.0
    ranks = np.array([1.5, 1.5, 3.5, -3.5, 5.0])
    assert stats.wilcoxon([1, 1, 2, -2, 3, 0]) == stats.sign_flip(ranks)


def test_the_chance_of_a_false_finding_is_kept() -> None:
    rng = np.random.default_rng(0)
    found = [stats.sign_flip(d) <= 0.05 for d in rng.normal(size=(2000, 8))]
    assert np.mean(found) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_pooled_flips_are_those_of_brute_force() -> None:
    blocks = [np.array([1.0, 0.5, -0.2]), np.array([0.3, 0.4])]
    weighed = np.concatenate([block / len(block) for block in blocks])
    sums = [abs(np.dot(signs, weighed)) for signs in itertools.product((-1, 1), repeat=5)]
    assert stats.blocked_sign_flip(blocks) == np.mean(np.array(sums) >= abs(weighed.sum()) - 1e-9)
    means = [block.mean() for block in blocks]
    assert stats.blocked_sign_flip(blocks, flip="block") == stats.sign_flip(means)


def test_pooling_shows_what_no_single_problem_can() -> None:
    blocks = [np.array([0.2, 0.1, 0.15, 0.12, 0.3])] * 6
    assert min(stats.sign_flip(block) for block in blocks) > 0.05
    assert stats.blocked_sign_flip(blocks) < 0.001
    assert stats.blocked_sign_flip(blocks, flip="block") == 2 / 2**6


# --- correction ----------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    # 4·.005, then 3·.01, then 2·.03, then max(.04, .06)
    assert stats.holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.6, 0.9]).tolist() == [1.0, 1.0]
    assert stats.holm([]).tolist() == []


def test_holm_counts_no_missing_test() -> None:
    p = stats.holm([0.01, math.nan, 0.03])
    assert p[[0, 2]].tolist() == pytest.approx([0.02, 0.03])
    assert math.isnan(p[1])


def test_holm_is_that_of_statsmodels() -> None:
    rng = np.random.default_rng(1)
    for p in (rng.uniform(size=9), rng.uniform(0, 0.01, 20), np.repeat([0.02, 0.5], 3)):
        truth: Any = multipletests(p, method="holm")[1]
        np.testing.assert_allclose(stats.holm(p), truth, rtol=1e-12)


def test_holm_lies_between_no_correction_and_bonferroni() -> None:
    for p in np.random.default_rng(0).uniform(size=(50, 7)):
        adjusted = stats.holm(p)
        assert (adjusted >= p).all()
        assert (adjusted <= np.minimum(7 * p, 1) + 1e-15).all()
        assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


# --- intervals -----------------------------------------------------------------------------------


def test_bootstrap_is_efrons() -> None:
    """BCa by hand: bias from the share below the mean, acceleration from the jackknife."""
    x = np.random.default_rng(0).gamma(2, size=25)
    mine = stats.bootstrap_interval(x)
    means = x[np.random.default_rng(1).integers(25, size=(200_000, 25))].mean(axis=1)
    away = x - x.mean()
    bias, skew = scipy_stats.norm.ppf((means < x.mean()).mean()), (away**3).sum() / 6
    skew /= (away**2).sum() ** 1.5
    z = bias + scipy_stats.norm.ppf([0.025, 0.975])
    low, high = np.quantile(means, scipy_stats.norm.cdf(bias + z / (1 - skew * z)))
    assert mine.estimate == pytest.approx(x.mean())
    assert (mine.low, mine.high) == pytest.approx((low, high), abs=0.03 * (high - low))
    assert stats.bootstrap_interval(x) == mine, "seeded"


def coverage(make: Callable[[Any], stats.Interval], n: int, count: int) -> float:
    rng = np.random.default_rng(n)
    return float(np.mean([0.0 in make(rng.normal(size=n)) for _ in range(count)]))


@pytest.mark.slow
def test_coverage_of_a_known_normal_mean() -> None:
    at_5 = coverage(stats.bootstrap_interval, 5, 1000)
    assert at_5 == pytest.approx(0.83, abs=0.035), "as the report says"
    assert coverage(stats.bootstrap_interval, 40, 500) == pytest.approx(0.95, abs=0.035)
    assert coverage(stats.t_interval, 5, 1500) == pytest.approx(0.95, abs=0.02)


def test_t_interval_by_hand() -> None:
    for x in samples(6, 3):
        reach = scipy_stats.t.ppf(0.95, 5) * x.std(ddof=1) / math.sqrt(6)
        mine = stats.t_interval(x, 0.9)
        assert (mine.low, mine.high) == pytest.approx((x.mean() - reach, x.mean() + reach))


def test_stratified_interval_is_the_t_interval_of_one_block_and_welchs_of_two() -> None:
    x, y = np.random.default_rng(3).normal(size=6), np.random.default_rng(4).normal(2, 3, size=9)
    one, plain = stats.stratified_interval([x]), stats.t_interval(x)
    assert (one.low, one.high) == pytest.approx((plain.low, plain.high))
    at = scipy_stats.ttest_ind(x, -y, equal_var=False).confidence_interval()
    both = stats.stratified_interval([x, y])
    assert (2 * both.low, 2 * both.high) == pytest.approx((at.low, at.high))


def test_stratified_coverage_with_few_seeds_and_uneven_noise() -> None:
    rng = np.random.default_rng(0)
    noise = np.array([1.0, 3.0, 0.2])[:, None]
    hits = [
        0 in stats.stratified_interval(list(rng.normal(size=(3, 5)) * noise)) for _ in range(900)
    ]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.025)


def test_intervals_without_spread() -> None:
    for make in (stats.bootstrap_interval, stats.t_interval):
        same, one = make([2.0, 2.0, 2.0]), make([2.0])
        assert (same.low, same.estimate, same.high) == (2, 2, 2)
        assert one.estimate == 2
        assert math.isnan(one.low)
        assert math.isnan(one.high)
    assert stats.stratified_interval([[1.0, 1.0], [3.0, 3.0]]).low == 2


def test_equivalence_is_the_ninety_per_cent_interval_inside_the_margin() -> None:
    for d in samples(5):
        if not d.std():
            continue
        for margin in (0.1, 0.6, 3.0):
            p = stats.equivalence(d, margin)
            low = scipy_stats.ttest_1samp(d, -margin, alternative="greater")
            high = scipy_stats.ttest_1samp(d, margin, alternative="less")
            assert p == pytest.approx(np.max(np.array([low, high])[:, 1]))
            interval = stats.t_interval(d, 0.9)
            assert (p < 0.05) == (-margin < interval.low and interval.high < margin)
    assert stats.equivalence([0.0, 0.0], 1.0) == 0
    assert stats.equivalence([2.0, 2.0], 1.0) == 1


# --- ranks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(4, 3), (10, 5), (7, 9)])
def test_friedman_by_hand(n: int, k: int) -> None:
    rng = np.random.default_rng(n * k)
    for _ in range(5):
        x = rng.normal(size=(n, k))
        squares = (stats.mean_ranks(x) ** 2).sum()
        chi = 12 * n / (k * (k + 1)) * (squares - k * (k + 1) ** 2 / 4)
        assert stats.friedman(x, draws=10).statistic == pytest.approx(chi)
        assert stats.friedman(x, draws=10).p == pytest.approx(scipy_stats.chi2.sf(chi, k - 1))


def test_friedman_at_its_ends() -> None:
    assert stats.friedman([[1.0, 1.0], [2.0, 2.0]]).p == 1
    always = stats.friedman(np.tile(np.arange(3.0), (5, 1)))
    assert always.statistic == pytest.approx(5 * 2)
    assert math.isnan(stats.friedman([[1.0, 2.0], [1.0, 2.0]]).statistic), "SciPy needs three"


def test_permuted_friedman_is_exact_in_small_cases_and_scipys_in_large_ones() -> None:
    # two rows of two: they agree in half of all orders; three rows of three: in 1 of 36
    assert stats.friedman([[1.0, 2.0], [1.0, 2.0]]).permuted_p == pytest.approx(1 / 2, abs=0.02)
    agree = np.tile(np.arange(3.0), (3, 1))
    assert stats.friedman(agree).permuted_p == pytest.approx(1 / 36, abs=0.006)
    x = np.random.default_rng(0).normal(size=(40, 5)) + 0.2 * np.arange(5)
    assert stats.friedman(x).permuted_p == pytest.approx(stats.friedman(x).p, abs=0.02)
    assert stats.friedman([[1.0, 1.0], [2.0, 2.0]]).permuted_p == 1


DEMSAR_5A = {
    0.05: (1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164),
    0.10: (1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920),
}


@pytest.mark.parametrize("alpha", DEMSAR_5A)
def test_nemenyi_against_the_table_of_demsar(alpha: float) -> None:
    for k, q in enumerate(DEMSAR_5A[alpha], start=2):
        critical = stats.nemenyi_critical_difference(k, 14, alpha)
        assert critical == pytest.approx(q * math.sqrt(k * (k + 1) / (6 * 14)), abs=2e-3)


def test_ranks_sum_and_share_and_put_infinity_last() -> None:
    x = np.random.default_rng(0).integers(0, 3, size=(6, 4)) * 1.0
    ranks = stats.mean_ranks(x)
    assert ranks.sum() == pytest.approx(4 * 5 / 2)
    assert ranks == pytest.approx(np.mean([scipy_stats.rankdata(row) for row in x], axis=0))
    assert stats.mean_ranks([[1.0, math.inf, 0.0]]).tolist() == [2, 3, 1]


def test_the_pairs_of_nemenyi_are_those_beyond_the_critical_difference() -> None:
    found: list[int] = []
    for scores in np.random.default_rng(2).normal(size=(20, 9, 5)) + 0.7 * np.arange(5):
        ranks, critical = stats.mean_ranks(scores), stats.nemenyi_critical_difference(5, 9)
        beyond = np.abs(ranks[:, None] - ranks) > critical
        np.testing.assert_array_equal(stats.nemenyi(scores) < 0.05, beyond)
        found.append(int(beyond.sum()))
    assert min(found) < max(found)


# --- relative measures ---------------------------------------------------------------------------


def test_delta_m_by_hand() -> None:
    # RMSE 10 → 9: +10 %; F1 .8 → .6: −25 %
    assert stats.relative_change([9.0, 0.6], [10.0, 0.8], [False, True]) == pytest.approx(-0.075)
    baseline = [3.0, 0.4, 7.0]
    assert stats.relative_change(baseline, baseline, [False, True, True]) == 0


def test_delta_m_counts_every_task_the_same() -> None:
    change = stats.relative_change(
        [0.9, 1.0, 1.0, 1.0], [1.0] * 4, [False] * 4, ["a", "b", "b", "b"]
    )
    assert change == pytest.approx(0.05)


def test_delta_m_without_a_baseline_is_not_a_number() -> None:
    assert math.isnan(stats.relative_change([1.0], [0.0], [False]))
    assert math.isnan(stats.relative_change([math.nan], [1.0], [False]))
    assert math.isnan(stats.relative_change([], [], []))


@pytest.mark.parametrize("d", [2, 3])
def test_nothing_dominates_the_front_and_the_front_dominates_the_rest(d: int) -> None:
    x = np.random.default_rng(d).integers(0, 8, size=(60, d)) * 1.0
    x[3] = math.nan
    front = set(stats.pareto_front(x).tolist())

    def dominated(i: int) -> bool:
        return any((x[j] <= x[i]).all() and (x[j] < x[i]).any() for j in range(60))

    assert front == {i for i in range(60) if i != 3 and not dominated(i)}


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: stats.sign_flip([1.0, math.nan]), "differences must be finite"),
        (lambda: stats.sign_flip([]), "at least 1"),
        (lambda: stats.wilcoxon([[1.0]]), "must be a vector"),
        (lambda: stats.blocked_sign_flip([]), "at least one"),
        (lambda: stats.smallest_p(0), "n must be at least 1"),
        (lambda: stats.holm([1.2]), "must lie in"),
        (lambda: stats.bootstrap_interval([1.0, math.inf]), "values must be finite"),
        (lambda: stats.t_interval([1.0, 2.0], level=95), "level must be in"),
        (lambda: stats.stratified_interval([[1.0]]), "at least 2"),
        (lambda: stats.stratified_interval([]), "at least one"),
        (lambda: stats.equivalence([1.0, 2.0], margin=0), "margin must be above 0"),
        (lambda: stats.friedman([[1.0, 2.0]]), "at least 2 problems"),
        (lambda: stats.mean_ranks([[1.0, math.nan]]), "no NaN"),
        (lambda: stats.mean_ranks([1.0, 2.0]), "must be"),
        (lambda: stats.nemenyi_critical_difference(1, 5), "methods must be at least 2"),
        (lambda: stats.relative_change([1.0], [1.0, 2.0], [False]), "one length"),
        (lambda: stats.pareto_front([1.0]), "points must be"),
    ],
)
def test_bad_input_is_named_in_one_line(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)
