"""Portfolios: weights of assets by the library's rules, as an estimator of skfolio.

The norm of an asset is its volatility; the Gramian is the covariance of the returns. So
`InverseNorm` is inverse volatility, `EqualShare` equal risk contribution, `Targets` a risk budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch

import gaba
from gaba.extras import needs
from gaba.rules import EqualShare, Fixed, Proportional, Rule, Targets, Uniform
from gaba.stabilisers import Stabiliser

with needs("portfolios need", "skfolio", "skfolio"):
    from skfolio.optimization import BaseOptimization
    from skfolio.prior import BasePrior, EmpiricalPrior
    from skfolio.utils.tools import check_estimator
    from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
    from sklearn.utils.validation import (
        validate_data,  # pyright: ignore[reportAttributeAccessIssue]
    )

__all__ = ["EqualEffect", "turnover"]

TOLERANCE = 1e-6
"""How far, relative to its budget, the share of an asset may be from it under `EqualShare`."""


@final
class EqualEffect(BaseOptimization):
    """Weigh assets so that each has the same effect on the portfolio, w = rule(σ) or rule(Σ).

    Σ (K, K) is the covariance of the returns that ``prior_estimator`` finds, and σ (K,) the
    volatilities, in the unit of the returns; the weights w (K,) are long only, with sum 1. The rule
    "inverse" is skfolio's ``InverseVolatility``, "equal-share" its ``RiskBudgeting`` of the
    variance.

    A ``stabiliser`` sees the volatility of each ``window`` of the returns in turn, oldest first, so
    that weights move less from one rebalancing to the next; correlations stay those of the prior.

    Args:
        rule: A rule of norms or of a Gramian, or the name of a method that has one.
        risk_budget: The shares r_k to have instead of equal ones, up to a factor: an array, or a
            mapping that names every asset.
        stabiliser: Such as ``LogEMA(0.9)`` or ``EMA(0.9, debias=True)``; without one the
            volatilities are those of the prior.
        window: Observations in one volatility that the stabiliser sees.
        prior_estimator: skfolio's; by default ``EmpiricalPrior()``.
        portfolio_params: As in skfolio.
        fallback: As in skfolio.
        previous_weights: As in skfolio.
        raise_on_failure: As in skfolio.

    Attributes:
        weights_: w (K,).
        volatilities_: σ (K,), after the stabiliser.
        shares_: Each asset's part of the portfolio's variance (K,), by `gaba.shares`.

    Raises:
        ValueError: In ``fit``: a variance is not positive and finite; a budget is not positive or
            names other assets; ``window`` does not fit; or there are no equal shares, because some
            portfolio of these assets has no risk at all.

    Source: Maillard, Roncalli and Teïletche 2010, equations 3 to 5.

    Example:
        >>> import numpy as np
        >>> returns = np.random.default_rng(0).normal(size=(500, 3)) * [0.01, 0.02, 0.04]
        >>> model = EqualEffect().fit(returns)
        >>> (model.weights_ * model.volatilities_ / model.volatilities_[0]).round(6)
        array([0.57..., 0.57..., 0.57...])
    """

    weights_: Any
    prior_estimator_: BasePrior
    volatilities_: np.ndarray
    shares_: np.ndarray

    def __init__(
        self,
        rule: str | Rule = "inverse",
        risk_budget: Mapping[str, float] | Any | None = None,
        stabiliser: Stabiliser | None = None,
        window: int = 20,
        prior_estimator: BasePrior | None = None,
        portfolio_params: dict[str, Any] | None = None,
        fallback: Any = None,
        previous_weights: Any = None,
        raise_on_failure: bool = True,
    ) -> None:
        super().__init__(
            portfolio_params=portfolio_params,
            fallback=fallback,
            previous_weights=previous_weights,
            raise_on_failure=raise_on_failure,
        )
        self.rule = rule
        self.risk_budget = risk_budget
        self.stabiliser = stabiliser
        self.window = window
        self.prior_estimator = prior_estimator

    def get_metadata_routing(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
    ) -> MetadataRouter:
        """Where ``fit`` sends metadata: to the prior estimator, as in skfolio."""
        mapping = MethodMapping().add(caller="fit", callee="fit")
        return MetadataRouter(owner=type(self).__name__).add(
            prior_estimator=self.prior_estimator, method_mapping=mapping
        )

    def fit(self, X: Any, y: Any = None, **fit_params: Any) -> EqualEffect:
        """Find the weights for the returns ``X`` (observations, assets), linear as in skfolio."""
        routed = process_routing(self, "fit", **fit_params)
        validate_data(self, X, skip_check_array=True)
        self.prior_estimator_ = check_estimator(
            self.prior_estimator, default=EmpiricalPrior(), check_type=BasePrior
        )
        self.prior_estimator_.fit(X, y, **routed.prior_estimator.fit)
        covariance = np.asarray(self.prior_estimator_.return_distribution_.covariance)
        names = [str(name) for name in getattr(self, "feature_names_in_", range(len(covariance)))]
        _check_variances(covariance, names)
        self.volatilities_ = np.sqrt(np.diagonal(covariance))
        if self.stabiliser is not None:
            believed = _believed(np.asarray(X, np.float64), self.stabiliser, self.window)
            _check_variances(np.diag(believed**2), names)
            ratio = believed / self.volatilities_
            covariance = covariance * np.outer(ratio, ratio)
            self.volatilities_ = believed
        rule = _rule(self.rule, self.risk_budget, names)
        weights = rule(covariance if rule.needs == "gramian" else self.volatilities_)
        self.shares_ = gaba.shares(weights, covariance)
        _check_shares(self.shares_, rule)
        self.weights_ = weights
        return self


def turnover(weights: Any) -> np.ndarray:
    """How much is traded at each rebalancing, t_n = ½ Σ_k |w_nk − w_(n−1)k|, (N − 1,).

    ``weights`` (N, K) are those of asset k at rebalancing n. Moves of the prices are left out.

    Raises:
        ValueError: There are fewer than two rows.

    Example:
        >>> turnover([[0.5, 0.5], [0.6, 0.4], [0.6, 0.4]]).round(6).tolist()
        [0.1, 0.0]
    """
    rows = np.asarray(weights, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 2:
        raise ValueError(
            f"turnover: weights must have shape (N, K) with N >= 2, found {rows.shape}; give one "
            f"row a rebalancing"
        )
    return 0.5 * np.abs(np.diff(rows, axis=0)).sum(axis=1)


def _rule(asked: str | Rule, risk_budget: Any, names: list[str]) -> Rule:
    rule = gaba.methods.get(asked, names).rule if isinstance(asked, str) else asked
    constant = isinstance(rule, Uniform | Fixed)
    if (rule.needs == "losses" and not constant) or rule.init(len(names)) != ():
        raise ValueError(
            f"rule: a portfolio has risks, but no losses and no steps, found {rule!r}; use a rule "
            f"of norms or Gramian, such as 'inverse' or 'equal-share'"
        )
    if risk_budget is None:
        return rule
    if not isinstance(rule, Proportional):
        raise ValueError(
            f"risk_budget: only a rule that makes something equal can keep a budget, found "
            f"{rule!r}; use rule='inverse' or 'equal-share'"
        )
    if isinstance(risk_budget, Mapping):
        odd = sorted(set(names).symmetric_difference(risk_budget))
        if odd:
            raise ValueError(
                f"risk_budget must name the assets of X, found {', '.join(odd)} in only one of the "
                f"two; give one positive number an asset"
            )
        risk_budget = [risk_budget[name] for name in names]
    return Targets(tuple(np.asarray(risk_budget, np.float64).ravel()), rule)


def _believed(returns: np.ndarray, stabiliser: Stabiliser, window: int) -> np.ndarray:
    """The volatilities (K,) that the stabiliser believes after every window in turn."""
    if not isinstance(stabiliser, Stabiliser):
        raise ValueError(f"stabiliser must be a Stabiliser, found {stabiliser!r}; use LogEMA(0.9)")
    if not 2 <= window <= len(returns):
        raise ValueError(
            f"window must be from 2 to the {len(returns)} observations of X, found {window}; a "
            f"month has about 20 trading days"
        )
    n_assets = returns.shape[1]
    windows = returns[len(returns) % window :].reshape(-1, window, n_assets)
    state, believed = stabiliser.init(n_assets), torch.empty(0)
    for volatilities in windows.std(axis=1, ddof=1):
        believed, state = stabiliser.update(torch.from_numpy(volatilities), state)
    return believed.numpy()


def _check_variances(covariance: np.ndarray, names: list[str]) -> None:
    variances = np.diagonal(covariance)
    for name, variance in zip(names, variances, strict=True):
        if not (np.isfinite(variance) and variance > 0):
            raise ValueError(
                f"asset {name}: its variance must be positive and finite, found {variance:g}; no "
                f"weight can give such an asset its part, so leave it out (skfolio has "
                f"pre_selection.DropZeroVariance) or fix its prices"
            )
    if not np.isfinite(covariance).all():
        raise ValueError(
            "the covariance must be finite, found NaN or infinity off its diagonal; fill or leave "
            "out the missing returns"
        )


def _check_shares(shares: np.ndarray, rule: Rule) -> None:
    """Refuse the fallback of `EqualShare` if there are no equal shares."""
    inner = rule.rule if isinstance(rule, Targets) else rule
    if not isinstance(inner, EqualShare):
        return
    ratios = np.asarray(rule.ratios) if isinstance(rule, Targets) else np.ones(len(shares))
    wanted = ratios / ratios.sum()
    if not (np.abs(shares - wanted) <= TOLERANCE * wanted).all():
        raise ValueError(
            f"the covariance must leave every long portfolio some risk, found shares off by a "
            f"factor of {np.abs(shares / wanted - 1).max():.2g}; give more observations than "
            f"assets, or a shrunk covariance (skfolio has moments.LedoitWolf)"
        )
