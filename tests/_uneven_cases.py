"""Tasks that some ranks lack, states that differ, numbers that are not finite: on several ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from _ddp_cases import MEASUREMENTS, ddp
from _engines import balanced
from _ranked import TASKS, Net, Plan, check, loss, together
from _ranks import World

Missing = Callable[[int, int], Sequence[str]]
MISSING: dict[str, Missing] = {
    "one_rank_only": lambda step, rank: ["b"] if rank else [],
    "by_turns": lambda step, rank: [TASKS[(step + rank) % 3]],
    "one_each": lambda step, rank: [t for t in TASKS if t != TASKS[(step + rank) % 3]],
    "gone_everywhere": lambda step, rank: ["c"] if step == 1 else [],
}


def add(name: str, case: Callable[[World], None]) -> None:
    globals()[f"case_{name}"] = case


for lack, missing in MISSING.items():
    for name in ("exact", "half_batch", "gramian", "layer"):
        if name == "gramian" and lack == "one_each":
            continue  # orthogonal by chance or not, one task has no Gramian to speak of
        plan = Plan(ddp(find_unused_parameters=True), MEASUREMENTS[name], missing=missing)
        add(f"{lack}_{name}", lambda world, p=plan: check(p, world))
    plan = Plan(ddp(find_unused_parameters=True), missing=missing, by_forward=True)
    add(f"{lack}_by_the_caller", lambda world, p=plan: check(p, world))
    plan = Plan(missing=missing, settings={"every": 2}, wrap=ddp(find_unused_parameters=True))
    add(f"{lack}_every", lambda world, p=plan: check(p, world))


def refused(plan: Plan, world: World, words: str, kind: type[Exception] = ValueError) -> None:
    with world.group(), pytest.raises(kind, match=words):
        together(plan, world)


def case_without_find_unused_it_is_refused(world: World) -> None:
    refused(Plan(ddp(), missing=MISSING["one_rank_only"]), world, "another rank|unused_parameters")


def case_a_task_gone_everywhere_is_refused_too(world: World) -> None:
    refused(Plan(ddp(), missing=MISSING["gone_everywhere"]), world, "find_unused_parameters=True")


def case_in_a_static_graph_it_is_refused(world: World) -> None:
    plan = Plan(ddp(static_graph=True), missing=lambda step, rank: ["b"] if step and rank else [])
    refused(plan, world, "another rank|static graph")


def case_in_a_window_that_is_not_reduced_it_is_allowed(world: World) -> None:
    with world.group():
        net = Net()
        model = DistributedDataParallel(net)
        balancer = balanced(TASKS, net.trunk)
        x, y = Plan().batch(0, world.rank)
        with model.no_sync():
            tasks = ["a", "c"] if world.rank else list(TASKS)
            out = model(x, tasks)
            step = balancer.backward({t: loss(t, out[t], y) for t in tasks})
        assert step.norms.isfinite().all()


def case_auto_is_refused_where_it_would_find_different_parameters(world: World) -> None:
    with world.group():
        net = Net()
        model = DistributedDataParallel(net, find_unused_parameters=True)
        balancer = balanced(TASKS, "auto")
        x, y = Plan().batch(0, world.rank)
        tasks = ["a", "c"] if world.rank else list(TASKS)
        out = model(x, tasks)
        with pytest.raises(ValueError, match="pass shared="):
            balancer.backward({t: loss(t, out[t], y) for t in tasks})


def case_auto_finds_the_same_on_all_ranks(world: World) -> None:
    truth_of = Plan(ddp())

    def balance(shared: Any) -> torch.Tensor:
        net = Net()
        model = DistributedDataParallel(net)
        balancer = balanced(TASKS, net.trunk if shared is None else shared)
        for step in range(2):
            x, y = truth_of.batch(step, world.rank)
            out = model(x)
            balancer.backward({t: loss(t, out[t], y) for t in TASKS})
        return torch.tensor(balancer.history.norms)

    with world.group():
        torch.testing.assert_close(balance("auto"), balance(None), rtol=1e-12, atol=0)


def case_a_loss_that_is_refused_on_one_rank_stops_all(world: World) -> None:
    with world.group():
        net = Net()
        balancer = balanced(TASKS, net.trunk)
        x, y = Plan().batch(0, world.rank)
        out = net(x)
        losses: Any = {t: loss(t, out[t], y) for t in TASKS}
        wrong = losses | {"a": losses["a"].detach()} if world.rank else losses
        with pytest.raises(ValueError, match="no graph" if world.rank else "1 that refuses"):
            balancer.backward(wrong)
        assert len(balancer.history) == 0
        assert all(p.grad is None for p in net.parameters())
        assert balancer.backward(losses).finite  # and they go on together


def case_states_that_differ_are_refused(world: World) -> None:
    with world.group():
        net = Net()
        balancer = balanced(TASKS, net.trunk)
        if world.rank == world.size - 1:
            other = balanced(TASKS, net.trunk, sync=False)
            x, y = Plan().batch(0, 0)
            out = net(x)
            other.backward({t: loss(t, out[t], y) for t in TASKS})
            balancer.load_state_dict(other.state_dict())
        x, y = Plan().batch(0, world.rank)
        out = net(x)
        with pytest.raises(ValueError, match="load the same state"):
            balancer.backward({t: loss(t, out[t], y) for t in TASKS})


def case_sync_false_leaves_each_rank_to_itself(world: World) -> None:
    with world.group():
        net = Net()
        balancer = balanced(TASKS, net.trunk, sync=False)
        x, y = Plan().batch(world.rank, world.rank)
        out = net(x)
        seen = balancer.backward({t: loss(t, out[t], y) for t in TASKS}).norms
        others = [torch.empty_like(seen) for _ in range(world.size)]
        dist.all_gather(others, seen)
        assert not torch.equal(others[0], others[1])


def case_the_norm_of_the_mean_is_not_the_mean_of_the_norms(world: World) -> None:
    with world.group():
        net = Net()
        x, y = Plan().batch(0, world.rank)
        out = net(x)
        losses: Any = {t: loss(t, out[t], y) for t in TASKS}
        own = balanced(TASKS, net.trunk, sync=False).backward(losses).norms
        out = net(x)
        losses = {t: loss(t, out[t], y) for t in TASKS}
        of_mean = balanced(TASKS, net.trunk).backward(losses).norms
        total = own.clone()
        dist.all_reduce(total)
        assert (of_mean < total / world.size * (1 - 1e-6)).all()


def poisoned(world: World, what: float, where: str, sync: str = "auto") -> None:
    """One step of which one rank's loss or gradient is not finite, between two that are sound."""
    with world.group():
        net = Net()
        model = DistributedDataParallel(net)
        balancer = balanced(TASKS, net.trunk, sync=sync)
        before = after = balancer.state_dict()
        for number in range(3):
            net.zero_grad()
            x, y = Plan().batch(number, world.rank)
            out = model(x)
            losses: Any = {t: loss(t, out[t], y) for t in TASKS}
            if number == 1 and world.rank == 1:
                if where == "loss":
                    losses["b"] = losses["b"] * what
                else:
                    losses["b"] = losses["b"] + _Poison.apply(out["b"].sum(), what)
            before = balancer.state_dict()
            step = balancer.backward(losses)
            after = balancer.state_dict()
            assert bool(step.finite) == (number != 1)
            if number == 1:
                for name, value in before.items():
                    if isinstance(value, torch.Tensor):
                        assert torch.equal(value, after[name]), name
        assert all(v.isfinite().all() for v in after.values() if isinstance(v, torch.Tensor))


