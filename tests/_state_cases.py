"""State over ranks, sketches of gradients, the optimizer's metric, and a rank that dies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

import gaba
from _ddp_cases import MEASUREMENTS, ddp
from _engines import balanced
from _ranked import (
    TASKS,
    Net,
    Plan,
    alone,
    assert_close,
    assert_same_on_all_ranks,
    check,
    loss,
    rounding,
    together,
)
from _ranks import World


def case_four_ranks(world: World) -> None:
    check(Plan(ddp(), sizes=(4, 6, 8, 2)), world)


def case_four_ranks_in_a_static_graph(world: World) -> None:
    check(Plan(ddp(static_graph=True), late=True), world)


def case_four_ranks_with_tasks_missing(world: World) -> None:
    plan = Plan(
        ddp(find_unused_parameters=True),
        MEASUREMENTS["half_batch"],
        missing=lambda step, rank: [TASKS[(step + rank) % 3]] if rank < 3 else [],
    )
    check(plan, world)


RESTORED = ("exact", "probe", "half_batch")


def case_state_is_saved_once_and_restored_on_all_ranks(world: World) -> None:
    """Half of the steps by one process, the other half by all; against one process throughout."""
    wholes = {}
    for name in RESTORED:
        plan = Plan(ddp(), MEASUREMENTS[name], sizes=(8,) * world.size, steps=4)
        wholes[name] = plan, *_trained_by_one(plan, world.size, 4)
        if world.rank == 0:
            net, balancer = _trained_by_one(plan, world.size, 2)
            torch.save([net.state_dict(), balancer.state_dict()], world.folder / f"{name}.pt")
    with world.group():
        torch.distributed.barrier()
        for name, (plan, expected, whole) in wholes.items():
            _goes_on(plan, world, world.folder / f"{name}.pt", expected, whole)


def case_state_of_two_ranks_is_restored_on_four(world: World) -> None:
    """Half of the steps by two ranks with two batches each, the other half by four."""
    wholes = {}
    for name in RESTORED:
        plan = Plan(ddp(), MEASUREMENTS[name], sizes=(8,) * world.size, steps=4)
        wholes[name] = plan, *_trained_by_one(plan, world.size, 4)
    if world.rank < 2:
        with World(2, world.rank, world.folder).group(name="two"):
            for name, (plan, *_) in wholes.items():
                net = Net()
                balancer = plan.balancer(net)
                _take_steps(plan, net, balancer, (2 * world.rank, 2 * world.rank + 1), range(2))
                if world.rank == 0:
                    torch.save([net.state_dict(), balancer.state_dict()], world.folder / name)
        torch.distributed.destroy_process_group()
    with world.group(name="four"):
        torch.distributed.barrier()
        for name, (plan, expected, whole) in wholes.items():
            _goes_on(plan, world, world.folder / name, expected, whole)


def _trained_by_one(plan: Plan, world: int, steps: int) -> tuple[Net, gaba.Balancer]:
    net = Net()
    balancer, optimizer = plan.balancer(net), torch.optim.SGD(net.parameters(), lr=0.05)
    for step in range(steps):
        optimizer.zero_grad()
        balancer.backward(
            _losses_of_all(plan, net, step, world, balancer.method.measured.loss_shape)
        )
        optimizer.step()
    return net, balancer


def _losses_of_all(
    plan: Plan, net: Net, step: int, world: int, shape: tuple[int, ...]
) -> dict[str, Any]:
    outs = [(net(x), y) for x, y in (plan.batch(step, rank) for rank in range(world))]
    return {t: torch.stack([loss(t, out[t], y, shape) for out, y in outs]).mean(0) for t in TASKS}


def _goes_on(plan: Plan, world: World, place: Any, expected: Net, whole: gaba.Balancer) -> None:
    of_net, of_balancer = torch.load(place, weights_only=True)
    net = Net()
    balancer = plan.balancer(net)
    net.load_state_dict(of_net)
    balancer.load_state_dict(of_balancer)
    _take_steps(plan, net, balancer, (world.rank,), range(2, 4))
    for mine, theirs in zip(net.parameters(), expected.parameters(), strict=True):
        assert_close(mine, theirs, rounding(plan), "a parameter")
    for name, multiplier in balancer.multipliers.items():
        assert multiplier == pytest.approx(whole.multipliers[name], rel=rounding(plan))


def _take_steps(
    plan: Plan, net: Net, balancer: gaba.Balancer, ranks: Sequence[int], steps: range
) -> None:
    """Steps of DDP on the batches, of one size, that these ranks of the plan have."""
    model = DistributedDataParallel(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for step in steps:
        optimizer.zero_grad()
        x, y = (torch.cat(part) for part in zip(*(plan.batch(step, r) for r in ranks), strict=True))
        out, shape = model(x), balancer.method.measured.loss_shape
        of = {
            t: [
                loss(t, a, b, shape)
                for a, b in zip(out[t].chunk(len(ranks)), y.chunk(len(ranks)), strict=True)
            ]
            for t in TASKS
        }
        balancer.backward({t: torch.stack(parts).mean(0) for t, parts in of.items()})
        optimizer.step()


def case_the_sketch_of_gradients_leaves_ranks_alike(world: World) -> None:
    with world.group():
        found = together(Plan(ddp(), {"sync": "sketch"}), world)
        assert_same_on_all_ranks(found)
    truth = alone(Plan(), world.size)
    for mine, theirs in zip(found.norms, truth.norms, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0.1, atol=0)


def case_the_optimizers_metric(world: World) -> None:
    def train(net: Net, model: Any, ranks: list[int]) -> gaba.Balancer:
        adam = torch.optim.AdamW(net.parameters(), lr=0.01)
        balancer = balanced(TASKS, net.trunk, metric="optimizer", optimizer=adam)
        for number in range(3):
            adam.zero_grad()
            outs = [(model(x), y) for x, y in (Plan().batch(number, rank) for rank in ranks)]
            balancer.backward(
                {t: torch.stack([loss(t, o[t], y) for o, y in outs]).mean() for t in TASKS}
            )
            adam.step()
        return balancer

    net = Net()
    truth = train(net, net, list(range(world.size)))
    with world.group():
        net = Net()
        found = train(net, DistributedDataParallel(net), [world.rank])
    one, other = found.history.norms, truth.history.norms
    assert one == pytest.approx(other, rel=1e-6)


def case_no_more_is_sent_than_is_said(world: World) -> None:
    """The sizes of all sums over the ranks in a step, of the Balancer alone, in bytes."""
    k, plan = len(TASKS), Plan()
    theta = 8 * sum(p.numel() for p in Net().trunk.parameters())  # in float64
    roll, squares = 8 * (2 * k + 3), 8 * 2 * k
    expected = {
        "exact": [roll, *[theta] * k, squares],
        "gramian": [roll, *[theta] * k, 8 * (k * k + k)],
        "outputs": [roll, 4, squares],
        "half_batch": [roll, *[theta] * 2 * k, 8 * 5 * k],
        "every": [roll],
    }
    sent: list[int] = []
    plain = torch.distributed.all_reduce

    def counting(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        sent.append(tensor.nbytes)
        return plain(tensor, *args, **kwargs)

    torch.distributed.all_reduce = counting
    with world.group():
        for name, sizes in expected.items():
            net = Net()
            balancer = plan.balancer(net, **MEASUREMENTS[name])
            shape = balancer.method.measured.loss_shape
            for _ in range(2 if name == "every" else 1):
                x, y = plan.batch(0, world.rank)
                out = net(x)
                sent.clear()
                balancer.backward({t: loss(t, out[t], y, shape) for t in TASKS})
            assert sent == sizes, name


def case_a_rank_dies_and_the_others_raise_in_time(world: World) -> None:
    with world.group(seconds=5):
        net = Net()
        model = DistributedDataParallel(net)
        balancer = balanced(TASKS, net.trunk)
        began = time.monotonic()

        def train() -> None:
            for number in range(100):
                x, y = Plan().batch(number, world.rank)
                out = model(x)
                losses = {t: loss(t, out[t], y) for t in TASKS}
                if number == 3 and world.rank == world.size - 1:
                    world.leave()
                balancer.backward(losses)

        with pytest.raises(RuntimeError):
            train()
        assert len(balancer.history) == 3
        assert time.monotonic() - began < 20
        world.leave()  # nobody is left to wait for at the barrier
