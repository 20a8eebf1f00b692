"""What all weightings with a memory have in common, and what the Balancer makes of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gaba
from _asserts import NoCheckedLinearAlgebra, NoHostSync
from _engines import NAMES, WORLDS
from _models import TwoStage, batch, grads
from _streams import (
    Stream,
    assert_same_state,
    led,
    norms_of,
    parts,
    stream,
    streams,
    taken,
    without,
)
from gaba import _state
from gaba.measurement import ExactNorms
from gaba.rules import (
    DWA,
    FAMO,
    RLW,
    GradNorm,
    InverseInitial,
    Measured,
    SmoothTchebycheff,
    StatefulWeighting,
    Uncertainty,
    by_name,
)

RULES: dict[str, StatefulWeighting[Any]] = {
    "gradnorm": GradNorm(),
    "gradnorm by sgd": GradNorm(alpha=0.5, learning_rate=1e-3, descent="sgd"),
    "uncertainty": Uncertainty(learning_rate=0.1),
    "dwa": DWA(temperature=0.7, window=3),
    "rlw": RLW(seed=3),
    "famo": FAMO(learning_rate=0.1),
    "smooth tchebycheff": SmoothTchebycheff(mu=0.5, warm_up=2, window=2),
    "inverse initial": InverseInitial(steps=3),
}
STREAMS = streams()
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
not_by_position = pytest.mark.parametrize(
    "rule", [rule for rule in RULES.values() if not isinstance(rule, RLW)], ids=repr
)
every_stream = pytest.mark.parametrize("along", STREAMS.values(), ids=STREAMS)


@every_rule
@every_stream
def test_weights_are_finite_with_a_positive_sum(
    rule: StatefulWeighting[Any], along: Stream
) -> None:
    weights, _ = led(rule, along)
    assert weights.dtype == torch.float64
    assert weights.isfinite().all()
    assert (weights >= 0).all()
    assert (weights.sum(1) > 0).all()


@every_rule
def test_states_are_float64_and_an_update_writes_into_none(rule: StatefulWeighting[Any]) -> None:
    along = stream(3)
    _, state = led(rule, along[:6])
    before = {name: tensor.clone() for name, tensor in _state.flatten(state).items()}
    assert {t.dtype for t in before.values()} <= {torch.float64, torch.int64, torch.bool}
    assert torch.float64 in {t.dtype for t in before.values()} or isinstance(rule, RLW)
    for measured in along[6:]:
        rule.update(measured, state)
    assert all(torch.equal(before[name], t) for name, t in _state.flatten(state).items())


@every_rule
def test_no_graph_comes_out(rule: StatefulWeighting[Any]) -> None:
    source = torch.ones(3, dtype=torch.float64, requires_grad=True)
    weights, state = led(rule, [Measured(source * 2, source * 3)] * 4)
    assert not weights.requires_grad
    assert not any(tensor.requires_grad for tensor in _state.flatten(state).values())


@every_rule
@pytest.mark.parametrize("present", [None, torch.tensor([True, False, True])], ids=["all", "some"])
def test_nothing_waits_for_the_device(rule: StatefulWeighting[Any], present: Tensor | None) -> None:
    along = stream(3)
    _, state = led(rule, along[:5])
    with NoHostSync(), NoCheckedLinearAlgebra():
        weights, _ = rule.update(along[5], state, present)
    meta = torch.device("meta")  # without values: what looks at one fails
    state = _state.unflatten(state, {n: t.to(meta) for n, t in _state.flatten(state).items()})
    seen = Measured(along[5].losses.to(meta), norms_of(along[5]).to(meta))
    shape, _ = rule.update(seen, state, None if present is None else present.to(meta))
    assert shape.device == meta
    assert shape.shape == weights.shape


@not_by_position
def test_the_order_of_the_tasks_does_not_matter(rule: StatefulWeighting[Any]) -> None:
    along, order = stream(5), [3, 0, 4, 1, 2]
    weights, _ = led(rule, along)
    again, _ = led(rule, [taken(measured, order) for measured in along])
    torch.testing.assert_close(again, weights[:, order], rtol=1e-10, atol=1e-300)


@every_rule
def test_a_task_that_is_missing_keeps_its_part_of_the_state(rule: StatefulWeighting[Any]) -> None:
    along, gone = stream(3), torch.tensor([True, False, True])
    _, state = led(rule, along[:5])
    nothing = without(along[5], gone)
    weights, after = rule.update(nothing, state, gone)
    assert weights[gone].isfinite().all()
    kept = dict(parts(after, 3))
    assert all(torch.equal(kept[name][1], old[1]) for name, old in parts(state, 3))
    assert all(tensor.isfinite().all() for tensor in kept.values())


@every_rule
def test_a_task_that_never_comes_is_as_if_there_were_none(rule: StatefulWeighting[Any]) -> None:
    along, gone = stream(4), torch.tensor([True, True, True, False])
    weights, _ = led(rule, along, [gone] * len(along))
    fewer, _ = led(rule, [taken(measured, [0, 1, 2]) for measured in along])
    torch.testing.assert_close(weights[:, :3], fewer, rtol=1e-12, atol=0)


@every_rule
def test_tasks_that_come_and_go_are_weighed_all_the_same(rule: StatefulWeighting[Any]) -> None:
    along = stream(3, steps=40)
    flags = torch.rand(40, 3, generator=torch.Generator().manual_seed(0)) < 0.6
    flags[:, 0] |= ~flags.any(1)
    losses = [without(measured, here) for measured, here in zip(along, flags, strict=True)]
    weights, state = led(rule, losses, list(flags))
    assert weights[flags].isfinite().all()
    assert (torch.where(flags, weights, 0.0).sum(1) > 0).all()
    assert all(t.isfinite().all() for t in _state.flatten(state).values())


def test_every_one_has_a_name() -> None:
    for name in ("gradnorm", "uncertainty", "dwa", "rlw", "famo", "smooth-tchebycheff"):
        assert isinstance(by_name(name), StatefulWeighting)
    assert by_name("inverse-initial") == InverseInitial()


# ---- in the Balancer ----------------------------------------------------------------------------


def balanced(rule: StatefulWeighting[Any], model: TwoStage, **settings: Any) -> gaba.Balancer:
    own = {"weighting": rule, "norm_stabiliser": None, "scale": "rule", **settings}
    return gaba.Balancer(model.names, model.trunk, **own)


def some(model: TwoStage, seed: int) -> dict[str, Tensor | None]:
    """Losses, of which every third step lacks one."""
    losses = model.losses(batch(seed, dtype=torch.float64))
    return {**losses, "task1": None} if seed % 3 == 2 else losses


@every_rule
def test_a_resumed_run_goes_on_bit_for_bit(rule: StatefulWeighting[Any]) -> None:
    runs = []
    for stop in (None, 6):
        model = TwoStage((1.0, 30.0, 0.1), dtype=torch.float64)
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
    assert_same_state(one._state.get(), two._state.get())
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@every_rule
def test_grad_is_that_of_the_sum_with_the_weights_of_its_own(rule: StatefulWeighting[Any]) -> None:
    model = TwoStage((1.0, 30.0, 0.1), dtype=torch.float64)
    balancer = balanced(rule, model)
    along: Stream = []
    for seed in range(7):
        model.zero_grad()
        x = batch(seed, dtype=torch.float64)
        seen = balancer.backward(model.losses(x))
        along.append(Measured(seen.losses, seen.norms))
        raw = led(rule, along)[0][-1]
        found = grads(model)
        model.zero_grad()
        total = sum(
            (
                w * loss
                for w, loss in zip(raw, model.losses(x).values(), strict=True)
                if loss is not None
            ),
            x.new_zeros(()),
        )
        total.backward()
        torch.testing.assert_close(found, grads(model), rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(seen.weights * seen.gain, raw, rtol=1e-12, atol=0)


@every_rule
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_step_is_not_learnt_from(rule: StatefulWeighting[Any], bad: float) -> None:
    model = TwoStage((1.0, 30.0, 0.1), dtype=torch.float64)
    balancer = balanced(rule, model)
    for seed in range(6):
        balancer.backward(model.losses(batch(seed, dtype=torch.float64)))
    before = balancer._state.get()
    losses = model.losses(batch(9, dtype=torch.float64))
    assert losses["task1"] is not None
    step = balancer.backward({**losses, "task1": losses["task1"] * bad})
    assert not bool(step.finite)
    assert_same_state(balancer._state.get(), before)
    assert bool(balancer.backward(model.losses(batch(10, dtype=torch.float64))).finite)


@every_rule
def test_the_weighted_scalar_learns_as_the_backward_pass_does(rule: StatefulWeighting[Any]) -> None:
    model = TwoStage((1.0, 30.0, 0.1), dtype=torch.float64)
    one, two = balanced(rule, model), balanced(rule, model)
    for seed in range(6):
        one.backward(some(model, seed))
        two(some(model, seed)).backward()
    torch.testing.assert_close(two.weights, one.weights, rtol=1e-9, atol=0)


ENGINES = ("exact", "features", "sketch", "last-layer", "half-batch", ExactNorms(mode="stream"))


@pytest.mark.parametrize("engine", [*ENGINES, ExactNorms(mode="batched")], ids=str)
@every_rule
def test_every_engine_can_feed_them(rule: StatefulWeighting[Any], engine: Any) -> None:
    world = WORLDS["Plain"]()
    world.halves = engine == "half-batch"
    balancer = gaba.Balancer(
        NAMES, world.trunk, measurement=engine, weighting=rule, norm_stabiliser=None, scale="rule"
    )
    for _ in range(4):
        balancer.backward(world.losses())
    step = balancer.backward(world.losses())
    assert bool(step.finite)
    assert step.measured == (rule.needs == "norms")
    losses = step.losses
    expected, _ = led(rule, [Measured(losses, step.norms)] * 5)
    late = engine == ExactNorms(mode="stream") and rule.needs == "norms"
    if engine != "sketch" or rule.needs == "losses":  # whose norms wander
        wanted = expected[-2 if late else -1]
        torch.testing.assert_close(step.weights * step.gain, wanted, rtol=1e-6, atol=0)