class _Poison(torch.autograd.Function):
    """0, with a gradient that is not finite."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, what: float) -> torch.Tensor:
        ctx.what = what
        return torch.zeros_like(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0] * ctx.what, None


for what in (torch.nan, torch.inf):
    for where in ("loss", "gradient"):
        for sync in ("auto", "sketch"):
            add(
                f"{what}_in_the_{where}_of_one_rank_{sync}",
                lambda world, w=what, h=where, s=sync: poisoned(world, w, h, s),
            )


def case_raise_is_raised_on_all_ranks(world: World) -> None:
    with world.group():
        net = Net()
        balancer = balanced(TASKS, net.trunk, on_nonfinite="raise")
        x, y = Plan().batch(0, world.rank)
        out = net(x)
        losses: Any = {t: loss(t, out[t], y) for t in TASKS}
        if world.rank:
            losses["b"] = losses["b"] * torch.nan
        with pytest.raises(FloatingPointError):
            balancer.backward(losses)


def case_skip_leaves_grad_on_all_ranks_as_it_was(world: World) -> None:
    with world.group():
        net = Net()
        balancer = balanced(TASKS, net.trunk, on_nonfinite="skip")
        x, y = Plan().batch(0, world.rank)
        out = net(x)
        losses: Any = {t: loss(t, out[t], y) for t in TASKS}
        if world.rank:
            losses["b"] = _Poison.apply(losses["b"], torch.nan) + losses["b"]
        assert not bool(balancer.backward(losses).finite)
        assert all(p.grad is None for p in net.parameters())
        out = net(x)
        assert bool(balancer.backward({t: loss(t, out[t], y) for t in TASKS}).finite)


def case_a_loss_that_leaves_the_shared_part_on_one_rank(world: World) -> None:
    """Its gradient there is 0; on all ranks it is refused, on all of them."""
    with world.group():
        for everywhere in (False, True):
            net = Net()
            model = DistributedDataParallel(net)
            balancer = balanced(TASKS, net.trunk)
            x, y = Plan().batch(0, world.rank)
            out = model(x)
            losses: Any = {t: loss(t, out[t], y) for t in TASKS}
            if everywhere or world.rank:
                losses["b"] = sum(p.sum() for p in net.heads["b"].parameters())
            if everywhere:
                with pytest.raises(ValueError, match="reaches no shared parameter"):
                    balancer.backward(losses)
            else:
                assert (balancer.backward(losses).norms > 0).all()


def case_without_any_wrapper_the_caller_averages(world: World) -> None:
    def average(net: Net) -> None:
        for p in net.parameters():
            if p.grad is not None:
                dist.all_reduce(p.grad)
                p.grad /= world.size

    with world.group():
        net, plan = Net(), Plan()
        balancer = balanced(TASKS, net.trunk)
        x, y = plan.batch(0, world.rank)
        out = net(x)
        balancer.backward({t: loss(t, out[t], y) for t in TASKS})
        average(net)
        found = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
        again = together(replace(plan, wrap=ddp(), steps=1), world)
        expected = torch.cat([g.flatten() for g in again.grads[0].values()])
        torch.testing.assert_close(found, expected)
