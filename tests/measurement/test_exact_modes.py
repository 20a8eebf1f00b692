"""Streamed exact norms: the same numbers at another cost."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gaba
from _engines import NAMES, WORLDS, Counting, Plain, World, balanced, observe
from gaba.autograd.graph import LossGraph
from gaba.autograd.shared import as_shared
from gaba.measurement import ExactNorms


def passes(world: World, balancer: gaba.Balancer) -> dict[str, int]:
    Counting.passes.clear()
    balancer.backward(world.losses())
    return dict(Counting.passes)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="mode must be one of store, stream, found 'all'"):
        ExactNorms(mode="all")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", WORLDS)
def test_streaming_sees_and_does_the_same(kind: str) -> None:
    world = WORLDS[kind]()
    store, stream = (balanced(NAMES, world.trunk, ExactNorms(mode)) for mode in ("store", "stream"))
    for i in range(4):
        world.x.data = world.x.data + 0.1 * i
        now, step = store.backward(world.losses()), stream.backward(world.losses())
        assert step.combined == "backward"
        torch.testing.assert_close(step.norms, now.norms)
        torch.testing.assert_close(step.multipliers, now.multipliers)


def test_streaming_is_k_passes_and_one_weighted() -> None:
    world = Plain()
    balancer = balanced(NAMES, world.trunk, ExactNorms("stream"))
    assert passes(world, balancer) == {"heads": 6, "trunk": 4}


@pytest.mark.parametrize(("mode", "alive"), [("stream", [0, 0, 0]), ("store", [0, 1, 2])])
def test_streaming_lets_each_gradient_go_before_the_next_pass(
    mode: Any, alive: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many earlier gradients of one shared parameter live on when a pass begins."""
    world = Plain()
    balancer = balanced(NAMES, world.trunk, ExactNorms(mode))
    taken: list[weakref.ref[Tensor]] = []
    found: list[int] = []
    run = torch.autograd.grad

    def watched(*args: Any, **settings: Any) -> Any:
        found.append(sum(ref() is not None for ref in taken))
        grads = run(*args, **settings)
        taken.append(weakref.ref(grads[0]))
        return grads

    monkeypatch.setattr(torch.autograd, "grad", watched)
    balancer.backward(world.losses())
    assert found == alive


def test_streaming_finds_what_is_shared_by_itself() -> None:
    world = Plain()
    one, other = (balanced(NAMES, "auto", ExactNorms(mode)) for mode in ("stream", "store"))
    for missing in ("c", None):
        losses = {name: None if name == missing else loss for name, loss in world.losses().items()}
        again = {name: None if name == missing else loss for name, loss in world.losses().items()}
        norms, expected = one.backward(losses).norms, other.backward(again).norms
        torch.testing.assert_close(norms, expected, equal_nan=True)


def test_streaming_sparse_gradients() -> None:
    table = nn.Embedding(10, 3, sparse=True)
    balancer = balanced(["a", "b"], table, ExactNorms("stream"))
    rows = table(torch.tensor([1, 1, 4]))
    step = balancer.backward({"a": rows.sum(), "b": (2 * rows[:, 0]).sum()})
    torch.testing.assert_close(step.norms, torch.tensor([15.0**0.5, 20.0**0.5]).double())
    assert table.weight.grad is not None
    assert table.weight.grad.is_sparse
    a, b = step.multipliers.tolist()
    expected = torch.zeros(10, 3)
    expected[1] = torch.tensor([2 * a + 4 * b, 2 * a, 2 * a])
    expected[4] = torch.tensor([a + 2 * b, a, a])
    torch.testing.assert_close(table.weight.grad.to_dense(), expected)


def test_streaming_gives_no_gramian_and_needs_something_shared() -> None:
    world = Plain()
    balancer = balanced(NAMES, world.trunk, ExactNorms("stream"), rule=gaba.rules.EqualShare())
    with pytest.raises(ValueError, match="no Gramian: use"):
        balancer.backward(world.losses())
    assert all(p.grad is None for p in world.parameters())
    one, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    graph = LossGraph([one.sum(), other.sum()], as_shared("auto"))
    with pytest.raises(ValueError, match="found none that is trainable"):
        observe(ExactNorms("stream"), graph)
