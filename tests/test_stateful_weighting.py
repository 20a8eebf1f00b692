"""Weightings with a memory, and the length that a rule gives itself, through the Balancer."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar, final

import pytest
import torch
from torch import Tensor

import gaba
from _models import TwoStage, batch, grads
from gaba.rules import Measured, Needs, StatefulWeighting, Weighting


@dataclass(frozen=True)
class Seen:
    total: Tensor
    steps: Tensor


@final
@dataclass(frozen=True)
class LossSoFar(StatefulWeighting[Seen]):
    """Raw weights: the sum of all losses seen of a task."""

    def init(self, n_tasks: int) -> Seen:
        return Seen(torch.zeros(n_tasks, dtype=torch.float64), torch.zeros((), dtype=torch.int64))

    def update(
        self, measured: Measured, state: Seen, present: Tensor | None = None
    ) -> tuple[Tensor, Seen]:
        here = torch.ones_like(state.total).bool() if present is None else present
        total = torch.where(here, state.total + measured.losses, state.total)
        return total, Seen(total, state.steps + 1)


@final
@dataclass(frozen=True)
class TwiceTheNorm(Weighting):
    """Raw weights 2 g_k, so that their sum is not 1."""

    needs: ClassVar[Needs] = "norms"

    def __call__(self, measured, /):  # pyright: ignore[reportMissingParameterType]
        return measured / measured.sum(-1, keepdims=True)

    def raw(self, measured, /):  # pyright: ignore[reportMissingParameterType]
        return 2 * measured


def losses_of(model: TwoStage, x: Tensor) -> dict[str, Tensor]:
    return {name: loss for name, loss in model.losses(x).items() if loss is not None}


def make(model: TwoStage, rule: Weighting | StatefulWeighting[Seen]) -> gaba.Balancer:
    return gaba.Balancer(
        model.names, model.trunk, norm_stabiliser=None, weighting=rule, scale="rule"
    )


def test_scale_rule_is_the_update_of_the_rules_own_weights() -> None:
    model = TwoStage([1.0, 50.0], dtype=torch.float64)
    x = batch(dtype=torch.float64)
    step = make(model, TwiceTheNorm()).backward(losses_of(model, x))
    found = grads(model)
    model.zero_grad()
    norms = dict(zip(model.names, step.norms, strict=True))
    losses = losses_of(model, x)
    torch.stack([2 * norms[n] * losses[n] for n in model.names]).sum().backward()
    for name, expected in grads(model).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-10, atol=1e-300)
    assert float(step.weights.sum()) == pytest.approx(1)


def test_a_memory_of_losses_needs_no_measurement_and_adds_up() -> None:
    model = TwoStage([1.0, 3.0, 9.0], dtype=torch.float64)
    balancer = make(model, LossSoFar())
    total = torch.zeros(3, dtype=torch.float64)
    for seed in range(4):
        losses = losses_of(model, batch(seed=seed, dtype=torch.float64))
        step = balancer.backward(losses)
        total += torch.stack([loss.detach() for loss in losses.values()])
        assert not step.measured
        torch.testing.assert_close(step.weights * step.gain, total, rtol=1e-12, atol=0)


def test_a_missing_task_keeps_its_memory() -> None:
    model = TwoStage([1.0, 3.0, 9.0], dtype=torch.float64)
    balancer = make(model, LossSoFar())
    a, b, c = model.names
    first = losses_of(model, batch(dtype=torch.float64))
    before = balancer.backward(first)
    held = float((before.weights * before.gain)[1])
    without = losses_of(model, batch(seed=1, dtype=torch.float64))
    step = balancer.backward({a: without[a], b: None, c: without[c]})
    assert float(step.weights[1]) == 0
    after = losses_of(model, batch(seed=2, dtype=torch.float64))
    step = balancer.backward(after)
    assert float((step.weights * step.gain)[1]) == pytest.approx(held + after[b].item(), rel=1e-12)


def test_a_step_that_is_not_finite_leaves_the_memory_alone() -> None:
    model = TwoStage([1.0, 3.0], dtype=torch.float64)
    balancer = make(model, LossSoFar())
    balancer.backward(losses_of(model, batch(dtype=torch.float64)))
    before = copy.deepcopy(balancer.state_dict())
    losses = losses_of(model, batch(seed=1, dtype=torch.float64))
    bad = {name: loss * torch.inf for name, loss in losses.items()}
    assert not bool(balancer.backward(bad).finite)
    after = balancer.state_dict()
    weighting = [key for key in before if "weighting" in key]
    assert len(weighting) == 2
    for key in weighting:
        assert torch.equal(before[key], after[key])


def test_resume_goes_on_bit_for_bit() -> None:
    model = TwoStage([1.0, 3.0], dtype=torch.float64)
    whole, first = make(model, LossSoFar()), make(model, LossSoFar())
    for seed in range(3):
        losses = losses_of(model, batch(seed=seed, dtype=torch.float64))
        whole.backward(losses)
        first.backward(losses_of(model, batch(seed=seed, dtype=torch.float64)))
    second = make(model, LossSoFar())
    second.load_state_dict(first.state_dict())
    for seed in range(3, 6):
        a = whole.backward(losses_of(model, batch(seed=seed, dtype=torch.float64)))
        b = second.backward(losses_of(model, batch(seed=seed, dtype=torch.float64)))
        assert torch.equal(a.weights, b.weights)
        assert torch.equal(a.gain, b.gain)
    second.reset()
    again = second.backward(losses_of(model, batch(dtype=torch.float64)))
    fresh = make(model, LossSoFar()).backward(losses_of(model, batch(dtype=torch.float64)))
    assert torch.equal(again.weights, fresh.weights)


def test_a_task_missing_between_measurements_leaves_the_others_as_long_as_the_rule_made_them() -> (
    None
):
    model = TwoStage([1.0, 3.0, 9.0], dtype=torch.float64)
    x = batch(dtype=torch.float64)
    balancer = gaba.Balancer(
        model.names,
        model.trunk,
        norm_stabiliser=None,
        weighting=TwiceTheNorm(),
        scale="rule",
        every=2,
    )
    first = balancer.backward(losses_of(model, x))
    losses = losses_of(model, x)
    del losses[model.names[2]]
    second = balancer.backward(losses)
    expected = (first.weights * first.gain)[:2]
    torch.testing.assert_close((second.weights * second.gain)[:2], expected, rtol=1e-12, atol=0)
