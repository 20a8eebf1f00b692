"""Uncertainty weighting against autograd of its own loss, beside torch's Adam."""

from __future__ import annotations

import pytest
import torch

from _streams import both, led, stream
from gaba.rules import ScaleInvariant, Uncertainty


@pytest.mark.parametrize("n_tasks", [1, 2, 10])
@pytest.mark.parametrize("rate", [0.025, 0.3])
def test_every_step_is_that_of_autograd(n_tasks: int, rate: float) -> None:
    along = stream(n_tasks, steps=80, seed=n_tasks)
    s = torch.zeros(n_tasks, dtype=torch.float64, requires_grad=True)
    optimizer, rows = torch.optim.Adam([s], lr=rate), []
    for seen in along:
        losses = seen.losses.clone().requires_grad_()
        optimizer.zero_grad()
        (0.5 * torch.exp(-s) * losses + 0.5 * s).sum().backward()
        rows.append(losses.grad)  # the weights that act on the model are its own derivative
        optimizer.step()
    found, state = led(Uncertainty(rate), along)
    torch.testing.assert_close(found, torch.stack(rows), rtol=1e-10, atol=0)
    torch.testing.assert_close(state.s, s.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "losses", [[5.0, 0.01], [1.0, 1.0, 300.0], [2e-4, 3.0, 0.7, 40.0]], ids=str
)
def test_the_fixed_point_is_half_the_inverse_loss(losses: list[float]) -> None:
    values, state = torch.tensor(losses).double(), None
    for rate in (0.3, 0.03, 0.003):
        weights, state = led(Uncertainty(rate), [both(values)] * 500, state=state)
    torch.testing.assert_close(weights[-1], 0.5 * ScaleInvariant().raw(values), rtol=1e-3, atol=0)


def test_the_first_step_by_hand() -> None:
    rule = Uncertainty(learning_rate=0.1)  # Adam's first step is the rate, against the slope
    weights, state = rule.update(both([4.0, 0.5]), rule.init(2))
    assert weights.tolist() == [0.5, 0.5]
    torch.testing.assert_close(state.s, torch.tensor([0.1, -0.1]).double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf")])
def test_settings_out_of_range(rate: float) -> None:
    with pytest.raises(ValueError, match="learning_rate"):
        Uncertainty(rate)
