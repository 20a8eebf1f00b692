"""What every measurement must hold: ``.grad``, resume, missing tasks, no wait for the device."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import gaba
from _engines import NAMES, WORLDS, Plain, SkipAround, TwoFeatures, World, balanced, observe
from gaba.autograd.graph import LossGraph
from gaba.autograd.shared import as_shared
from gaba.measurement import ElementNorms, ExactNorms, HalfBatch, OutputNorms, SubBatchNorms

ENGINES: dict[str, Any] = {
    "store": ExactNorms(),
    "stream": ExactNorms(mode="stream"),
    "layer": ExactNorms(layer="last"),
    "elements": ElementNorms(),
    "outputs": OutputNorms(per_item=False),
    "sub-batches": SubBatchNorms(parts=3),
    "half-batch": HalfBatch(decay=0.5),
}
EXACT = ("store", "stream")

every_engine = pytest.mark.parametrize("engine", ENGINES)


def every_engine_in(kinds: Any) -> pytest.MarkDecorator:
    """On each of these worlds that it can measure: at the output only where there is one."""
    pairs = [
        (e, k)
        for e in ENGINES
        for k in kinds
        if e not in ("outputs", "sub-batches") or WORLDS[k].boundary
    ]
    return pytest.mark.parametrize(("engine", "kind"), pairs)


def engine_for(name: str, world: World) -> Any:
    """In ``TwoFeatures`` the last layer is one that not every task reaches: name another."""
    if name == "layer" and isinstance(world, TwoFeatures):
        return ExactNorms(layer=world.trunk.get_submodule("one.last").parameters())
    return ENGINES[name]


def world_for(engine: str, kind: type[World] = Plain) -> World:
    """A world whose losses come as the engine wants them."""
    world = kind()
    world.loss_shape = ENGINES[engine].loss_shape
    return world


def weighted_sum(world: World, factors: torch.Tensor, plain: bool = False) -> list[Any]:
    """What each trainable leaf must get, from the oracle's per-task gradients."""
    result: list[Any] = []
    for column in zip(*world.own(), strict=True):
        found = [(g, c) for g, c in zip(column, factors, strict=True) if g is not None]
        alone = plain and len(found) == 1
        result.append(sum(g * (1 if alone else c) for g, c in found) if found else None)
    return result


@every_engine_in(WORLDS)
@pytest.mark.parametrize("listened", [False, True])
def test_grad_is_that_of_the_weighted_sum_and_is_added_to(
    engine: str, kind: str, listened: bool
) -> None:
    """With the weights of the record, in every step, whatever the shape of the graph."""
    world = world_for(engine, WORLDS[kind])
    balancer = balanced(NAMES, world.trunk, engine_for(engine, world))
    if listened:
        world.heads[0].get_parameter("bias").register_hook(lambda g: None)
    for step_number in range(3):
        before = [torch.full_like(p, 0.5) if step_number else None for p in world.trainable()]
        for p, value in zip(world.trainable(), before, strict=True):
            p.grad = None if value is None else value.clone()
        step = balancer.backward(world.losses())
        expected = weighted_sum(world, step.multipliers)
        for p, start, added in zip(world.trainable(), before, expected, strict=True):
            if added is None:
                assert p.grad is None or bool((p.grad == 0.5).all())
            else:
                torch.testing.assert_close(p.grad, added + (0 if start is None else start))


@every_engine_in(["Plain", "EncoderBelow", "InPlace", "Leaking"])
def test_plain_heads(engine: str, kind: str) -> None:
    """Also after a measurement that leaves no gradients behind: by a pass a task."""
    world = world_for(engine, WORLDS[kind])
    balancer = balanced(NAMES, world.trunk, ENGINES[engine], heads="plain")
    for _ in range(2):
        world.zero_grad()
        world.x.grad = None
        step = balancer.backward(world.losses())
        expected = weighted_sum(world, step.multipliers, plain=True)
        for p, added in zip(world.trainable(), expected, strict=True):
            torch.testing.assert_close(p.grad, added)


def test_plain_heads_where_a_measurement_does_not_show_who_reaches_what() -> None:
    """The part that one task alone reaches lies below the features, so it is refused."""
    world = TwoFeatures()
    balancer = balanced(NAMES, world.trunk, OutputNorms(), heads="plain")
    with pytest.raises(ValueError, match="heads='plain' needs the gradients of each task, found a"):
        balancer.backward(world.losses())
    assert all(p.grad is None for p in world.parameters())


