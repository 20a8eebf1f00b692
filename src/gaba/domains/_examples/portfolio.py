"""Twenty shares of the S&P 500: equal volatility, equal risk, and how much smoothing saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gaba.domains import _sentences as say
from gaba.domains._picture import COLOURS, panels, save
from gaba.domains.portfolio import EqualEffect, turnover
from gaba.stabilisers import EMA


def main(folder: Path) -> None:
    from skfolio.datasets import load_sp500_dataset
    from skfolio.model_selection import WalkForward, cross_val_predict
    from skfolio.optimization import InverseVolatility, RiskBudgeting
    from skfolio.preprocessing import prices_to_returns

    returns: Any = prices_to_returns(load_sp500_dataset())
    first, last = returns.index[0].year, returns.index[-1].year
    say.show(f"{returns.shape[1]} stocks of the S&P 500, daily returns of {first} to {last}.")
    inverse, shared = EqualEffect().fit(returns), EqualEffect("equal-share").fit(returns)
    peers: Any = InverseVolatility().fit(returns), RiskBudgeting().fit(returns)
    for ours, peer in zip((inverse, shared), peers, strict=True):
        equal = say.agreement(ours.weights_, peer.weights_, f"skfolio's {type(peer).__name__}")
        say.show(f"{equal} {say.risk(ours.shares_)}")
    say.show(say.gap(list(returns.columns), inverse.weights_, shared.weights_))

    monthly = WalkForward(test_size=20, train_size=240)
    weights, traded, risks = {}, [], []
    for name, decay in (("last month", 0.0), ("EMA .9", 0.9)):
        model = EqualEffect(stabiliser=EMA(decay, debias=True), window=20)
        path: Any = cross_val_predict(model, returns.iloc[-2520:], cv=monthly)
        weights[name] = np.stack([portfolio.weights for portfolio in path])
        traded.append(turnover(weights[name]).mean())
        risks.append(path.annualized_standard_deviation)
    say.show(say.trading((traded[0], traded[1]), (risks[0], risks[1])))

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
