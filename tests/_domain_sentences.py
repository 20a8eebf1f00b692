"""What the examples of ``gaba domains`` have to say, computed without gaba.

Each function makes its figures with NumPy and the field's own library alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyloudnorm
import soundfile
from numpy.typing import NDArray


def portfolio_sentences() -> tuple[str, ...]:
    """By skfolio's two estimators, and a loop over the months."""
    from skfolio import Portfolio, RiskMeasure
    from skfolio.datasets import load_sp500_dataset
    from skfolio.optimization import InverseVolatility, RiskBudgeting
    from skfolio.preprocessing import prices_to_returns

    returns: Any = prices_to_returns(load_sp500_dataset())
    weights: list[Any] = []
    parts: list[Any] = []
    for estimator in (InverseVolatility(), RiskBudgeting()):
        weights.append(estimator.fit(returns).weights_)
        held: Any = Portfolio(returns, weights[-1])
        risks = held.contribution(measure=RiskMeasure.VARIANCE)
        parts.append(100 * risks / np.sum(risks))
    k = int(np.abs(weights[0] - weights[1]).argmax())
    one, other = (f"{100 * w[k]:.2f}%" for w in weights)
    traded, risk = zip(
        *(_rebalanced(returns.to_numpy()[-2520:], d) for d in (0.0, 0.9)), strict=True
    )
    assert f"{risk[0]:.1f}" == f"{risk[1]:.1f}"
    return (
        f"A stock carries {parts[0].min():.1f}% to {parts[0].max():.1f}% of the",
        f"Every stock carries {parts[1].mean():.1f}% of the portfolio's variance.",
        f"differ most for {returns.columns[k]}: {one} by inverse volatility, {other} by equal risk",
        f"turnover from {traded[0]:.1f}% to {traded[1]:.1f}% and leaves volatility at "
        f"{risk[0]:.1f}% a year.",
    )


def _rebalanced(returns: NDArray[Any], decay: float) -> tuple[float, float]:
    """Turnover and annual volatility in percent, of weights from 12 months of 20 days each."""
    held: list[Any] = []
    earned: list[Any] = []
    for start in range(240, len(returns) - 19, 20):
        months = returns[start - 240 : start].reshape(12, 20, -1).std(axis=1, ddof=1)
        ages = np.arange(11, -1, -1.0)
        mean = np.average(months, axis=0, weights=decay**ages)
        held.append(1 / mean / (1 / mean).sum())
        earned.append(returns[start : start + 20] @ held[-1])
    moves = np.abs(np.diff(held, axis=0)).sum(axis=1) / 2
    return 100 * moves.mean(), 100 * np.concatenate(earned).std(ddof=1) * np.sqrt(252)


def mixing_sentences() -> tuple[str, ...]:
    """By pyloudnorm's meter on the recorded files and on the sum of what it normalises."""
    from gaba.domains._examples.mixing import record

    meter = pyloudnorm.Meter(44100)
    said, total = [], np.zeros(())
    with TemporaryDirectory() as folder:
        for name, path in record(Path(folder)).items():
            audio = soundfile.read(path)[0]
            if not audio.any():
                said.append(f"{name} silent (below -70 LUFS), fader left at 0 dB")
                continue
            lufs = meter.integrated_loudness(audio)
            total = total + audio * 10 ** ((-23 - lufs) / 20)
            said.append(f"{name} {lufs:.1f} LUFS, fader {-23 - lufs:+.1f} dB")
    said.append(f"The mix has {meter.integrated_loudness(total):.2f} LUFS, as 5 unrelated stems")
    return tuple(said)


