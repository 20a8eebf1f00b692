"""Where tuning looks: the grid of learning rates and weight decays, and points of the simplex."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import final

import numpy as np

DIGITS = 6
"""Weights are rounded to so many decimals."""


@final
@dataclass(frozen=True)
class Candidate:
    """One setting that tuning tries; ``weights``, of sum 1, only where they are tuned too."""

    learning_rate: float
    weight_decay: float
    weights: tuple[float, ...] | None = None

    @property
    def multipliers(self) -> tuple[float, ...] | None:
        """K λ_k: equal weights are the plain sum.

        >>> Candidate(0.1, 0.0, (0.25, 0.75)).multipliers
        (0.5, 1.5)
        """
        if self.weights is None:
            return None
        return tuple(round(len(self.weights) * weight, DIGITS) for weight in self.weights)


def settings(rates: Sequence[float], decays: Sequence[float]) -> list[Candidate]:
    """The grid of learning rates × weight decays, in the order in which a budget is spent on it.

    For each weight decay as listed, the learning rates from the middle one outwards, a larger one
    before a smaller one, so that a small budget is not spent at one end.

    >>> [c.learning_rate for c in settings([0.001, 0.1, 0.01], [0.0])]
    [0.01, 0.1, 0.001]
    >>> len(settings([0.001, 0.01], [0.0, 1e-4, 1e-3]))
    6
    """
    ordered = sorted(set(rates))
    middle = (len(ordered) - 1) / 2
    outwards = sorted(range(len(ordered)), key=lambda i: (abs(i - middle), -i))
    return [Candidate(ordered[i], decay) for decay, i in product(dict.fromkeys(decays), outwards)]


def grid(n_tasks: int, points: int, span: float) -> list[tuple[float, ...]]:
    """The constant weights of the sweep.

    With r the ``span``, the largest ratio of two weights that is looked at: for 2 tasks ``points``
    weights at even distances of log(w₁/w₂) from −log r to log r, and 0.1, ..., 0.9; for 3 tasks a
    square lattice of about ``points`` in log(w₁/w₃) and log(w₂/w₃), from −log r to log r each; for
    more tasks uniform weights and ``points`` − 1 at random (:func:`drawn`, seed 0), since a
    lattice would need as many to the power K − 1.

    >>> grid(2, 3, 99.0)[:4]
    [(0.01, 0.99), (0.5, 0.5), (0.99, 0.01), (0.1, 0.9)]
    >>> len(grid(2, 11, 1000.0)), len(grid(3, 25, 1000.0)), len(grid(40, 25, 1000.0))
    (19, 25, 25)
    """
    if n_tasks == 1:
        return [(1.0,)]
    if n_tasks == 2:
        first = [1 / (1 + math.exp(-odds)) for odds in _even(points, span)]
        found = [(w, 1 - w) for w in (*first, *(i / 10 for i in range(1, 10)))]
    elif n_tasks == 3:
        side = _even(max(1, round(math.sqrt(points))), span)
        found = [_simplex([a, b, 0.0]) for a, b in product(side, side)]
    else:
        generator = np.random.default_rng(0)
        others = (drawn(n_tasks, span, generator) for _ in range(points - 1))
        found = [(1 / n_tasks,) * n_tasks, *others]
    return list(dict.fromkeys(tuple(round(w, DIGITS) for w in weights) for weights in found))


def _even(points: int, span: float) -> list[float]:
    if points == 1:
        return [0.0]
    return np.linspace(-math.log(span), math.log(span), points).tolist()


def _simplex(logs: Sequence[float]) -> tuple[float, ...]:
    raw = np.exp(np.asarray(logs) - max(logs))
    return tuple((raw / raw.sum()).tolist())


def drawn(n_tasks: int, span: float, generator: np.random.Generator) -> tuple[float, ...]:
    """Random weights: log w_k uniform between 0 and log ``span``, then brought to sum 1.

    >>> weights = drawn(3, 1000.0, np.random.default_rng(0))
    >>> round(sum(weights), 5), max(weights) / min(weights) <= 1001
    (1.0, True)
    """
    logs = generator.uniform(0, math.log(span), n_tasks).tolist()
    return tuple(round(w, DIGITS) for w in _simplex(logs))


def joint(
    label: str, count: int, n_tasks: int, span: float, of: Sequence[Candidate]
) -> list[Candidate]:
    """``count`` points of weights × settings, drawn at random; the same ones for a ``label``.

    >>> of = settings([0.1, 0.01], [0.0])
    >>> joint("toy adam", 4, 3, 1000.0, of) == joint("toy adam", 4, 3, 1000.0, of)
    True
    """
    generator = np.random.default_rng(zlib.crc32(label.encode()))
    found: list[Candidate] = []
    for _ in range(count):
        chosen = of[int(generator.integers(len(of)))]
        weights = drawn(n_tasks, span, generator)
        found.append(Candidate(chosen.learning_rate, chosen.weight_decay, weights))
    return found
