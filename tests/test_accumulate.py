"""Windows of micro-batches: multipliers held, measured once, gradients added up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import gaba
from _models import TwoStage, batch, grads


def model() -> TwoStage:
    return TwoStage([1.0, 300.0, 0.01], dtype=torch.float64)


def x(number: int) -> torch.Tensor:
    return batch(number, dtype=torch.float64)


@pytest.mark.parametrize("method", ["gaba", "inverse"])
@pytest.mark.parametrize("how", ["backward", "forward"])
def test_weights_are_held_in_a_window_and_gradients_add_up(how: str, method: str) -> None:
    net = model()
    balancer = gaba.Balancer(net.names, net.trunk, method, accumulate=3)
    history = balancer.history
    for window in range(3):
        net.zero_grad()
        for part in range(3):
            losses = net.losses(x(3 * window + part))
            if how == "backward":
                balancer.backward(losses)
            else:
                balancer(losses).backward()
        found = grads(net)
        if method == "inverse":
            assert history.measured.tolist()[-3:] == [True, False, False]
        elif window == 0:  # each micro-batch is measured, for one task may be in the last alone
            assert history.engines.tolist() == ["norms", "probe", "probe"]
        assert (history.multipliers[-3:] == history.multipliers[-1]).all()
        factors = history.multipliers[-1]
        net.zero_grad()
        for part in range(3):
            losses = net.losses(x(3 * window + part))
            for c, loss in zip(factors, losses.values(), strict=True):
                assert loss is not None
                (float(c) * loss).backward(retain_graph=True)
        for name, value in grads(net).items():
            torch.testing.assert_close(found[name], value)
    assert len({tuple(row) for row in history.multipliers.tolist()}) == 3


def test_a_window_of_one_batch_in_parts_is_measured_on_the_first_part() -> None:
    net = model()
    balancer = gaba.Balancer(net.names, net.trunk, accumulate=2)
    first = balancer.backward(net.losses(x(0)))
    alone = gaba.Balancer(net.names, net.trunk).backward(net.losses(x(0)))
    torch.testing.assert_close(first.multipliers, alone.multipliers, rtol=1e-12, atol=0)


def test_a_task_that_comes_and_goes_within_a_window_keeps_its_multiplier() -> None:
    net = model()
    for gone in ((), ("task1",)):  # also where the first micro-batch, which is measured, lacks it
        balancer = gaba.Balancer(net.names, net.trunk, accumulate=3)
        balancer.backward({n: None if n in gone else v for n, v in net.losses(x(0)).items()})
        for part in (1, 2):
            losses = net.losses(x(part)) | ({"task2": None} if part == 1 else {})
            balancer.backward(losses)
        history = balancer.history
        found = history.multipliers
        assert found[:, 0] == pytest.approx(found[0, 0], rel=1e-12)
        assert found[2, 1] == pytest.approx(found[1, 1], rel=1e-12)
        assert found[2, 2] == pytest.approx(found[0, 2], rel=1e-12)
        assert np.isnan(found[1, 2])
        assert np.isnan(found[0, 1]) == bool(gone)
        assert history.weights.sum(1) == pytest.approx(1)


def test_every_counts_windows() -> None:
    net = model()
    balancer = gaba.Balancer(net.names, net.trunk, "inverse", accumulate=2, every=2)
    for number in range(8):
        balancer.backward(net.losses(x(number)))
    assert balancer.history.measured.tolist() == [True, *[False] * 3, True, *[False] * 3]


@pytest.mark.parametrize("measure", ["exact", "tracked", "half-batch"])
def test_a_resume_within_a_window_goes_on_bit_for_bit(measure: str) -> None:
    def losses(net: TwoStage, number: int) -> dict[str, Any]:
        if measure != "half-batch":
            return net.losses(x(number))
        a, b = (net.losses(part) for part in x(number).chunk(2))
        return {n: torch.stack([a[n], b[n]]) for n in net.names}  # pyright: ignore

    def balance(net: TwoStage) -> gaba.Balancer:
        method = gaba.methods.get("gaba", measure=measure)
        return gaba.Balancer(net.names, net.trunk, method, accumulate=3)

    net = model()
    whole = balance(net)
    for number in range(8):
        whole.backward(losses(net, number))
    first = balance(net)
    for number in range(4):
        first.backward(losses(net, number))
    second = balance(net)
    second.load_state_dict(first.state_dict())
    for number in range(4, 8):
        second.backward(losses(net, number))
    assert (second.history.multipliers == whole.history.multipliers[4:]).all()


def test_a_rule_that_takes_losses_is_held_too() -> None:
    net = model()
    balancer = gaba.Balancer(net.names, net.trunk, accumulate=2, method="dwa")
    for number in range(4):
        balancer.backward(net.losses(x(number)))
    rule = balancer.state_dict()["_state.method_rule_count"]
    assert rule.tolist() == [2, 2, 2]  # one loss a window is taken in


@pytest.mark.parametrize("wrong", [{"accumulate": 0}, {"accumulate": 2, "method": "db-mtl"}])
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    net = model()
    with pytest.raises(ValueError, match="accumulate"):
        gaba.Balancer(net.names, net.trunk, **wrong)


@pytest.mark.parametrize("method", ["gaba", "inverse"])
def test_a_window_that_is_cut_short_does_not_shift_the_next(method: str) -> None:
    net = model()
    balancer = gaba.Balancer(net.names, net.trunk, method, accumulate=3)
    sizes, count = [3, 2, 3, 3, 1, 3], 0
    for n, size in enumerate(sizes):
        balancer.begin_window()
        if n == 4:  # and a checkpoint knows where it is
            twin = gaba.Balancer(net.names, net.trunk, method, accumulate=3)
            twin.load_state_dict(balancer.state_dict())
            twin.history, balancer = balancer.history, twin
        used = []
        for _ in range(size):
            used.append(balancer.backward(net.losses(x(count))).multipliers)
            count += 1
        for multipliers in used:
            assert torch.equal(multipliers, used[0])
    changes = np.any(np.diff(balancer.history.multipliers, axis=0) != 0, axis=1)
    assert set(np.flatnonzero(changes) + 1) <= set(np.cumsum(sizes))
    assert changes.sum() >= 4


def test_windows_are_counted_from_where_they_begin() -> None:
    """Every second one is measured, also after one that was cut short."""
    net = model()
    method = gaba.methods.get("inverse", every=2)
    balancer = gaba.Balancer(net.names, net.trunk, method, accumulate=2)
    measured: list[list[bool]] = []
    for size in (2, 1, 2, 2, 1, 2):
        balancer.begin_window()
        window = [balancer.backward(net.losses(x(n))) for n in range(size)]
        measured.append([bool(step.measured) for step in window])
    assert [window[0] for window in measured] == [True, False, True, False, True, False]
