"""What is called shared but is not is named, with how much of it there is."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import gaba
from _models import TwoStage, batch


class Mixed(nn.Module):
    """Two losses; besides a trunk, one head, and a layer that nobody uses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.head, self.unused = nn.Linear(6, 5), nn.Linear(5, 1), nn.Linear(7, 7)

    def losses(self, x: torch.Tensor) -> dict[str, Any]:
        z = self.trunk(x)
        return {"a": self.head(z).square().mean(), "b": z.square().mean()}


def noted(shared: Any, model: Any, **settings: Any) -> str:
    tasks = settings.pop("tasks", ["a", "b"])
    balancer = gaba.Balancer(tasks, shared, **settings)
    balancer.backward(model.losses(batch()))
    step = balancer.backward(model.losses(batch(1)))
    return step.about.get("shared", "")


def test_a_head_in_the_shared_part_is_named_with_its_size() -> None:
    model = Mixed()
    expected = (
        "'a' alone reaches 2 of 6 shared parameters (6 numbers): head.weight, head.bias; "
        "no loss reaches 2 of 6 shared parameters (56 numbers): unused.weight, unused.bias"
    )
    assert noted(model, model) == expected
    model.unused.requires_grad_(False)
    assert noted(model, model) == expected[: expected.index(";")].replace("of 6", "of 4")


def test_parameters_without_names_are_numbered() -> None:
    model = Mixed()
    shared = [model.trunk.weight, model.head.weight]
    assert (
        noted(shared, model) == "'a' alone reaches 1 of 2 shared parameters (5 numbers): number 1"
    )


def test_nothing_is_noted_where_two_losses_reach_all_that_is_in_use() -> None:
    model = Mixed()
    for shared in (model.trunk, nn.ModuleList([model.trunk, model.unused]), "auto"):
        assert noted(shared, model) == ""


def test_a_fixed_loss_shares_what_it_reaches() -> None:
    model = TwoStage([1.0, 2.0, 3.0])
    trunk = nn.ModuleList([model.trunk, model.heads[2]])
    tasks = ["task0", "task1"]
    note = noted(trunk, model, tasks=tasks, fixed={"task2": 1.0})
    assert note.startswith("'task2' alone reaches 2 of 6")


def test_a_step_without_all_losses_decides_nothing() -> None:
    model = Mixed()
    balancer = gaba.Balancer(["a", "b"], model)
    losses = model.losses(batch())
    assert "shared" not in balancer.backward({"b": losses["b"]}).about
    assert "shared" in balancer.backward(model.losses(batch())).about
