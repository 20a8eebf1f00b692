"""Twenty shares of the S&P 500: equal volatility, equal risk, and how much smoothing saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gaba.domains._picture import COLOURS, panels, save
from gaba.domains.portfolio import EqualEffect, turnover
from gaba.stabilisers import EMA


def main(folder: Path) -> None:
    from skfolio.datasets import load_sp500_dataset
    from skfolio.model_selection import WalkForward, cross_val_predict
    from skfolio.optimization import InverseVolatility, RiskBudgeting
    from skfolio.preprocessing import prices_to_returns

    returns: Any = prices_to_returns(load_sp500_dataset())
    inverse, shared = EqualEffect().fit(returns), EqualEffect("equal-share").fit(returns)
    peers: Any = InverseVolatility().fit(returns), RiskBudgeting().fit(returns)
    for ours, peer in zip((inverse, shared), peers, strict=True):
        apart = np.abs(ours.weights_ - peer.weights_).max()
        print(f"{ours.rule:11} {apart:.1e} from {type(peer).__name__}, at the most;", end=" ")
        print(f"shares of the risk from {ours.shares_.min():.3f} to {ours.shares_.max():.3f}")
    differ = np.abs(inverse.weights_ - shared.weights_)
    print(f"the two rules differ by up to {differ.max():.4f} ({returns.columns[differ.argmax()]})")

    monthly = WalkForward(test_size=20, train_size=240)
    weights = {}
    for name, decay in (("last month", 0.0), ("EMA .9", 0.9)):
        model = EqualEffect(stabiliser=EMA(decay, debias=True), window=20)
        path: Any = cross_val_predict(model, returns.iloc[-2520:], cv=monthly)
        weights[name] = np.stack([portfolio.weights for portfolio in path])
        traded = turnover(weights[name]).mean()
        risk = path.annualized_standard_deviation
        print(f"{name:10} turnover {traded:.1%} a month, volatility {risk:.1%} a year")

    figure, (left, right) = panels("What each asset adds to the risk", "Weights, monthly")
    place = np.arange(len(returns.columns))
    left.bar(place - 0.2, inverse.shares_, 0.4, color=COLOURS[0], label="inverse volatility")
    left.bar(place + 0.2, shared.shares_, 0.4, color=COLOURS[1], label="equal share")
    left.set_xticks(place, returns.columns, rotation=90, fontsize=7)
    left.set(ylabel="share of the variance", ylim=(0, 0.07))
    left.legend(fontsize=8, ncols=2, loc="upper left")
    for k in range(3):
        for name, style in (("last month", ":"), ("EMA .9", "-")):
            label = f"{returns.columns[k]}, {name}"
            right.plot(weights[name][:, k], style, color=COLOURS[k], label=label)
    right.set_ylim(0, 0.1)
    right.set(xlabel="month", ylabel="weight")
    right.legend(fontsize=7, ncols=3)
    save(figure, folder / "portfolio.png")
