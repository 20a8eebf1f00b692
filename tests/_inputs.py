"""Families of norms and Gramians on which every rule has to hold its property."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

TASK_COUNTS = (2, 3, 5, 10, 40, 100)
BATCH_SHAPES = ((), (1,), (4,), (2, 3), (0,))
EXTREMES = np.array([1e-23, 5e-12, 0.01, 1.0, 5.0, 3e8, 1e20])


def norm_families() -> dict[str, Values]:
    """Positive norms (K,) by the name of their family."""
    rng = np.random.default_rng(0)
    families = {
        "paper": np.array([5.0, 0.01]),
        "one task": np.array([3.0]),
        "three far apart": np.array([100.0, 1.0, 0.01]),
        "equal": np.full(4, 2.5),
        "ties": np.array([2.0, 1.0, 2.0, 3.0]),
        "tiny": 1e-23 * np.array([3.0, 1.0, 7.0]),
        "huge": 1e20 * np.array([3.0, 1.0, 7.0]),
        "spread": EXTREMES,
        "extremes of two": np.array([1e20, 1e-23]),
    }
    for n_tasks in TASK_COUNTS:
        families[f"log-normal, {n_tasks} tasks"] = np.exp(3 * rng.standard_normal(n_tasks))
    return families


def norms_with_zeros() -> dict[str, Values]:
    """Norms (K,) of which some are exactly 0, by name."""
    return {
        "one of two": np.array([5.0, 0.0]),
        "one of three": np.array([0.0, 2.0, 0.5]),
        "two of four": np.array([1e20, 0.0, 1e-23, 0.0]),
        "minus zero": np.array([1.0, -0.0, 4.0]),
    }


def gramian_of(gradients: Values) -> Values:
    """All inner products (..., K, K) of gradients (..., K, n)."""
    return gradients @ np.swapaxes(gradients, -1, -2)


def with_norms(cosines: Values, norms: Values) -> Values:
    """The Gramian of gradients with these cosines and these norms."""
    return cosines * norms[..., :, None] * norms[..., None, :]


def cosines_of(gradients: Values) -> Values:
    """The cosines (K, K) between gradients (K, n)."""
    return gramian_of(gradients / np.linalg.norm(gradients, axis=-1, keepdims=True))


def gramian_families(n_tasks: int = 100) -> dict[str, Values]:
    """Gramians (K, K) whose gradients have a common descent direction, by name.

    Norms spread over 20 decades; conditions from 1 to singular.
    """
    rng = np.random.default_rng(n_tasks)
    norms = np.logspace(-10, 10, n_tasks)[rng.permutation(n_tasks)]
    normal = rng.standard_normal
    decaying = normal((n_tasks, n_tasks)) * np.logspace(0, -6, n_tasks)
    lags = np.abs(np.subtract.outer(np.arange(n_tasks), np.arange(n_tasks)))
    half_turn = np.linspace(-1.4, 1.4, n_tasks)
    reversed_first = normal((n_tasks, 2 * n_tasks))
    reversed_first[:, 0] = np.where(np.arange(n_tasks) == 0, -5.0, 5.0)
    cosines = {
        "orthogonal": np.eye(n_tasks),
        "random": cosines_of(normal((n_tasks, 10 * n_tasks))),
        "barely independent": cosines_of(normal((n_tasks, n_tasks + 1))),
        "correlated": cosines_of(normal((n_tasks, n_tasks)) + 3 * normal(n_tasks)),
        "nearly one direction": cosines_of(1e-6 * normal((n_tasks, n_tasks)) + normal(n_tasks)),
        "ill-conditioned": cosines_of(decaying + 5 * np.eye(n_tasks)[0]),
        "slowly decaying": 0.999**lags,
        "alternating": (-0.9) ** lags,
        "singular, rank 5": cosines_of(np.abs(normal((n_tasks, 5)))),
        "singular, in a half plane": cosines_of(
            np.stack([np.cos(half_turn), np.sin(half_turn)], axis=-1)
        ),
        "singular, all the same": np.ones((n_tasks, n_tasks)),
        "singular, every second twice": cosines_of(
            np.repeat(normal((n_tasks, 2 * n_tasks)), 2, axis=0)[:n_tasks]
        ),
        "one against all": cosines_of(reversed_first),
    }
    return {name: with_norms(matrix, norms) for name, matrix in cosines.items()}


def random_gramians(n_tasks: int, count: int = 20) -> Values:
    """Gramians (count, K, K) of gradients with norms over a few decades and one common part."""
    rng = np.random.default_rng(n_tasks)
    gradients = rng.standard_normal((count, n_tasks, 2 * n_tasks))
    gradients += rng.uniform(0, 2, (count, 1, 1)) * rng.standard_normal((count, 1, 2 * n_tasks))
    return gramian_of(gradients * np.exp(rng.standard_normal((count, n_tasks, 1))))


def permutations(n_tasks: int) -> Iterator[NDArray[np.intp]]:
    """A few orders of the tasks: turned round, rotated, and shuffled."""
    order = np.arange(n_tasks)
    yield order[::-1]
    yield np.roll(order, 1)
    yield np.random.default_rng(0).permutation(n_tasks)
