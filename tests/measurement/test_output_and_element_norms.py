"""Norms at the output item by item, and the entries of gradients, against plain passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gaba
from _engines import NAMES, WORLDS, Leaking, Plain, SkipAround, World, balanced, observe
from gaba.autograd.graph import LossGraph
from gaba.autograd.shared import as_shared
from gaba.measurement import ElementNorms, ExactNorms, OutputNorms, Request


def losses_of(world: World) -> list[Any]:
    return [loss for loss in world.losses().values() if loss is not None]


def weighted(world: World, factors: Any) -> list[Any]:
    """What each trainable leaf must get."""
    return [
        sum(g * c for g, c in zip(column, factors, strict=True) if g is not None)
        for column in zip(*world.own(), strict=True)
    ]


@pytest.mark.parametrize("engine", [OutputNorms(), OutputNorms(per_item=False), ElementNorms()])
@pytest.mark.parametrize("kind", WORLDS)
@pytest.mark.parametrize("listened", [False, True])
def test_grad_is_that_of_the_weighted_sum(engine: Any, kind: str, listened: bool) -> None:
    world = WORLDS[kind]()
    if isinstance(engine, OutputNorms) and not world.boundary:
        return
    balancer = balanced(NAMES, world.trunk, engine)
    if listened:
        world.heads[0].get_parameter("bias").register_hook(lambda g: None)
    for _ in range(2):
        world.zero_grad()
        world.x.grad = None
        step = balancer.backward(world.losses())
        for p, added in zip(world.trainable(), weighted(world, step.multipliers), strict=True):
            torch.testing.assert_close(torch.zeros_like(p) if p.grad is None else p.grad, added)


@pytest.mark.parametrize("kind", WORLDS)
@pytest.mark.parametrize("gradients", [False, True])
def test_largest_and_mean_entries_are_those_of_plain_passes(kind: str, gradients: bool) -> None:
    world = WORLDS[kind]()
    shared = as_shared(world.trunk)
    losses = losses_of(world)
    seen, _ = observe(ElementNorms(), LossGraph(losses, shared), gradients=gradients, gramian=True)
    rows = []
    for own in world.own():
        pairs = [(own[i], world.trainable()[i]) for i in world.theta()]
        parts = [torch.zeros_like(p) if g is None else g for g, p in pairs]
        rows.append(torch.cat([part.flatten() for part in parts]))
    flat = torch.stack(rows)
    entries = flat.abs()
    expected = torch.stack([entries.amax(1), entries.mean(1)], 1)
    assert seen.statistics is not None
    torch.testing.assert_close(seen.statistics, expected)
    torch.testing.assert_close(seen.norms, flat.norm(dim=1))
    assert seen.gramian is not None
    torch.testing.assert_close(seen.gramian, flat @ flat.T, rtol=1e-6, atol=1e-9)
    assert (seen.gradients is not None) == gradients


def test_entries_of_scaled_losses_and_of_what_is_found_to_be_shared() -> None:
    world = Plain()
    louder = [8 * loss for loss in losses_of(world)]
    requests = [
        Request(LossGraph(losses_of(world), as_shared(world.trunk))),
        Request(LossGraph(louder, as_shared(world.trunk)), loss_scale=torch.tensor(8.0)),
        Request(LossGraph(losses_of(world), as_shared("auto"))),
    ]
    first, *others = [ElementNorms().update(told, ())[0].statistics for told in requests]
    for other in others:
        torch.testing.assert_close(other, first)


def test_entries_in_the_metric_of_the_optimizer() -> None:
    world = Plain()
    optimizer = torch.optim.RMSprop(world.parameters(), lr=1e-3)
    sum(losses_of(world)).backward()  # type: ignore[union-attr]
    optimizer.step()
    balancer = balanced(
        NAMES,
        world.trunk,
        ElementNorms(),
        metric="optimizer",
        optimizer=optimizer,
        rule=gaba.rules.PINNAnnealing(decay=0.0),
        scale="rule",
    )
    step = balancer.backward(world.losses())
    rows = []
    for own in world.own():
        parts = []
        for i in world.theta():
            root = optimizer.state[world.trainable()[i]]["square_avg"].sqrt() + 1e-8
            gradient = own[i]
            assert gradient is not None
            parts.append((gradient / root).flatten())
        rows.append(torch.cat(parts).abs())
    expected = [1.0] + [float(rows[0].max() / row.mean()) for row in rows[1:]]
    assert (step.multipliers).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["Plain", "SeveralCalls", "EncoderBelow"])
@pytest.mark.parametrize("per_item", [True, False])
def test_norms_at_the_output(kind: str, per_item: bool) -> None:
    world, caught = WORLDS[kind](), []
    handle = world.trunk.register_forward_hook(lambda module, args, out: caught.append(out))
    shared = as_shared(world.trunk)
    losses = losses_of(world)
    handle.remove()
    seen, _ = observe(OutputNorms(per_item=per_item), LossGraph(losses, shared))
    expected = []
    for loss in losses:
        found = torch.autograd.grad(loss, caught, retain_graph=True, allow_unused=True)
        items = torch.cat([g for g in found if g is not None])
        expected.append(items.norm(dim=1).mean() if per_item else items.norm())
    torch.testing.assert_close(seen.norms, torch.stack(expected))


def test_what_lies_above_is_left_alone_if_asked() -> None:
    for kind in (Plain, SkipAround):
        world = kind()
        balancer = balanced(NAMES, world.trunk, OutputNorms(above=False))
        step = balancer.backward(world.losses())
        assert all(p.grad is None for p in world.heads.parameters())
        expected = weighted(world, step.multipliers)
        for i in world.theta():
            torch.testing.assert_close(world.trainable()[i].grad, expected[i])


def test_refusals_come_before_anything_has_changed() -> None:
    leaking, plain = Leaking(), Plain()
    cases = [
        (leaking, {}, "needs the output y"),
        (plain, {"rule": gaba.rules.EqualShare()}, "no Gramian of items"),
        (
            plain,
            {"metric": "optimizer", "optimizer": torch.optim.Adam(plain.parameters())},
            "not the metric of the optimizer",
        ),
    ]
    for world, settings, message in cases:
        balancer = balanced(NAMES, world.trunk, OutputNorms(), **settings)
        with pytest.raises(ValueError, match=message):
            balancer.backward(world.losses())
        assert all(p.grad is None for p in world.parameters())
    scalar = torch.nn.Parameter(torch.ones(()))
    y = 2 * scalar
    balancer = balanced(["a", "b"], [scalar], OutputNorms())
    with pytest.raises(ValueError, match="found a scalar: use per_item=False"):
        balancer.backward({"a": y * 3, "b": y.square()}, features=y)


def test_the_gramian_of_the_whole_output_balances_shares() -> None:
    world = Plain()
    balancer = balanced(
        NAMES,
        world.trunk,
        OutputNorms(per_item=False),
        rule=gaba.rules.EqualShare(),
        believe=gaba.stabilisers.Identity(),
    )
    step = balancer.backward(world.losses())
    assert step.gramian is not None
    shares = gaba.shares(step.multipliers, step.gramian)
    assert shares.tolist() == pytest.approx([1 / 3] * 3, rel=1e-6)


def test_norms_of_elements_are_the_exact_ones() -> None:
    world = Plain()
    graph = LossGraph(losses_of(world), as_shared(world.trunk))
    torch.testing.assert_close(
        *(observe(engine, graph)[0].norms for engine in (ElementNorms(), ExactNorms()))
    )
