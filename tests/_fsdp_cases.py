"""What is trained under FSDP2 (``fully_shard``) on several ranks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard

from _ddp_cases import MEASUREMENTS
from _engines import balanced
from _models import TwoStage, batch
from _ranked import TASKS, Net, Plan, check, loss, together, whole
from _ranks import World
from gaba.autograd.sharding import sharded


def by_layer(reshard: bool) -> Callable[[Net], Any]:
    def wrap(net: Net) -> Any:
        for layer in net.trunk:
            if isinstance(layer, nn.Linear):
                fully_shard(layer, reshard_after_forward=reshard)
        fully_shard(net.trunk, reshard_after_forward=reshard)
        return fully_shard(net, reshard_after_forward=reshard)

    return wrap


def trunk_and_heads(net: Net) -> Any:
    fully_shard(net.trunk)
    for head in net.heads.values():
        fully_shard(head)
    return fully_shard(net)


WRAPPERS: dict[str, Callable[[Net], Any]] = {
    "resharding": by_layer(True),
    "without_resharding": by_layer(False),
    "trunk_and_heads": trunk_and_heads,
    "whole": lambda net: fully_shard(net),
}


def add(name: str, case: Callable[[World], None]) -> None:
    globals()[f"case_{name}"] = case


for wrapper, wrap in WRAPPERS.items():
    for name in ("exact", "stream", "gramian"):
        plan = Plan(wrap, MEASUREMENTS[name], sizes=(6, 10))
        add(f"{wrapper}_{name}", lambda world, p=plan: check(p, world))
    plan = Plan(wrap, by_forward=True)
    add(f"{wrapper}_by_the_caller", lambda world, p=plan: check(p, world))
    plan = Plan(wrap, micro=2)
    add(f"{wrapper}_accumulated", lambda world, p=plan: check(p, world))


def case_trunk_in_one_piece_on_one_rank(world: World) -> None:
    """The shared part is FSDP's root: after the first pass others stand for its parameters."""
    plain, model = (TwoStage([1.0, 50.0], dtype=torch.float64) for _ in range(2))
    x = batch(dtype=torch.float64)
    expected = balanced(plain.names, plain.trunk).backward(plain.losses(x))
    with world.group():
        fully_shard(model.trunk)
        balancer = balanced(model.names, model.trunk)
        found = balancer.backward(model.losses(x))
        torch.testing.assert_close(found.norms, expected.norms)
        for p, q in zip(plain.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(whole(grad_of(q)), grad_of(p))


def grad_of(parameter: nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def hold_back(model: nn.Module, last: bool) -> Any:
    alone = not hasattr(model, "set_requires_gradient_sync")
    return nullcontext() if alone else _Reduced(model, last)


class _Reduced:
    def __init__(self, model: Any, now: bool) -> None:
        self.model, self.now = model, now

    def __enter__(self) -> None:
        self.model.set_requires_gradient_sync(self.now)

    def __exit__(self, *_: object) -> None:
        self.model.set_requires_gradient_sync(True)


def case_exact_while_gradients_are_held_back_is_refused(world: World) -> None:
    with world.group(), pytest.raises(ValueError, match="set_requires_gradient_sync"):
        together(Plan(by_layer(True), micro=2, held_back=hold_back), world)


def refused(world: World, name: str) -> None:
    with world.group(), pytest.raises(ValueError, match="FSDP has sharded"):
        together(Plan(by_layer(True), MEASUREMENTS[name]), world)


for name in ("layer", "half_batch"):
    add(f"{name}_is_refused", lambda world, n=name: refused(world, n))


def case_a_task_on_one_rank_only_is_refused(world: World) -> None:
    plan = Plan(by_layer(True), missing=lambda step, rank: ["b"] if rank else [])
    with world.group(), pytest.raises(ValueError, match=r"0 \* output.sum"):
        together(plan, world)


def case_a_zero_loss_stands_for_a_missing_task(world: World) -> None:
    with world.group():
        net = Net()
        model = by_layer(True)(net)
        assert sharded(net.parameters())
        balancer = balanced(TASKS, net.trunk)
        x, y = Plan().batch(0, world.rank)
        out = model(x)
        losses: Any = {t: loss(t, out[t], y) for t in TASKS}
        if world.rank:
            losses["b"] = 0 * out["b"].sum()
        step = balancer.backward(losses)
        other = Net()
        truth = balanced(TASKS, other.trunk, sync=False)
        batches = [Plan().batch(0, rank) for rank in range(world.size)]
        outs = [other(x) for x, _ in batches]
        means: Any = {
            t: torch.stack([loss(t, o[t], y) for o, (_, y) in zip(outs, batches, strict=True)])[
                : 1 if t == "b" else None
            ].sum()
            / world.size
            for t in TASKS
        }
        expected = truth.backward(means)
        torch.testing.assert_close(step.norms, expected.norms, rtol=1e-10, atol=0)


def case_parameters_without_their_module_are_refused(world: World) -> None:
    with world.group():
        net = Net()
        model = by_layer(True)(net)
        balancer = balanced(TASKS, list(net.trunk.parameters()))
        x, y = Plan().batch(0, world.rank)
        out = model(x)
        with pytest.raises(ValueError, match="below the features"):
            balancer.backward({t: loss(t, out[t], y) for t in TASKS})


def case_gradients_that_are_there_already_are_added_to(world: World) -> None:
    with world.group():
        net = Net()
        model = by_layer(True)(net)
        balancer = balanced(TASKS, net.trunk)
        once: dict[str, torch.Tensor] = {}
        for number in range(2):
            x, y = Plan().batch(0, world.rank)
            out = model(x)
            balancer.backward({t: loss(t, out[t], y) for t in TASKS})
            for name, p in net.named_parameters():
                gradient: Any = p.grad
                if number == 0:
                    once[name] = gradient.full_tensor().clone()
                else:
                    torch.testing.assert_close(gradient.full_tensor(), 2 * once[name])


def case_the_optimizers_metric_is_refused(world: World) -> None:
    with world.group():
        net = Net()
        model = by_layer(True)(net)
        adam = torch.optim.Adam(net.parameters())
        balancer = balanced(TASKS, net.trunk, metric="optimizer", optimizer=adam)
        x, y = Plan().batch(0, world.rank)
        out = model(x)
        with pytest.raises(ValueError, match="metric='euclidean'"):
            balancer.backward({t: loss(t, out[t], y) for t in TASKS})
