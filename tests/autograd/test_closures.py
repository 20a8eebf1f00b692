"""Optimizers that evaluate a closure: once is welcome, several times is refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import Optimizer

import gaba
from _models import TwoStage, batch


class Twice(torch.optim.SGD):
    """Evaluates its closure twice a step, as sharpness-aware optimizers do."""

    def step(self, closure: Any = None) -> Any:
        closure()
        return super().step(closure)


def training(
    kind: Callable[[Any], Optimizer],
) -> tuple[TwoStage, gaba.Balancer, Optimizer, Callable[[], float]]:
    model = TwoStage([1.0, 300.0])
    balancer = gaba.Balancer(model.names, model.trunk)
    optimizer = kind(model.parameters())

    def closure() -> float:
        optimizer.zero_grad()
        return float(balancer.backward(model.losses(batch())).losses.sum())

    return model, balancer, optimizer, closure


def test_lbfgs_is_refused_before_anything_has_changed() -> None:
    model, balancer, optimizer, closure = training(torch.optim.LBFGS)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(RuntimeError, match=r"LBFGS evaluates its closure.*balancer\.eval\(\)"):
        optimizer.step(closure)
    assert len(balancer.history) == 0
    for p, was in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, was)


def test_the_remedy_works() -> None:
    model, balancer, optimizer, _ = training(torch.optim.LBFGS)
    balancer.backward(model.losses(batch()))
    balancer.eval()

    def closure() -> float:
        optimizer.zero_grad()
        total = balancer(model.losses(batch()))
        total.backward()
        return float(total.detach())

    first = closure()
    for _ in range(5):
        optimizer.step(closure)
    assert closure() < first
    assert len(balancer.history) == 1


def test_the_remedy_works_with_backward_too() -> None:
    model, balancer, optimizer, closure = training(torch.optim.LBFGS)
    balancer.backward(model.losses(batch()))
    multipliers = balancer.multipliers
    balancer.eval()
    first = closure()
    for _ in range(5):
        optimizer.step(closure)
    assert closure() < first
    assert len(balancer.history) == 1
    assert balancer.multipliers == multipliers
    balancer.train()
    with pytest.raises(RuntimeError, match="LBFGS evaluates its closure"):
        optimizer.step(closure)


def test_a_second_evaluation_in_one_step_is_refused() -> None:
    _, balancer, optimizer, closure = training(lambda p: Twice(p, lr=1e-3))
    with pytest.raises(RuntimeError, match="Twice evaluates its closure several times"):
        optimizer.step(closure)
    assert len(balancer.history) == 1
    with pytest.raises(RuntimeError, match="several times"):
        optimizer.step(closure)
    assert len(balancer.history) == 2  # the first evaluation of the next step was none too many


def test_one_evaluation_a_step_is_welcome_also_after_an_exception() -> None:
    model, balancer, optimizer, closure = training(lambda p: torch.optim.SGD(p, lr=1e-3))
    for _ in range(3):
        optimizer.step(closure)

    def fails() -> float:
        closure()
        raise KeyError("the user's own")

    with pytest.raises(KeyError):
        optimizer.step(fails)
    optimizer.step(closure)
    balancer.backward(model.losses(batch()))
    assert len(balancer.history) == 6


def test_a_balancer_that_has_seen_a_closure_can_be_copied_and_pickled() -> None:
    _, balancer, optimizer, closure = training(lambda p: torch.optim.SGD(p, lr=1e-3))
    optimizer.step(closure)
    for twin in (copy.deepcopy(balancer), pickle.loads(pickle.dumps(balancer))):
        assert twin.weights == balancer.weights


def test_another_objects_step_is_nobodys_business() -> None:
    model, balancer, _, _ = training(lambda p: torch.optim.SGD(p, lr=1e-3))

    class Trainer:
        def step(self) -> None:
            for _ in range(3):
                balancer.backward(model.losses(batch()))

    Trainer().step()
    assert len(balancer.history) == 3
