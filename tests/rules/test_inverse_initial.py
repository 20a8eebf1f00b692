"""The control that is fixed at the inverse of the first losses."""

from __future__ import annotations

import pytest
import torch

from _streams import both, led, stream
from gaba.rules import InverseInitial


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("n_tasks", [1, 2, 10])
def test_it_is_the_inverse_mean_of_the_first_losses_for_ever(steps: int, n_tasks: int) -> None:
    along = stream(n_tasks, steps=10, seed=n_tasks)
    weights, _ = led(InverseInitial(steps), along)
    for step, found in enumerate(weights):
        first = torch.stack([seen.losses for seen in along[: min(step + 1, steps)]])
        torch.testing.assert_close(found, 1 / first.mean(0), rtol=1e-12, atol=0)
    assert (weights[steps:] == weights[-1]).all()


def test_a_late_task_has_first_losses_of_its_own() -> None:
    along = stream(2, steps=8)
    flags = [torch.tensor([True, step >= 3]) for step in range(8)]
    weights, _ = led(InverseInitial(2), along, flags)
    late = torch.stack([along[3].losses[1], along[4].losses[1]]).mean()
    torch.testing.assert_close(weights[-1, 1], 1 / late)


@pytest.mark.parametrize("loss", [0.0, -1.0])
def test_a_start_without_inverse_gives_nan(loss: float) -> None:
    rule = InverseInitial()
    weights, _ = rule.update(both([loss, 1.0]), rule.init(2))
    assert weights.isnan().tolist() == [True, False]


def test_settings_out_of_range() -> None:
    with pytest.raises(ValueError, match="steps"):
        InverseInitial(0)
