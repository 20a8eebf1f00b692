"""The default method on several ranks: DistributedDataParallel and FSDP2."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import gaba
from _ddp_cases import WRAPPERS, ddp, held_back
from _fsdp_cases import WRAPPERS as SHARDED
from _ranked import (
    TASKS,
    Net,
    Plan,
    alone,
    assert_as_alone,
    assert_same_on_all_ranks,
    loss,
    together,
)
from _ranks import World
from _uneven_cases import MISSING

PROBED = 1e-6
"""Rounding of 1e-16 in the features, over ε = 1e-5, in a share of 1 %; and some room."""


def tracked(engine: str = "auto", **settings: Any) -> dict[str, Any]:
    method = gaba.methods.get("gaba", engine=engine, limit=1000)
    return {"every": 1, **settings, "tracked": method}


class TrackedPlan(Plan):
    """The same with the default method, measured in every step."""

    def balancer(self, net: Net, **others: Any) -> gaba.Balancer:
        settings = {"accumulate": self.micro, **self.settings, **others}
        return gaba.Balancer(TASKS, net.trunk, settings.pop("tracked"), **settings)


def check(plan: Plan, world: World, engine: str) -> None:
    """The ranks agree with each other and with one process, and it was measured as expected."""
    truth = alone(plan, world.size)
    with world.group():
        found = together(plan, world)
        assert_same_on_all_ranks(found)
        assert engine in found.balancer.history.engines, found.balancer.history.engines
        allowed = {"", "norms", engine, "products"}  # of two tasks, by products
        assert set(found.balancer.history.engines) <= allowed
        assert not found.balancer._cadence.reason, found.balancer._cadence
    assert_as_alone(found, truth, PROBED)


def add(name: str, case: Callable[[World], None]) -> None:
    globals()[f"case_{name}"] = case


def add_plan(name: str, plan: Plan, engine: str) -> None:
    add(name, lambda world: check(plan, world, engine))


for wrapper, settings in WRAPPERS.items():
    late = "static" in wrapper
    for engine in ("probe", "products"):
        made = tracked(engine)
        plan = TrackedPlan(ddp(**settings), made, late=late, steps=4)
        add_plan(f"ddp_{wrapper}_{engine}", plan, engine)
    plan = TrackedPlan(ddp(**settings), tracked(), late=late, by_forward=True, steps=4)
    add_plan(f"ddp_{wrapper}_by_the_caller", plan, "probe")
add_plan("ddp_uneven_batches", TrackedPlan(ddp(), tracked(), sizes=(4, 10), steps=5), "probe")
add_plan("ddp_windows", TrackedPlan(ddp(), tracked(), micro=3), "probe")
for lack, missing in MISSING.items():
    plan = TrackedPlan(
        ddp(find_unused_parameters=True), tracked(), missing=missing, steps=6, sizes=(6, 6)
    )
    add_plan(f"ddp_{lack}", plan, "products" if lack == "one_each" else "probe")
for wrapper, wrap in SHARDED.items():
    plan = TrackedPlan(wrap, tracked("products"), sizes=(6, 10), steps=5)
    add_plan(f"fsdp_{wrapper}", plan, "products")
    plan = TrackedPlan(wrap, tracked("products"), by_forward=True, steps=5)
    add_plan(f"fsdp_{wrapper}_by_the_caller", plan, "products")


def case_ddp_no_sync_measures_what_each_rank_has(world: World) -> None:
    """In a window that is reduced at its end, the other parts are measured, without alarm."""
    plan = TrackedPlan(ddp(), tracked(), micro=3, held_back=held_back, steps=4)
    with world.group(), warnings.catch_warnings():
        warnings.simplefilter("error")
        found = together(plan, world)
        assert_same_on_all_ranks(found)
        engines = found.balancer.history.engines.tolist()
        assert engines == ["norms", "probe", *[""] * 1, *["probe", "probe", ""] * 3]
        assert not found.balancer._cadence.reason


def case_a_gradient_that_one_rank_did_not_reduce_is_found(world: World) -> None:
    """Ranks that train each on its own, by a forgotten wrapper: never believed."""
    with world.group(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = Net()
        balancer = gaba.Balancer(TASKS, net.trunk, every=1)
        for step in range(3):
            net.zero_grad()
            x, y = Plan().batch(step, world.rank)
            out = net(x)
            said = balancer.backward({t: loss(t, out[t], y) for t in TASKS})
            assert said.engine == ("" if step else "norms")
        assert "between the ranks" in balancer._cadence.reason


def case_a_loss_that_reaches_nothing_on_one_rank_does_not_hang_the_others(world: World) -> None:
    """Its zero is a constant there; the mean over the ranks is as if it pulled half as hard."""
    with world.group():
        net = Net()
        model = DistributedDataParallel(net, find_unused_parameters=True)
        balancer = gaba.Balancer(TASKS, net.trunk, every=1)
        for step in range(4):
            net.zero_grad()
            x, y = Plan().batch(step, world.rank)
            out = model(x)
            losses = {t: loss(t, out[t], y) for t in TASKS}
            if world.rank == 1 and step:
                losses["b"] = torch.zeros((), dtype=torch.float64)
            said = balancer.backward(losses)
            assert said.engine == ("probe" if step else "norms")
            assert said.shares[1] > 0 or not step, said
            shares = said.shares.nan_to_num()
            dist.broadcast(shares, 0)
            assert torch.equal(shares, said.shares.nan_to_num())


def case_another_cadence_on_one_rank_is_refused(world: World) -> None:
    with world.group():
        plan = TrackedPlan(ddp(), tracked(every=1 + world.rank))
        with pytest.raises(ValueError, match="same on all"):
            together(plan, world)


class WithFixed(Plan):
    """The third loss is added as it is."""

    def balancer(self, net: Net, **others: Any) -> gaba.Balancer:
        settings = {"accumulate": self.micro, "every": 1, **self.settings, **others}
        return gaba.Balancer(TASKS[:2], net.trunk, "gaba", fixed={"c": 30.0}, **settings)


add_plan("ddp_fixed", WithFixed(ddp(), steps=4), "probe")
add_plan("ddp_fixed_by_the_caller", WithFixed(ddp(), steps=4, by_forward=True), "probe")

OBSERVED = {"tracked": gaba.methods.get("observe"), "every": 1}
for wrapper in ("plain", "static", "small_buckets"):
    plan = TrackedPlan(ddp(**WRAPPERS[wrapper]), OBSERVED, late=wrapper == "static", steps=4)
    add_plan(f"observe_{wrapper}", plan, "norms")
add_plan("observe_windows", TrackedPlan(ddp(), OBSERVED, micro=3), "norms")
add_plan("observe_fsdp2", TrackedPlan(SHARDED["whole"], OBSERVED, steps=4), "norms")


def case_observing_changes_no_bit(world: World) -> None:
    """Of a training under DDP, also where the observer is asked beside the own backward pass."""
    with world.group():
        found = []
        for how in ("plain", "backward", "beside"):
            net = Net()
            model = DistributedDataParallel(net)
            observer = gaba.Observer(TASKS, net.trunk, every=2)
            optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
            for step in range(6):
                optimizer.zero_grad()
                x, y = Plan().batch(step, world.rank)
                out = model(x)
                losses = {task: loss(task, out[task], y) for task in TASKS}
                if how == "backward":
                    observer.backward(losses)
                else:
                    _ = observer(losses) if how == "beside" else None
                    sum(losses.values(), start=torch.zeros(())).backward()
                optimizer.step()
            found.append(net.state_dict())
            measured = observer.history.measured.tolist()
            assert measured == ([] if how == "plain" else [True, False] * 3)
        for name, value in found[0].items():
            assert torch.equal(found[1][name], value), name
            assert torch.equal(found[2][name], value), name
