"""What the Balancer makes of rules: of those with a memory, and of the length they give."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar, final

import pytest
import torch
from torch import Tensor

import gaba
from _engines import NAMES, WORLDS
from _models import TwoStage, batch, grads
from _streams import Stream, led
from gaba.measurement import ExactNorms, Measurement, OutputNorms
from gaba.rules import (
    DWA,
    FAMO,
    PINN,
    RLW,
    GeometricMean,
    GradNorm,
    InverseInitial,
    Needs,
    Rule,
    ScaleInvariant,
    Seen,
    SmoothTchebycheff,
    Uncertainty,
)
from gaba.stabilisers import Identity

RULES: dict[str, Rule] = {
    "gradnorm": GradNorm(),
    "gradnorm by sgd": GradNorm(alpha=0.5, learning_rate=1e-3, descent="sgd"),
    "uncertainty": Uncertainty(learning_rate=0.1),
    "dwa": DWA(temperature=0.7, window=3),
    "rlw": RLW(seed=3),
    "famo": FAMO(learning_rate=0.1),
    "smooth tchebycheff": SmoothTchebycheff(mu=0.5, warm_up=2, window=2),
    "inverse initial": InverseInitial(steps=3),
    "pinn": PINN(),
}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


@dataclass(frozen=True)
class Remembered:
    total: Tensor
    steps: Tensor


@final
@dataclass(frozen=True)
class LossSoFar(Rule):
    """The sum of all losses seen of a task."""

    needs: ClassVar[Needs] = "losses"

    def init(self, n_tasks: int) -> Remembered:
        zero = torch.zeros((), dtype=torch.int64)
        return Remembered(torch.zeros(n_tasks, dtype=torch.float64), zero)

    def update(self, seen: Seen, state: Remembered) -> tuple[Tensor, Remembered]:
        total = state.total + seen.losses.nan_to_num(nan=0.0)
        return total, Remembered(total, state.steps + 1)


@final
@dataclass(frozen=True)
class TwiceTheNorm(Rule):
    """2 g_k, of no particular sum."""

    def update(self, seen: Seen, state: Any) -> tuple[Tensor, Any]:
        return 2 * seen.norms, state


def method(rule: Rule, **settings: Any) -> gaba.Method:
    """The rule as it is: norms as measured, multipliers as given."""
    return gaba.Method(rule, **{"believe": Identity(), "scale": "rule", **settings})


def balanced(rule: Rule, model: TwoStage, **settings: Any) -> gaba.Balancer:
    return gaba.Balancer(model.names, model.trunk, method(rule, **settings))


def some(model: TwoStage, seed: int) -> dict[str, Tensor | None]:
    """Losses, of which every third step lacks one."""
    losses = model.losses(batch(seed, dtype=torch.float64))
    return {**losses, "task1": None} if seed % 3 == 2 else losses


def three() -> TwoStage:
    return TwoStage((1.0, 30.0, 0.1), dtype=torch.float64)


def losses_of(model: TwoStage, x: Tensor) -> dict[str, Tensor]:
    return {name: loss for name, loss in model.losses(x).items() if loss is not None}


def remembered(balancer: gaba.Balancer) -> dict[str, Tensor]:
    """Every tensor of the state."""
    return {
        name: value for name, value in balancer.state_dict().items() if isinstance(value, Tensor)
    }


def assert_same(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    assert len(one) > 3
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name


# ---- rules with a memory ------------------------------------------------------------------------


@every_rule
def test_a_resumed_run_goes_on_bit_for_bit(rule: Rule) -> None:
    runs = []
    for stop in (None, 6):
        model = three()
        balancer = balanced(rule, model)
        optimizer = torch.optim.SGD(model.parameters(), 1e-3)
        for seed in range(12):
            if seed == stop:
                saved = balancer.state_dict()
                balancer = balanced(rule, model)
                balancer.load_state_dict(saved)
            balancer.backward(some(model, seed))
            optimizer.step()
            optimizer.zero_grad()
        runs.append((balancer, model))
    (one, a), (two, b) = runs
    assert_same(remembered(one), remembered(two))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@every_rule
def test_grad_is_that_of_the_sum_with_the_multipliers_of_the_rule(rule: Rule) -> None:
    model = three()
    balancer = balanced(rule, model)
    along: Stream = []
    for seed in range(7):
        model.zero_grad()
        x = batch(seed, dtype=torch.float64)
        step = balancer.backward(model.losses(x))
        along.append(Seen(step.losses, step.norms))
        raw = led(rule, along)[0][-1]
        found = grads(model)
        model.zero_grad()
        losses = torch.stack(list(losses_of(model, x).values()))
        (raw * losses).sum().backward()
        torch.testing.assert_close(found, grads(model), rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(step.multipliers, raw, rtol=1e-12, atol=0)


@every_rule
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_step_is_not_learnt_from(rule: Rule, bad: float) -> None:
    model = three()
    balancer = balanced(rule, model)
    for seed in range(6):
        balancer.backward(model.losses(batch(seed, dtype=torch.float64)))
    before = copy.deepcopy(remembered(balancer))
    losses = losses_of(model, batch(9, dtype=torch.float64))
    step = balancer.backward({**losses, "task1": losses["task1"] * bad})
    assert not bool(step.finite)
    assert_same(remembered(balancer), before)
    assert bool(balancer.backward(model.losses(batch(10, dtype=torch.float64))).finite)


@every_rule
def test_the_weighted_scalar_learns_as_the_backward_pass_does(rule: Rule) -> None:
    model = three()
    one, two = balanced(rule, model), balanced(rule, model)
    for seed in range(6):
        one.backward(some(model, seed))
        two(some(model, seed)).backward()
    for name, multiplier in one.multipliers.items():
        assert two.multipliers[name] == pytest.approx(multiplier, rel=1e-9)


ENGINES = ("exact", "half-batch", ExactNorms("stream"), ExactNorms(layer="last"), OutputNorms())


@pytest.mark.parametrize("engine", ENGINES, ids=str)
@every_rule
def test_every_engine_can_feed_them(rule: Rule, engine: Any) -> None:
    world = WORLDS["Plain"]()
    asked = method(rule, measure=engine)
    assert isinstance(asked.measure, Measurement)
    world.loss_shape = asked.measure.loss_shape
    balancer = gaba.Balancer(NAMES, world.trunk, asked)
    for _ in range(4):
        balancer.backward(world.losses())
    step = balancer.backward(world.losses())
    assert bool(step.finite)
    assert step.measured == (rule.needs == "norms")
    expected, _ = led(rule, [Seen(step.losses, step.norms)] * 5)
    torch.testing.assert_close(step.multipliers, expected[-1], rtol=1e-6, atol=0)


def test_a_memory_of_losses_needs_no_measurement_and_adds_up() -> None:
    model = TwoStage([1.0, 3.0, 9.0], dtype=torch.float64)
    balancer = balanced(LossSoFar(), model)
    total = torch.zeros(3, dtype=torch.float64)
    for seed in range(4):
        losses = losses_of(model, batch(seed=seed, dtype=torch.float64))
        step = balancer.backward(losses)
        total += torch.stack([loss.detach() for loss in losses.values()])
        assert not step.measured
        torch.testing.assert_close(step.multipliers, total, rtol=1e-12, atol=0)


def test_a_missing_task_keeps_its_memory_and_its_multiplier() -> None:
    model = TwoStage([1.0, 3.0, 9.0], dtype=torch.float64)
    balancer = balanced(LossSoFar(), model)
    a, b, c = model.names
    before = balancer.backward(losses_of(model, batch(dtype=torch.float64)))
    held = float(before.multipliers[1])
    without = losses_of(model, batch(seed=1, dtype=torch.float64))
    step = balancer.backward({a: without[a], b: None, c: without[c]})
    assert float(step.weights[1]) == 0
    assert bool(step.multipliers[1].isnan())
    assert balancer.multipliers[b] == held
    after = losses_of(model, batch(seed=2, dtype=torch.float64))
    step = balancer.backward(after)
    assert float(step.multipliers[1]) == pytest.approx(held + after[b].item(), rel=1e-12)


def test_reset_starts_over() -> None:
    model = TwoStage([1.0, 3.0], dtype=torch.float64)
    balancer, fresh = balanced(LossSoFar(), model), balanced(LossSoFar(), model)
    for seed in range(3):
        balancer.backward(losses_of(model, batch(seed=seed, dtype=torch.float64)))
    balancer.reset()
    again = balancer.backward(losses_of(model, batch(dtype=torch.float64)))
    first = fresh.backward(losses_of(model, batch(dtype=torch.float64)))
    assert torch.equal(again.multipliers, first.multipliers)


# ---- lengths ------------------------------------------------------------------------------------


def test_scale_rule_is_the_update_of_the_rules_own_multipliers() -> None:
    model = TwoStage([1.0, 50.0], dtype=torch.float64)
    x = batch(dtype=torch.float64)
    step = balanced(TwiceTheNorm(), model).backward(losses_of(model, x))
    found = grads(model)
    model.zero_grad()
    losses = torch.stack(list(losses_of(model, x).values()))
    (2 * step.norms * losses).sum().backward()
    for name, expected in grads(model).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-10, atol=1e-300)
    assert float(step.weights.sum()) == pytest.approx(1)


def test_a_task_missing_between_measurements_leaves_the_others_as_they_are() -> None:
    model = TwoStage([1.0, 3.0, 9.0], dtype=torch.float64)
    x = batch(dtype=torch.float64)
    balancer = balanced(TwiceTheNorm(), model, every=2)
    first = balancer.backward(losses_of(model, x))
    losses = losses_of(model, x)
    del losses[model.names[2]]
    second = balancer.backward(losses)
    assert torch.equal(second.multipliers[:2], first.multipliers[:2])


LOGARITHMIC = pytest.mark.parametrize("rule", [ScaleInvariant(), GeometricMean()], ids=repr)


@LOGARITHMIC
def test_the_update_is_the_gradient_of_the_scalar(rule: Rule) -> None:
    model, x = three(), batch(dtype=torch.float64)
    step = balanced(rule, model).backward(model.losses(x))
    found = grads(model)
    model.zero_grad()
    logs = torch.stack(list(losses_of(model, x).values())).log()
    (logs.sum() if isinstance(rule, ScaleInvariant) else logs.mean().exp()).backward()
    torch.testing.assert_close(found, grads(model), rtol=1e-10, atol=1e-15)
    assert not step.measured


@LOGARITHMIC
@pytest.mark.parametrize("factor", [0.0, -1.0])
def test_a_loss_without_logarithm_is_refused_and_nothing_has_changed(
    rule: Rule, factor: float
) -> None:
    model = three()
    balancer = balanced(rule, model)
    balancer.backward(model.losses(batch(1, dtype=torch.float64)))
    before, found = balancer.multipliers, grads(model)
    losses = losses_of(model, batch(2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"losses\['task1'\] must be above 0"):
        balancer.backward({**losses, "task1": factor * losses["task1"]})
    assert balancer.multipliers == before
    assert len(balancer.history) == 1
    torch.testing.assert_close(grads(model), found, rtol=0, atol=0)
