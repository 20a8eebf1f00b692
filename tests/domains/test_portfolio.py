"""Portfolios against skfolio's own estimators, on its bundled prices of the S&P 500."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from skfolio import RiskMeasure
from skfolio.datasets import load_sp500_dataset
from skfolio.exceptions import NonPositiveVarianceError
from skfolio.model_selection import WalkForward, cross_val_predict
from skfolio.optimization import BaseOptimization, InverseVolatility, RiskBudgeting
from skfolio.pre_selection import DropZeroVariance
from skfolio.preprocessing import prices_to_returns
from skfolio.prior import EmpiricalPrior
from sklearn.base import clone
from sklearn.pipeline import Pipeline

import gaba
from gaba.domains.portfolio import EqualEffect, turnover
from gaba.rules import InverseNorm, Targets, Uniform
from gaba.stabilisers import EMA, LogEMA


@pytest.fixture(scope="module")
def returns() -> pd.DataFrame:
    found: Any = prices_to_returns(load_sp500_dataset())
    return found


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def same_weights(ours: EqualEffect, theirs: BaseOptimization) -> None:
    assert theirs.weights_ is not None
    np.testing.assert_allclose(ours.weights_, theirs.weights_, rtol=0, atol=1e-5)


# --- against skfolio -----------------------------------------------------------------------------


def test_inverse_norms_are_skfolios_inverse_volatility(returns: pd.DataFrame) -> None:
    ours, theirs = EqualEffect().fit(returns), InverseVolatility().fit(returns)
    same_weights(ours, theirs)


def test_equal_share_is_skfolios_risk_budgeting(returns: pd.DataFrame) -> None:
    ours, theirs = EqualEffect("equal-share").fit(returns), RiskBudgeting().fit(returns)
    same_weights(ours, theirs)
    np.testing.assert_allclose(ours.shares_, 1 / 20, rtol=1e-9)


def test_targets_are_skfolios_risk_budgets(returns: pd.DataFrame) -> None:
    budget = dict(zip(returns.columns, np.linspace(1, 4, 20).tolist(), strict=True))
    ours = EqualEffect("equal-share", risk_budget=budget).fit(returns)
    theirs = RiskBudgeting(risk_budget=budget).fit(returns)
    same_weights(ours, theirs)
    np.testing.assert_allclose(ours.shares_ * 50, list(budget.values()), rtol=1e-9)


def test_the_two_rules_differ_where_assets_are_correlated(returns: pd.DataFrame) -> None:
    inverse, shared = EqualEffect().fit(returns), EqualEffect("equal-share").fit(returns)
    assert np.abs(inverse.weights_ - shared.weights_).max() > 0.01
    assert inverse.shares_.max() / inverse.shares_.min() > 1.9
    pull = inverse.weights_ * inverse.volatilities_
    np.testing.assert_allclose(pull, pull[0], rtol=1e-9)


def test_an_average_of_the_volatilities_saves_most_of_the_turnover(returns: pd.DataFrame) -> None:
    traded, risk = [], []
    for decay in (0.0, 0.9):
        model = EqualEffect(stabiliser=EMA(decay, debias=True), window=20)
        cv = WalkForward(test_size=20, train_size=240)
        path: Any = cross_val_predict(model, returns.iloc[-1000:], cv=cv)
        traded.append(turnover([one.weights for one in path]).mean())
        risk.append(path.annualized_standard_deviation)
    assert traded[0] > 5 * traded[1]
    assert risk[1] < 1.02 * risk[0]


# --- skfolio's conventions -----------------------------------------------------------------------


def test_it_is_cloned_and_runs_in_a_pipeline(returns: pd.DataFrame) -> None:
    model = EqualEffect("equal-share", stabiliser=LogEMA(0.5), window=60)
    copy = clone(model)
    assert copy is not model
    assert copy.get_params() == model.get_params()
    held = returns.iloc[-300:].assign(CASH=0.0)
    pipeline = Pipeline([("drop", DropZeroVariance()), ("weigh", copy)])
    portfolio: Any = pipeline.fit(held).predict(held)
    assert len(portfolio.weights) == 20
    assert sum(portfolio.weights) == pytest.approx(1)
    assert portfolio.name == "EqualEffect"


def test_a_fallback_of_skfolio_is_used(returns: pd.DataFrame) -> None:
    held = returns.iloc[-300:].assign(CASH=0.0)
    model = EqualEffect(fallback="previous_weights", previous_weights=1 / 21).fit(held)
    np.testing.assert_allclose(model.weights_, 1 / 21)


def test_a_stabiliser_of_one_window_changes_nothing(random: np.random.Generator) -> None:
    values = random.normal(size=(60, 3)) * [1, 2, 5]
    plain = EqualEffect("equal-share").fit(values)
    smooth = EqualEffect("equal-share", stabiliser=LogEMA(0.5), window=60).fit(values)
    np.testing.assert_allclose(smooth.weights_, plain.weights_, rtol=1e-9)


def test_a_stabiliser_sees_the_windows_oldest_first(random: np.random.Generator) -> None:
    values = random.normal(size=(107, 2)) * [0.01, 0.03]
    model = EqualEffect(stabiliser=EMA(0.6, debias=True), window=25).fit(values)
    mean, mass = np.zeros(2), 0.0
    for start in (7, 32, 57, 82):
        mean = 0.6 * mean + 0.4 * values[start : start + 25].std(axis=0, ddof=1)
        mass = 0.6 * mass + 0.4
    np.testing.assert_allclose(model.volatilities_, mean / mass, rtol=1e-12)
    np.testing.assert_allclose(model.weights_, InverseNorm()(mean), rtol=1e-12)


def test_a_rule_object_and_its_name_are_the_same(random: np.random.Generator) -> None:
    values = random.normal(size=(50, 4))
    for name in ("inverse", "equal-share", "sqrt-inverse", "equal-projection", "uniform"):
        rule = gaba.methods.get(name).rule
        one, other = EqualEffect(name).fit(values), EqualEffect(rule).fit(values)
        np.testing.assert_array_equal(one.weights_, other.weights_)
    twice = EqualEffect(Targets((1, 1, 1, 2))).fit(values)
    np.testing.assert_allclose(
        twice.weights_, EqualEffect(risk_budget=[1, 1, 1, 2]).fit(values).weights_
    )


# --- bad input -----------------------------------------------------------------------------------


def prior_of(covariance: np.ndarray) -> EmpiricalPrior:
    """A prior whose covariance is what it is told."""
    from skfolio.moments import BaseCovariance

    class Told(BaseCovariance):
        def __init__(self, covariance: Any = None) -> None:
            super().__init__(nearest=False)
            self.covariance = covariance

        def fit(self, X: Any, y: Any = None, **_: Any) -> Told:
            self.covariance_ = np.asarray(self.covariance)
            return self

    return EmpiricalPrior(covariance_estimator=Told(covariance))


@pytest.mark.parametrize("variance", [0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("weighting", ["inverse", "equal-share"])
def test_a_variance_that_is_not_positive_is_refused(
    variance: float, weighting: str, random: np.random.Generator
) -> None:
    table = pd.DataFrame(random.normal(size=(30, 2)), columns=["GOOD", "BAD"])
    model = EqualEffect(weighting, prior_estimator=prior_of(np.diag([1.0, variance])))
    with pytest.raises(ValueError, match=r"asset BAD: its variance must be positive and finite"):
        model.fit(table)


def test_a_constant_asset_is_refused_by_name(random: np.random.Generator) -> None:
    table = pd.DataFrame(random.normal(size=(30, 2)), columns=["A", "B"]).assign(CASH=0.0)
    told = EqualEffect(prior_estimator=prior_of(table.cov().to_numpy()))
    with pytest.raises(ValueError, match=r"asset CASH.*found 0.*DropZeroVariance"):
        told.fit(table)
    with pytest.raises(NonPositiveVarianceError, match=r"CASH"):
        EqualEffect().fit(table)


def test_an_asset_that_stood_still_in_every_window_is_refused(random: np.random.Generator) -> None:
    values = random.normal(size=(45, 2))
    values[5:, 1] = 0
    with pytest.raises(ValueError, match=r"asset 1: its variance"):
        EqualEffect(stabiliser=EMA(0.5, debias=True), window=20).fit(values)


def test_a_riskless_portfolio_is_refused_where_shares_are_asked_for(
    random: np.random.Generator,
) -> None:
    hedge = np.array([[1.0, -1.0, 0.3], [-1.0, 1.0, -0.3], [0.3, -0.3, 1.0]])
    model = EqualEffect("equal-share", prior_estimator=prior_of(hedge))
    with pytest.raises(ValueError, match=r"some risk.*LedoitWolf"):
        model.fit(random.normal(size=(30, 3)))
    assert EqualEffect(prior_estimator=prior_of(hedge)).fit(random.normal(size=(30, 3))) is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"risk_budget": {"A": 1.0, "C": 1.0}}, r"risk_budget must name the assets of X.*B, C"),
        ({"risk_budget": [1.0, 0.0]}, r"Targets: ratios must be finite and positive, found 0"),
        ({"risk_budget": [1.0, 2.0, 3.0]}, r"found 3 for 2 tasks"),
        ({"risk_budget": [1, 2], "rule": Uniform()}, r"risk_budget: only a rule"),
        ({"stabiliser": LogEMA(), "window": 31}, r"window must be from 2 to the 30 observations"),
        ({"stabiliser": LogEMA(), "window": 1}, r"window must be from 2"),
        ({"rule": "risk"}, r"method must be one of .* found 'risk'"),
        ({"stabiliser": "mean"}, r"stabiliser must be a Stabiliser, found 'mean'"),
    ],
)
def test_wrong_settings_are_one_clear_line(
    settings: dict[str, Any], message: str, random: np.random.Generator
) -> None:
    table = pd.DataFrame(random.normal(size=(30, 2)), columns=["A", "B"])
    with pytest.raises(ValueError, match=message) as caught:
        EqualEffect(**settings).fit(table)
    assert "\n" not in str(caught.value)


def test_turnover_of_one_row_is_refused() -> None:
    with pytest.raises(ValueError, match=r"N >= 2, found \(1, 2\)"):
        turnover([[0.5, 0.5]])
    assert turnover([[1.0, 0.0], [0.0, 1.0]]).tolist() == [1.0]


def test_shares_of_the_risk_are_skfolios_contributions(returns: pd.DataFrame) -> None:
    for rule in ("inverse", "equal-share"):
        model = EqualEffect(rule).fit(returns)
        held: Any = model.predict(returns)
        risks = held.contribution(measure=RiskMeasure.VARIANCE)
        np.testing.assert_allclose(model.shares_, risks / np.sum(risks), rtol=1e-5)


def test_turnover_is_one_way_where_skfolios_counts_both_sides(returns: pd.DataFrame) -> None:
    cv = WalkForward(test_size=20, train_size=240)
    path: Any = cross_val_predict(EqualEffect(), returns.iloc[-500:], cv=cv)
    if not hasattr(path, "turnover"):
        pytest.skip("this skfolio measures no turnover")
    ours = turnover([portfolio.weights for portfolio in path])
    np.testing.assert_allclose(ours, path.turnover.to_numpy()[1:] / 2, rtol=1e-9)
