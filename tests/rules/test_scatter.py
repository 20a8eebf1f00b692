"""SLAW against the moments of NumPy: plain means first, exponential ones then."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from _streams import both, led, stream
from gaba.rules import InverseDeviation


def by_numpy(losses: np.ndarray, decay: float, epsilon: float) -> np.ndarray:
    """(steps, K), from the moments of weights that are written out for each step."""
    steps, n_tasks = losses.shape
    first = round(1 / (1 - decay))
    rows = [np.ones(n_tasks)]
    for step in range(2, steps + 1):
        weights = np.full(step, 1 / min(step, first))
        for later in range(first, step):
            weights[:later] *= decay
            weights[later] = 1 - decay
        deviation = [
            np.sqrt(np.cov(column, aweights=weights, ddof=0)) for column in losses[:step].T
        ]
        inverse = 1 / np.maximum(deviation, epsilon)
        rows.append(n_tasks * inverse / inverse.sum())
    return np.stack(rows)


@pytest.mark.parametrize("n_tasks", [1, 2, 10])
@pytest.mark.parametrize("decay", [0.9, 0.75])
def test_every_step_is_that_of_the_weighted_deviation(n_tasks: int, decay: float) -> None:
    along = stream(n_tasks, steps=40, seed=n_tasks)
    found, _ = led(InverseDeviation(decay), along)
    losses = torch.stack([seen.losses for seen in along]).numpy()
    expected = by_numpy(losses, decay, 1e-5)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(found.sum(1), n_tasks, rtol=1e-12)


def test_a_loss_that_stands_still_counts_as_one_that_scatters_by_epsilon() -> None:
    rule = InverseDeviation(epsilon=0.5)
    found, _ = led(rule, [both([2.0, 0.0]), both([2.0, 4.0])])  # deviations 0 and 2
    assert found[-1].tolist() == pytest.approx([2 * 0.8, 2 * 0.2])


def test_a_task_with_one_loss_keeps_its_multiplier_and_one_that_is_missing_its_scatter() -> None:
    rule, late = InverseDeviation(), torch.nan
    along = [both([1.0, 10.0, late]), both([3.0, 16.0, late]), both([late, 16.0, 7.0])]
    found, state = led(rule, along)
    assert found[1, :2].tolist() == pytest.approx([1.5, 0.5])
    assert found[2, 1:].tolist() == pytest.approx([1.0, 1.0])
    assert (state.mean[0], state.count.tolist()) == (2.0, [2, 3, 1])


@pytest.mark.parametrize(("settings", "word"), [({"decay": 1.0}, "decay"), ({"epsilon": 0}, "eps")])
def test_settings_out_of_range(settings: dict[str, float], word: str) -> None:
    with pytest.raises(ValueError, match=f"InverseDeviation: {word}"):
        InverseDeviation(**settings)
