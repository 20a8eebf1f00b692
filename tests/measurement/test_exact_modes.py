"""Streamed and batched exact norms: the same numbers at other costs."""

from __future__ import annotations

import warnings
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
    with pytest.raises(ValueError, match="mode must be one of store, stream, batched, found 'all'"):
        ExactNorms(mode="all")  # type: ignore[arg-type]


# ---- stream -------------------------------------------------------------------------------


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


# ---- batched ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Plain", "EncoderBelow", "InPlace", "TwoFeatures", "Leaking"])
@pytest.mark.parametrize("gradients", [False, True])
def test_batched_gives_what_one_pass_a_task_gives(kind: str, gradients: bool) -> None:
    world = WORLDS[kind]()
    shared = as_shared(world.trunk)

    def seen(mode: Any) -> Any:
        losses = [loss for loss in world.losses().values() if loss is not None]
        graph = LossGraph(losses, shared)
        return observe(ExactNorms(mode), graph, gramian=True, gradients=gradients)[0]

    found, expected = seen("batched"), seen("store")
    torch.testing.assert_close(found.norms, expected.norms)
    torch.testing.assert_close(found.gramian, expected.gramian)
    assert (found.gradients is None) == (not gradients)
    if gradients:
        for row, other in zip(found.gradients.of, expected.gradients.of, strict=True):
            for one, two in zip(row, other, strict=True):
                assert (one is None) == (two is None)
                if one is not None:
                    torch.testing.assert_close(one, two)


def test_batched_is_one_pass_through_the_shared_part_that_carries_all() -> None:
    world = Plain()
    balancer = balanced(NAMES, world.trunk, ExactNorms("batched"))
    assert passes(world, balancer) == {"heads": 3, "trunk": 1}


TRUNKS: dict[str, Any] = {
    "lstm": lambda: nn.LSTM(6, 4, 2, bidirectional=True, batch_first=True),
    "gru": lambda: nn.GRU(6, 4, batch_first=True),
    "attention": lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, dropout=0.3),
    "convolution": lambda: nn.Sequential(nn.Conv1d(5, 4, 3), nn.BatchNorm1d(4), nn.ReLU()),
}


@pytest.mark.parametrize("name", TRUNKS)
def test_batched_through_common_layers(name: str) -> None:
    torch.manual_seed(0)
    trunk = TRUNKS[name]().double()
    shared = as_shared(trunk)
    found = trunk(torch.randn(3, 5, 6, dtype=torch.float64))
    z = found[0] if isinstance(found, tuple) else found
    graph = LossGraph([z.square().mean(), 50 * z.abs().mean(), z.exp().mean()], shared)
    expected, _ = observe(ExactNorms(), graph)
    torch.testing.assert_close(observe(ExactNorms("batched"), graph)[0].norms, expected.norms)


class LooksAtItsGradient(torch.autograd.Function):
    """The identity, whose backward pass asks for a value: a batch has not just one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0] * (1.0 if float(grads[0].sum()) < 1e300 else 0.0)


class Unbatchable(World):
    def make_trunk(self) -> nn.Module:
        layer = nn.Linear(6, 4).double()
        layer.register_forward_hook(lambda module, args, out: LooksAtItsGradient.apply(out))
        return layer

    def outputs(self) -> list[Tensor]:
        z = self.trunk(self.x)
        return [head(z) for head in self.heads]


def test_what_cannot_be_batched_is_taken_one_after_the_other_with_one_warning() -> None:
    world = Unbatchable()
    one, other = (balanced(NAMES, world.trunk, ExactNorms(mode)) for mode in ("batched", "store"))
    with pytest.warns(UserWarning, match="cannot carry a batch of gradients") as caught:
        found = one.backward(world.losses())
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = one.backward(world.losses())
    expected = other.backward(world.losses())
    torch.testing.assert_close(found.norms, expected.norms)
    torch.testing.assert_close(again.norms, expected.norms)


def test_sparse_gradients_cannot_be_batched_but_are_right() -> None:
    table = nn.Embedding(10, 3, sparse=True)
    shared = as_shared(table)
    rows = table(torch.tensor([1, 1, 4]))
    graph = LossGraph([rows.sum(), (2 * rows[:, 0]).sum()], shared)
    with pytest.warns(UserWarning, match="cannot carry a batch"):
        seen, _ = observe(ExactNorms("batched"), graph)
    torch.testing.assert_close(seen.norms, torch.tensor([15.0**0.5, 20.0**0.5]).double())
