"""What is known of the rules in figures, and where they coincide."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from _asserts import assert_equal_contributions, assert_equal_shares
from _inputs import TASK_COUNTS, norm_families, with_norms
from gaba.measures import contributions, imbalance, shares
from gaba.rules import (
    EqualProjection,
    EqualShare,
    Gaba,
    InverseNorm,
    LogInverse,
    RankInverse,
    Rule,
    Uniform,
)

NORMS = norm_families()


@pytest.mark.parametrize("cosine", [-1.0, -0.999999, -0.5, 0.0, 0.3, 0.999999, 1.0])
@pytest.mark.parametrize("norms", [(5.0, 0.01), (1.0, 1.0), (1e20, 1e-20), (3e-23, 1e-23)])
def test_for_two_tasks_four_rules_are_one(norms: tuple[float, float], cosine: float) -> None:
    values = np.array(norms)
    gramian = with_norms(np.array([[1.0, cosine], [cosine, 1.0]]), values)
    expected = np.array([norms[1], norms[0]]) / sum(norms)
    for weights in (
        Gaba()(values),
        InverseNorm()(values),
        EqualShare()(gramian),
        EqualProjection()(gramian),
    ):
        np.testing.assert_allclose(weights, expected, rtol=1e-9)


@pytest.mark.parametrize("name", NORMS)
def test_for_orthogonal_gradients_three_rules_are_one(name: str) -> None:
    norms = NORMS[name]
    gramian = np.diag(norms**2)
    expected = (1 / norms) / (1 / norms).sum()
    for weights in (InverseNorm()(norms), EqualShare()(gramian), EqualProjection()(gramian)):
        np.testing.assert_allclose(weights, expected, rtol=1e-9)


def test_equal_contributions_are_not_equal_shares() -> None:
    # Unit norms; the second and third task oppose each other, and lean a little from and to the
    # first.
    gramian = np.array([[1, -0.098, 0.106], [-0.098, 1, -0.9], [0.106, -0.9, 1]])
    inverse = InverseNorm()(np.sqrt(np.diag(gramian)))
    assert_equal_contributions(inverse, np.ones(3), rtol=1e-15)
    np.testing.assert_allclose(shares(inverse, gramian), [0.83, 0.002, 0.17], atol=0.002)
    assert_equal_shares(EqualShare()(gramian), gramian)
    np.testing.assert_allclose(shares(EqualShare()(gramian), gramian), 1 / 3, rtol=1e-10)


def test_equal_contributions_are_not_equal_shares_with_the_first_task_apart() -> None:
    gramian = np.array([[1, 0, 0], [0, 1, -0.9], [0, -0.9, 1]])
    np.testing.assert_allclose(shares(np.ones(3) / 3, gramian), [10 / 12, 1 / 12, 1 / 12])
    np.testing.assert_allclose(shares(EqualShare()(gramian), gramian), 1 / 3, rtol=1e-10)


@pytest.mark.parametrize(
    ("rule", "weights", "pulls", "ratio"),
    [
        (Uniform(), ".5000/.5000", "2.500000/.005000", "500.00"),
        (InverseNorm(power=0.5), ".0428/.9572", ".214035/.009572", "22.36"),
        (Gaba(), ".0020/.9980", ".009980/.009980", "1.00"),
        (InverseNorm(), ".0020/.9980", ".009980/.009980", "1.00"),
    ],
)
@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_the_table_of_norms_5_and_a_hundredth(
    kind: type, rule: Rule, weights: str, pulls: str, ratio: str
) -> None:
    norms = kind([5.0, 0.01])
    found = rule(norms)

    def printed(values: object, digits: int) -> str:
        return "/".join(f"{float(x):.{digits}f}".removeprefix("0") for x in np.asarray(values))

    assert printed(found, 4) == weights
    assert printed(contributions(found, norms), 6) == pulls
    assert f"{float(imbalance(found, norms)):.2f}" == ratio


@pytest.mark.parametrize("n_tasks", range(2, 101))
def test_inverse_norms_make_contributions_equal_for_every_number_of_tasks(n_tasks: int) -> None:
    norms = np.exp(10 * np.random.default_rng(n_tasks).standard_normal((3, n_tasks)))
    assert_equal_contributions(InverseNorm()(norms), norms, rtol=1e-6)
    assert_equal_contributions(InverseNorm()(torch.tensor(norms)).numpy(), norms, rtol=1e-6)


@pytest.mark.parametrize("name", NORMS)
def test_inverse_norms_make_contributions_equal_from_1e_minus_23_to_1e20(name: str) -> None:
    assert_equal_contributions(InverseNorm()(NORMS[name]), NORMS[name], rtol=1e-12)


@pytest.mark.parametrize("power", [0.0, 0.3, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("n_tasks", TASK_COUNTS)
def test_a_power_leaves_the_imbalance_to_the_rest_of_it(power: float, n_tasks: int) -> None:
    norms = np.exp(np.random.default_rng(n_tasks).standard_normal(n_tasks))
    left = imbalance(InverseNorm(power=power)(norms), norms)
    expected = (norms.max() / norms.min()) ** abs(1 - power)
    assert float(left) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("name", NORMS)
def test_gaba_is_equation_4_and_bounds_its_weights(name: str) -> None:
    norms = NORMS[name]
    n_tasks, total = len(norms), norms.sum()
    if n_tasks == 1:
        return
    expected = (total - norms) / ((n_tasks - 1) * total)
    np.testing.assert_allclose(Gaba()(norms), expected, rtol=1e-9, atol=1e-15)
    assert (Gaba()(norms) <= 1 / (n_tasks - 1) * (1 + 1e-15)).all()


def test_gaba_leaves_three_tasks_apart() -> None:
    norms = np.array([100.0, 1.0, 0.01])
    weights = Gaba()(norms)
    np.testing.assert_allclose(weights, [0.005, 0.495, 0.5], atol=5e-4)
    np.testing.assert_allclose(contributions(weights, norms), [0.5, 0.495, 0.005], atol=5e-4)
    assert float(imbalance(weights, norms)) == pytest.approx(100, rel=0.02)
    assert float(imbalance(InverseNorm()(norms), norms)) == pytest.approx(1, rel=1e-12)


def test_log_inverse_is_its_formula() -> None:
    for norms in NORMS.values():
        raw = 1 / np.log1p(norms / norms.min())
        np.testing.assert_allclose(LogInverse()(norms), raw / raw.sum(), rtol=1e-12)


def test_rank_inverse_is_its_formula_and_ties_share_the_mean_rank() -> None:
    stats = pytest.importorskip("scipy.stats")
    for norms in NORMS.values():
        raw = 1 / stats.rankdata(norms, method="average")
        np.testing.assert_allclose(RankInverse()(norms), raw / raw.sum(), rtol=1e-12)
