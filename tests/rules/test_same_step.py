"""FAMO along one step against the published loop, which runs each batch a second time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gaba.rules import FAMOAlong, Seen

MINIMUM = torch.tensor([0.0, -0.5, 0.0], dtype=torch.float64)


def problem() -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets and the parameters of a linear model of three outputs, one a task."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 5, generator=generator, dtype=torch.float64)
    y = torch.randn(20, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.2])
    mix = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    return x, y, mix


def losses(w: Tensor, rows: Tensor) -> Tensor:
    """(3,), of one vector of parameters that all tasks share."""
    x, y, mix = problem()
    return ((x[rows] * w) @ mix - y[rows]).square().mean(0)


def test_it_learns_what_the_second_forward_pass_of_the_published_code_shows() -> None:
    rate, step = 0.05, 1e-5
    w = torch.ones(5, dtype=torch.float64)
    rule = FAMOAlong(rate, decay=1e-6, step=step, minimum=MINIMUM.tolist())
    state = rule.init(3)
    xi = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([xi], lr=rate, weight_decay=1e-6)
    for number in range(15):
        rows = torch.arange(number % 4, 20, 4)
        w.requires_grad_()
        each = losses(w, rows)
        rows_of_j = [torch.autograd.grad(loss, w, retain_graph=True)[0] for loss in each]
        now, w, gradients = each.detach(), w.detach(), torch.stack(rows_of_j)
        seen = Seen(now, gradients.norm(dim=1), gradients @ gradients.T)
        found, state = rule.update(seen, state)

        gap = now - MINIMUM + 1e-8
        z = torch.softmax(xi, -1).detach()
        wanted = z / gap / (z / gap).sum()
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=0)
        w = w - step * (wanted @ gradients)
        after = losses(w, rows) - MINIMUM + 1e-8
        optimizer.zero_grad()
        (torch.softmax(xi, -1) @ (gap.log() - after.log())).backward()
        optimizer.step()
    assert float(xi.detach().abs().max()) > 0.1  # it has moved


def test_a_missing_task_learns_nothing() -> None:
    rule = FAMOAlong()
    gramian = torch.tensor([[4.0, 1.0, torch.nan], [1.0, 1.0, torch.nan], [torch.nan] * 3])
    seen = Seen(torch.tensor([1.0, 2.0, torch.nan]), torch.tensor([2.0, 1.0, torch.nan]), gramian)
    found, state = rule.update(seen, rule.init(3))
    assert found[:2].sum() == pytest.approx(1.0)
    assert (state.logits[2], state.moments.count.tolist()) == (0.0, [1, 1, 0])


@pytest.mark.parametrize("name", ["learning_rate", "decay", "step"])
def test_settings_out_of_range(name: str) -> None:
    with pytest.raises(ValueError, match=f"FAMOAlong: {name}"):
        FAMOAlong(**{name: -1.0})
    with pytest.raises(ValueError, match="FAMOAlong: minimum"):
        FAMOAlong(minimum=(0.0, 0.0)).init(3)