def ensembles_sentences() -> tuple[str, ...]:
    """By NumPy on the values of the made-up models."""
    from gaba.domains._examples.ensembles import climate

    models, truth = (data.compute() for data in climate())
    area = np.cos(np.deg2rad(truth["lat"].values))
    apart = (models - truth).transpose("model", "time", "lat").values
    past, future = apart[:, :360], apart[:, 360:]

    def mean(values: NDArray[Any]) -> Any:
        return (values * area).sum(-1).mean(-1) / area.sum()

    bias, squares = mean(past), mean(past**2)
    spread = mean((past - bias[:, None, None]) ** 2)
    told = {
        "equal weights": (np.ones(6), 0.0),
        "inverse variance": (1 / spread, 0.0),
        "inverse MSE": (1 / squares, 0.0),
        "inverse RMSE": (squares**-0.5, 0.0),
        "bias correction": (1 / spread, bias[:, None, None]),
    }
    said, errors = [], {}
    for name, (raw, shift) in told.items():
        weights = raw / raw.sum()
        errors[name] = np.sqrt(mean(np.tensordot(weights, future - shift, 1) ** 2))
        said.append(
            f"{name} RMSE {errors[name]:.2f} K, weight of the warm model {100 * weights[-1]:.1f}%"
        )
    best, worst = min(errors, key=errors.__getitem__), max(errors, key=errors.__getitem__)
    said.append(f"{best.capitalize()} is best out of sample: RMSE {errors[best]:.2f} K.")
    said.append(f"{worst.capitalize()} is worst, {errors[worst]:.2f} K: it gives")
    return tuple(said)


def dosing_sentences() -> tuple[str, ...]:
    """By the inverse of the Hill curve, c (E / (T - E))^(1/h), at E = 1/2."""
    alone = {"strong": 0.2, "middle": 5.0, "weak": 60 * (0.5 / 0.3) ** 0.5}
    potency = {name: 1 / dose for name, dose in alone.items()}
    parts = [f"{100 * one / sum(potency.values()):.1f}%" for one in potency.values()]
    return (
        "Each drug is given at 33.3% of the dose that has the effect alone.",
        "an effect of 50.0%; Loewe's combination index is 1.000: additive.",
        *(f"{k} {dose / 3:#.3g} mg; alone it takes {dose:#.3g} mg" for k, dose in alone.items()),
        f"due {parts[0]} to strong, {parts[1]} to middle and {parts[2]} to weak.",
    )


def federated_sentences() -> tuple[str, ...]:
    """By federated logistic regression written out, with stacked updates."""
    draw = np.random.default_rng(0)
    truth = draw.standard_normal(20)
    sizes = draw.integers(20, 200, 10)
    data = [draw.standard_normal((n, 20)) for n in (*sizes, 2000)]
    labels = [(x @ truth + draw.standard_normal(len(x)) > 0).astype(float) for x in data]
    reached: list[str] = []
    first: list[str] = []
    for equal in (False, True):
        model, parts = np.zeros(20), []
        for _ in range(30):
            updates = np.empty((10, 20))
            for k in range(10):
                w, x, y = model.copy(), data[k], labels[k]
                for _ in range(5):
                    chance = 1 / (1 + np.exp(-np.clip(x @ w, -50, 50)))
                    w = w - (30.0 if k == 0 else 0.3) * x.T @ (chance - y) / len(y)
                updates[k] = w - model
            lengths = np.linalg.norm(updates, axis=1)
            # equal lengths, together as long as the median update
            weights = np.median(lengths) / 10 / lengths if equal else sizes / sizes.sum()
            model = model + weights @ updates
            parts.append(weights[0] * lengths[0] / (weights @ lengths))
        reached.append(f"{100 * np.mean((data[-1] @ model > 0) == labels[-1]):.1f}%")
        first.append(f"{100 * np.mean(parts):.1f}%")
    return (
        f"Weighted to equal length, the updates reach {reached[1]} test accuracy, FedAvg "
        f"{reached[0]}, in 30 rounds.",
        f"Client 0 makes up {first[0]} of all updates by length under FedAvg, {first[1]} at equal "
        "length.",
    )


INDEPENDENT: dict[str, Callable[[], tuple[str, ...]]] = {
    "portfolio": portfolio_sentences,
    "mixing": mixing_sentences,
    "ensembles": ensembles_sentences,
    "dosing": dosing_sentences,
}
"""The sentences of each field whose example does not learn for long."""
