"""Norms on the last shared layer alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gaba
from _engines import NAMES, Counting, Plain, World
from gaba.autograd.graph import LossGraph
from gaba.measurement import LastLayerNorms, by_name
from gaba.autograd.shared import SharedSpec, as_shared


def graph_of(world: World, shared: SharedSpec) -> LossGraph:
    losses = [loss for loss in world.losses().values() if loss is not None]
    return LossGraph(losses, as_shared(shared))


@pytest.mark.parametrize("layer", ["first", "last", None])
def test_norms_and_gramian_are_those_of_the_layer(layer: str | None) -> None:
    world = Plain()
    named = world.trunk.get_submodule(layer or "last")
    engine = LastLayerNorms() if layer is None else LastLayerNorms(named.parameters())
    where = [i for i, p in enumerate(world.trainable()) if any(p is q for q in named.parameters())]
    own = torch.stack(
        [
            torch.cat([g.flatten() for i in where if (g := row[i]) is not None])
            for row in world.own()
        ]
    )
    for _ in range(2):  # a generator of parameters must not be used up by the first step
        seen = engine(graph_of(world, world.trunk), gramian=True, gradients=True)
        torch.testing.assert_close(seen.norms, own.norm(dim=1), rtol=1e-6, atol=0)
        assert seen.gramian is not None
        torch.testing.assert_close(seen.gramian, own @ own.T, rtol=1e-6, atol=1e-9)
        assert seen.gradients is None


def test_no_pass_goes_below_the_layer_but_the_weighted_one() -> None:
    world = Plain()
    balancer = gaba.Balancer(NAMES, world.trunk, measurement="last-layer")
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
    seen = LastLayerNorms()(graph_of(world, body))
    first = LastLayerNorms(body[0].parameters())(graph_of(world, body))
    assert seen.norms.shape == first.norms.shape == (3,)
    frozen.requires_grad_()
    body.eval()
    assert torch.equal(
        LastLayerNorms()(graph_of(world, body)).norms,
        LastLayerNorms(frozen.parameters())(graph_of(world, body)).norms,
    )


def test_what_cannot_be_measured_is_refused() -> None:
    world = Plain()
    with pytest.raises(ValueError, match="parameters must hold at least one"):
        LastLayerNorms([])
    unnamed: list[SharedSpec] = [list(world.trunk.parameters()), "auto"]
    for shared in unnamed:
        with pytest.raises(ValueError, match="parameters must be given"):
            LastLayerNorms()(graph_of(world, shared))
    world.trunk.add_module("unused", nn.Linear(2, 2).double())
    with pytest.raises(ValueError, match="found that none does"):
        LastLayerNorms()(graph_of(world, world.trunk))
    layer = world.trunk.get_submodule("last").requires_grad_(False)
    with pytest.raises(ValueError, match="found frozen ones only"):
        LastLayerNorms(layer.parameters())(graph_of(world, world.trunk))


def test_it_has_a_name() -> None:
    assert isinstance(by_name("last-layer"), LastLayerNorms)
