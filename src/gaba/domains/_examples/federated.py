"""Ten clients, one with a 100-fold learning rate; inside Flower, BalancedFedAvg does the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gaba.domains import _sentences as say
from gaba.domains._picture import COLOURS, panels, save
from gaba.domains.federated import ClientWeights, merge, update_norm

ROUNDS, CLIENTS, INPUTS, FASTER = 30, 10, 20, 100


def local(model: dict[str, Any], x: Any, y: Any, lr: float) -> dict[str, Any]:
    """Five steps of logistic regression on the client's own data."""
    w = model["w"].copy()
    for _ in range(5):
        w -= lr * x.T @ (1 / (1 + np.exp(-np.clip(x @ w, -50, 50))) - y) / len(y)
    return {"w": w}


def main(folder: Path) -> None:
    draw = np.random.default_rng(0)
    truth = draw.standard_normal(INPUTS)
    sizes = draw.integers(20, 200, CLIENTS)
    data = [draw.standard_normal((n, INPUTS)) for n in (*sizes, 2000)]
    labels = [(x @ truth + draw.standard_normal(len(x)) > 0).astype(float) for x in data]
    figure, (left, right) = panels("The model on new data", "What each client contributes")
    reached, fast = [], []
    for shift, name in enumerate(("FedAvg", "equal length")):
        model, accuracy, pulls = {"w": np.zeros(INPUTS)}, [], []
        for _ in range(ROUNDS):
            answers = {
                k: local(model, data[k], labels[k], lr=0.3 * FASTER if k == 0 else 0.3)
                for k in range(CLIENTS)
            }
            norms = {k: update_norm(model, answer) for k, answer in answers.items()}
            multipliers = dict(enumerate((sizes / sizes.sum()).tolist()))  # plain FedAvg
            if name == "equal length":
                multipliers = dict(ClientWeights().weigh(norms).multipliers)
            model = merge(model, answers, multipliers)
            accuracy.append(np.mean((data[-1] @ model["w"] > 0) == labels[-1]))
            pulls.append([multipliers[k] * norms[k] for k in range(CLIENTS)])
        reached.append(accuracy[-1])
        fast.append(np.mean([row[0] / sum(row) for row in pulls]))
        left.plot(range(1, ROUNDS + 1), accuracy, color=COLOURS[shift], label=name)
        at = np.arange(CLIENTS) + 0.4 * shift - 0.2
        right.bar(at, np.mean(pulls, axis=0), 0.4, color=COLOURS[shift], label=name)
    say.show(
        f"{CLIENTS} clients; client 0 trains at {FASTER} times the learning rate of the others."
    )
    say.show(*say.clients((reached[0], reached[1]), (fast[0], fast[1]), ROUNDS))
    left.set(xlabel="round", ylabel="accuracy")
    left.legend(frameon=False)
    right.set(xlabel=f"client (0 has {FASTER} times the learning rate)", yscale="log")
    right.set(ylabel="weighted length of the update, mean")
    save(figure, folder / "federated.png")
