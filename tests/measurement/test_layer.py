"""Exact norms at one layer alone."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from _engines import NAMES, Counting, Plain, World, balanced, observe
from gaba.autograd.graph import LossGraph
from gaba.autograd.shared import SharedSpec, as_shared
from gaba.measurement import ExactNorms


def graph_of(world: World, shared: SharedSpec) -> LossGraph:
    losses = [loss for loss in world.losses().values() if loss is not None]
    return LossGraph(losses, as_shared(shared))


@pytest.mark.parametrize("layer", ["first", "last", None])
def test_norms_and_gramian_are_those_of_the_layer(layer: str | None) -> None:
    world = Plain()
    named = world.trunk.get_submodule(layer or "last")
    engine = ExactNorms(layer="last") if layer is None else ExactNorms(layer=named.parameters())
    where = [i for i, p in enumerate(world.trainable()) if any(p is q for q in named.parameters())]
    own = torch.stack(
        [
            torch.cat([g.flatten() for i in where if (g := row[i]) is not None])
            for row in world.own()
        ]
    )
    for _ in range(2):  # a generator of parameters must not be used up by the first step
        seen, _ = observe(engine, graph_of(world, world.trunk), gramian=True, gradients=True)
        torch.testing.assert_close(seen.norms, own.norm(dim=1), rtol=1e-6, atol=0)
        assert seen.gramian is not None
        torch.testing.assert_close(seen.gramian, own @ own.T, rtol=1e-6, atol=1e-9)
        assert seen.gradients is None


def test_no_pass_goes_below_the_layer_but_the_weighted_one() -> None:
    world = Plain()
    balancer = balanced(NAMES, world.trunk, ExactNorms(layer="last"))
    Counting.passes.clear()
    step = balancer.backward(world.losses())
    assert Counting.passes == {"heads": 6, "trunk": 1}
    assert step.combined == "backward"
    assert float(step.imbalance) == pytest.approx(1)


def test_modules_without_parameters_of_their_own_and_frozen_ones_are_passed_over() -> None:
    body = nn.Sequential(nn.Sequential(nn.Linear(6, 4), nn.Tanh()), nn.Linear(4, 4), nn.Dropout())
    body.double()
    world = Plain()
    world.trunk = body
    frozen = body[1].requires_grad_(False)
    seen, _ = observe(ExactNorms(layer="last"), graph_of(world, body))
    first, _ = observe(ExactNorms(layer=body[0].parameters()), graph_of(world, body))
    assert seen.norms.shape == first.norms.shape == (3,)
    frozen.requires_grad_()
    body.eval()
    assert torch.equal(
        observe(ExactNorms(layer="last"), graph_of(world, body))[0].norms,
        observe(ExactNorms(layer=frozen.parameters()), graph_of(world, body))[0].norms,
    )


def test_what_cannot_be_measured_is_refused() -> None:
    world = Plain()
    with pytest.raises(ValueError, match="layer must hold at least one"):
        ExactNorms(layer=[])
    unnamed: list[SharedSpec] = [list(world.trunk.parameters()), "auto"]
    for shared in unnamed:
        with pytest.raises(ValueError, match="layer='last' needs shared"):
            observe(ExactNorms(layer="last"), graph_of(world, shared))
    layer = world.trunk.get_submodule("last").requires_grad_(False)
    with pytest.raises(ValueError, match="found frozen ones only"):
        observe(ExactNorms(layer=layer.parameters()), graph_of(world, world.trunk))


@pytest.mark.parametrize("used", [False, True])
def test_a_last_layer_that_a_task_does_not_reach_is_blamed_and_not_what_is_shared(
    used: bool,
) -> None:
    """A pooler that is registered last and that one task uses, or none."""
    world = Plain()
    world.trunk.add_module("pooler", nn.Linear(4, 4).double())
    losses = world.losses()
    if used:
        z = world.trunk.get_submodule("pooler")(world.trunk(world.x))
        losses["b"] = world.heads[1](z).square().mean()
    balancer = balanced(NAMES, world.trunk, ExactNorms(layer="last"))
    with pytest.raises(ValueError, match=r"losses\['a'\] does not reach the layer .* name a layer"):
        balancer.backward(losses)
    assert all(p.grad is None for p in world.parameters())
    balancer = balanced(
        NAMES, world.trunk, ExactNorms(layer=world.trunk.get_submodule("last").parameters())
    )
    assert balancer.backward(world.losses()).norms.isfinite().all()


def test_two_are_equal_if_they_measure_at_the_same_parameters() -> None:
    one, other = nn.Linear(2, 3), nn.Linear(2, 3)
    other.load_state_dict(one.state_dict())
    at = ExactNorms(layer=one.parameters())
    assert at == ExactNorms(layer=one.parameters())
    assert hash(at) == hash(ExactNorms(layer=one.parameters()))
    assert at != ExactNorms(layer=other.parameters())  # of the same values
    assert at != ExactNorms() != ExactNorms(layer="last")
    assert repr(at) == "ExactNorms(mode='store', layer=...)"
    assert repr(ExactNorms(layer="last")) == "ExactNorms(mode='store', layer='last')"


@pytest.mark.parametrize("mode", ["store", "stream"])
def test_each_mode_measures_at_the_layer(mode: Literal["store", "stream"]) -> None:
    world = Plain()
    layer = world.trunk.get_submodule("first")
    where = [i for i, p in enumerate(world.trainable()) if any(p is q for q in layer.parameters())]
    parts = [[g for i in where if (g := row[i]) is not None] for row in world.own()]
    expected = torch.stack([torch.cat([g.flatten() for g in row]).norm() for row in parts])
    balancer = balanced(NAMES, world.trunk, ExactNorms(mode, layer.parameters()))
    step = balancer.backward(world.losses())
    torch.testing.assert_close(step.norms, expected, rtol=1e-6, atol=0)
    assert step.combined == "backward"