def test_plain_heads_are_refused_where_somebody_listens() -> None:
    world = SkipAround()
    world.heads[0].get_parameter("bias").register_hook(lambda g: None)
    balancer = balanced(NAMES, world.trunk, heads="plain")
    with pytest.raises(ValueError, match="something acts on the backward pass"):
        balancer.backward(world.losses())
    assert all(p.grad is None for p in world.parameters())


@pytest.mark.parametrize("engine", EXACT)
@pytest.mark.parametrize("kind", WORLDS)
@pytest.mark.parametrize("gradients", [False, True])
def test_exact_norms_are_those_of_plain_backward_passes(
    engine: str, kind: str, gradients: bool
) -> None:
    world = world_for(engine, WORLDS[kind])
    shared = as_shared(world.trunk)
    losses = [loss for loss in world.losses().values() if loss is not None]
    graph = LossGraph(losses, shared)
    assert (graph.features is not None) == world.boundary
    seen, _ = observe(ENGINES[engine], graph, gradients=gradients)
    assert (seen.gradients is not None) == (gradients and engine != "stream")
    expected = [
        torch.cat([g.flatten() for i in world.theta() if (g := own[i]) is not None]).norm()
        for own in world.own()
    ]
    torch.testing.assert_close(seen.norms, torch.stack(expected), rtol=1e-6, atol=0)
    assert all(p.grad is None for p in world.parameters())


@every_engine
def test_resume_is_bit_for_bit(engine: str) -> None:
    def run(balancer: gaba.Balancer, world: World, start: int, stop: int) -> list[Any]:
        steps = []
        for i in range(start, stop):
            world.x.data = torch.randn(
                12, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(i)
            )
            losses = world.losses()
            if i % 3 == 2:
                losses["b"] = None
            steps.append(balancer.backward(losses).asdict())
        return steps

    world = world_for(engine)
    whole, first, second = (balanced(NAMES, world.trunk, ENGINES[engine]) for _ in range(3))
    expected = run(whole, world, 0, 8)
    run(first, world, 0, 3)
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    assert run(second, world, 3, 8) == expected[3:]


@every_engine
def test_a_missing_task_changes_nothing_for_the_others(engine: str) -> None:
    world = world_for(engine)
    balancer, whole = (balanced(NAMES, world.trunk, ENGINES[engine]) for _ in range(2))
    for _ in range(3):
        all_there = whole.backward(world.losses())
        step = balancer.backward({**world.losses(), "b": None})
        if step.measured:
            torch.testing.assert_close(step.norms[[0, 2]], all_there.norms[[0, 2]])
        assert bool(step.norms[1].isnan())
        assert float(step.weights[1]) == 0
        assert float(step.weights.sum()) == pytest.approx(1)


@every_engine
def test_a_loss_that_reaches_nothing_shared_is_named(engine: str) -> None:
    world = world_for(engine)
    balancer = balanced(NAMES, world.trunk, ENGINES[engine])
    beside = world.reduce(world.heads[0](torch.ones(4, dtype=torch.float64)))
    what = "does not reach the layer" if engine == "layer" else "reaches no shared parameter"
    with pytest.raises(ValueError, match=rf"losses\['b'\] {what}"):
        balancer.backward({**world.losses(), "b": beside})
    assert all(p.grad is None for p in world.parameters())


@every_engine
def test_the_caller_may_make_the_backward_pass(engine: str) -> None:
    """The graph is kept for it, and nothing has been written to ``.grad`` before."""
    world = world_for(engine)
    balancer = balanced(NAMES, world.trunk, ENGINES[engine])
    total = balancer(world.losses())
    assert all(p.grad is None for p in world.parameters())
    total.backward()
    multipliers = torch.tensor(balancer.history.multipliers[0])
    for p, added in zip(world.trainable(), weighted_sum(world, multipliers), strict=True):
        torch.testing.assert_close(p.grad, added)


@every_engine
def test_no_engine_waits_for_the_device(engine: str) -> None:
    """On a device without data every look at a value raises."""
    by_halves = ENGINES[engine].loss_shape
    with FakeTensorMode(allow_non_fake_inputs=True):
        trunk, heads = torch.nn.Linear(3, 4, device="meta"), torch.nn.Linear(4, 2, device="meta")
        balancer = balanced(["a", "b"], trunk, ENGINES[engine])
        for i in range(4):
            z = heads(trunk(torch.ones(6, 3, device="meta")))
            a, b = (e.reshape(2, 3).mean(1) if by_halves else e.mean() for e in z.square().T)
            step = balancer.backward({"a": a, "b": b if i != 2 else None})
            assert step.weights.device.type == "meta"
        assert trunk.weight.grad is not None
