"""FAMO against autograd of its own losses, beside torch's Adam."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from _streams import both, led, stream
from gaba.rules import FAMO


def by_autograd(losses: Sequence[Tensor], rate: float, decay: float, minimum: Tensor) -> Tensor:
    """The published algorithm, with the loss after a step being that of the next one."""
    xi = torch.zeros(len(minimum), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([xi], lr=rate, weight_decay=decay)
    rows: list[Tensor] = []
    for step, now in enumerate(losses):
        if step:
            fallen = (losses[step - 1] - minimum + 1e-8).log() - (now - minimum + 1e-8).log()
            optimizer.zero_grad()
            (torch.softmax(xi, -1) @ fallen).backward()
            optimizer.step()
        z, own = torch.softmax(xi, -1).detach(), now.clone().requires_grad_()
        gap = own - minimum + 1e-8
        (z / (z / gap).sum().detach() * gap.log()).sum().backward()
        assert own.grad is not None
        rows.append(own.grad)
    return torch.stack(rows)


@pytest.mark.parametrize("n_tasks", [1, 2, 10])
@pytest.mark.parametrize(("rate", "decay"), [(0.025, 0.01), (0.3, 0.0), (0.1, 1.0)])
@pytest.mark.parametrize("bound", [0.0, -21.0])
def test_every_step_is_that_of_autograd(
    n_tasks: int, rate: float, decay: float, bound: float
) -> None:
    along = stream(n_tasks, steps=60, seed=n_tasks, spread=0.5)
    minimum = torch.full((n_tasks,), bound, dtype=torch.float64)
    found, _ = led(FAMO(rate, decay, bound), along)
    expected = by_autograd([seen.losses for seen in along], rate, decay, minimum)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(found.sum(1), torch.ones(60).double())


def test_a_task_that_falls_faster_loses_weight_until_all_fall_alike() -> None:
    losses, state, rule = torch.ones(2).double(), None, FAMO(learning_rate=0.05, decay=0.0)
    speed = torch.tensor([0.04, 0.01]).double()
    z = torch.ones(2).double() / 2
    for _ in range(600):
        weights, state = led(rule, [both(losses)], state=state)
        z = weights[0] * losses / (weights[0] * losses).sum()
        losses = losses * torch.exp(-speed * z)  # each falls as it is weighed
    rates = speed * z
    torch.testing.assert_close(rates[0], rates[1], rtol=0.05, atol=0)


def test_bounds_of_each_task() -> None:
    rule = FAMO(minimum=[1.0, -1.0])
    weights, _ = rule.update(both([2.0, 1.0]), rule.init(2))
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 1 / 3]).double(), rtol=1e-7, atol=0)
    with pytest.raises(ValueError, match="FAMO: minimum"):
        rule.init(3)


@pytest.mark.parametrize("loss", [0.5, 1.0 - 3e-8, -3.0])
def test_a_loss_below_its_bound_gives_nan(loss: float) -> None:
    rule = FAMO(minimum=1.0)
    weights, _ = rule.update(both([loss, 2.0]), rule.init(2))
    assert weights.isnan().all()


@pytest.mark.parametrize(
    ("settings", "word"), [({"learning_rate": 0.0}, "learning_rate"), ({"decay": -0.1}, "decay")]
)
def test_settings_out_of_range(settings: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        FAMO(**settings)
