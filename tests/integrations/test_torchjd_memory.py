"""What TorchJD's weightings remember and draw is in the Balancer's state, and nowhere else."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor
from torchjd import Stateful
from torchjd import aggregation as jd

import gaba
from _models import TwoStage, batch, grads
from _torchjd_cases import AGGREGATORS, THREE_AT_LEAST, WITH_A_MEMORY, seeded
from gaba.integrations.torchjd import FromTorchJD, TheirState
from gaba.rules import Seen
from gaba.stabilisers import Identity
from gaba.state import flatten

EVERY = {**AGGREGATORS, **THREE_AT_LEAST}
SCALES = (100.0, 1.0, 0.1)
RANDOM = ["GradVac", "PCGrad", "Random"]


def balancer_of(model: TwoStage, weighting: Any, seed: int = 0) -> gaba.Balancer:
    rule = FromTorchJD(weighting, seed=seed)
    method = gaba.Method(rule, believe=Identity(), scale="rule")
    return gaba.Balancer(model.names, model.trunk, method)


def gramians(k: int, count: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, k, 2, generator=generator, dtype=torch.float64)  # much conflict
    rows = rows * torch.randn(count, k, 1, generator=generator, dtype=torch.float64).exp()
    return list(rows @ rows.mT + 0.01 * torch.eye(k, dtype=torch.float64))


def seen(gramian: Tensor) -> Seen:
    return Seen(gramian.diagonal(), gramian.diagonal().sqrt(), gramian)


def without(gramian: Tensor, task: int) -> Tensor:
    gramian = gramian.clone()
    gramian[task] = gramian[:, task] = torch.nan
    return gramian


def weights_of(balancer: gaba.Balancer, model: TwoStage, seeds: range) -> list[Tensor]:
    steps = [balancer.backward(model.losses(batch(i, dtype=torch.float64))) for i in seeds]
    model.zero_grad()
    return [step.multipliers for step in steps]


@pytest.mark.parametrize("name", EVERY)
def test_a_resumed_run_goes_on_bit_for_bit(name: str) -> None:
    model = TwoStage(SCALES, dtype=torch.float64)
    whole = balancer_of(model, EVERY[name](3))
    torch.manual_seed(1)
    before = weights_of(whole, model, range(2))
    saved = io.BytesIO()
    torch.save(whole.state_dict(), saved)
    after = weights_of(whole, model, range(2, 4))

    torch.manual_seed(2)
    second = balancer_of(model, EVERY[name](3))
    second.load_state_dict(torch.load(io.BytesIO(saved.getvalue())))
    again = weights_of(second, model, range(2, 4))
    for a, b in zip(after, again, strict=True):
        assert torch.equal(a, b)

    whole.reset()
    assert torch.equal(weights_of(whole, model, range(1))[0], before[0])


@pytest.mark.parametrize("name", [name for name in WITH_A_MEMORY if name != "NashMTL"])
def test_without_the_state_a_run_does_not_go_on(name: str) -> None:
    """So the test above would see a memory that is not saved.

    Where NashMTL searches in each step, its memory is only where the search starts.
    """
    rule = FromTorchJD(AGGREGATORS[name](3))
    told = gramians(3, 4)
    weights, state = rule.update(seen(told[0]), rule.init(3))
    for gramian in told[1:]:
        weights, state = rule.update(seen(gramian), state)
    fresh, _ = rule.update(seen(told[-1]), rule.init(3))
    assert not torch.allclose(weights, fresh, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", EVERY)
def test_neither_their_weighting_nor_the_global_generator_changes(name: str) -> None:
    aggregator = EVERY[name](3)
    rule = FromTorchJD(aggregator)
    parts = [part for part in aggregator.modules() if isinstance(part, Stateful)]
    before = [copy.copy(vars(part)) for part in parts]
    generator = torch.get_rng_state()
    state = rule.init(3)
    held = [tensor.clone() for part in state.memory for tensor in part]
    for gramian in gramians(3, 3):
        rule.update(seen(gramian), state)
        rule(gramian)
    assert torch.equal(torch.get_rng_state(), generator)
    assert [vars(part) for part in parts] == before
    for old, new in zip(held, [t for part in state.memory for t in part], strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize("name", RANDOM)
def test_what_is_drawn_follows_from_the_seed_and_the_call_alone(name: str) -> None:
    theirs, state = AGGREGATORS[name](5), FromTorchJD(AGGREGATORS[name](5)).init(5)
    weighting = FromTorchJD(theirs).weighting
    drawn = {}
    for seed in (0, 3):
        rule, state, oracle = FromTorchJD(theirs, seed=seed), state, copy.deepcopy(weighting)
        rows, memory = [], rule.init(5)
        for call, gramian in enumerate(gramians(5, 4)):
            found, memory = rule.update(seen(gramian), memory)
            seeded(call, seed)
            torch.testing.assert_close(found, oracle(gramian), rtol=1e-12, atol=1e-12)
            rows.append(found)
        drawn[seed] = torch.stack(rows)
    assert not torch.allclose(drawn[0], drawn[3])


@pytest.mark.parametrize("name", EVERY)
def test_a_missing_task_keeps_its_memory_and_the_others_are_weighted_alone(name: str) -> None:
    rule, alone = FromTorchJD(EVERY[name](4)), None
    if not any(word in name for word in ("from uniform", "preferring", "Constant")):
        alone = FromTorchJD(EVERY[name](3))  # the others' vectors hold something for all four
    here = torch.tensor([True, True, False, True])
    state = rule.init(4)
    if alone is not None:
        memory = alone.init(3)
        for gramian in gramians(4, 3):
            raw, state = rule.update(seen(without(gramian, 2)), state)
            assert bool(raw[2].isnan())
            few = gramian[here][:, here]
            expected, memory = alone.update(seen(few), memory)
            torch.testing.assert_close(raw[here], expected, rtol=1e-12, atol=1e-15)
    for gramian in gramians(4, 2, seed=1):
        raw, state = rule.update(seen(gramian), state)
        assert bool(raw.isfinite().all())
    held = [tensor.clone() for part in state.memory for tensor in part]
    raw, state = rule.update(seen(without(gramians(4, 1, seed=2)[0], 2)), state)
    assert bool(raw[here].isfinite().all())
    for old, new in zip(held, [t for part in state.memory for t in part], strict=True):
        if new.ndim > 0:
            assert torch.equal(new[2], old[2])
        assert bool(new.isfinite().all())


@pytest.mark.parametrize("make", [jd.ConFIG, jd.UPGrad, jd.AlignedMTL, jd.Constant, jd.DualProj])
def test_of_a_vector_over_the_tasks_those_present_are_taken_in_any_dtype(make: Any) -> None:
    here = torch.tensor([True, False, True, True])
    gramian = gramians(4, 1)[0]
    whole, part = torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([4.0, 2.0, 1.0])
    for vector in (whole, whole.double(), whole.bfloat16()):
        rule = FromTorchJD(make(vector))
        raw, _ = rule.update(seen(without(gramian, 1)), rule.init(4))
        expected = FromTorchJD(make(part.double())).raw(gramian[here][:, here])
        torch.testing.assert_close(raw[here], expected, rtol=1e-12, atol=1e-15)


def test_a_later_task_of_pcd_is_as_loud_as_when_it_first_comes() -> None:
    rule = FromTorchJD(jd.PCD(beta=0.9))
    told = gramians(3, 4)
    state = rule.init(3)
    for gramian in told[:3]:
        _, state = rule.update(seen(without(gramian, 2)), state)
    _, state = rule.update(seen(told[3]), state)
    means, counts = state.memory[0]
    assert counts.tolist() == [4, 4, 1]
    assert float(means[2]) == pytest.approx(float(told[3][2, 2]), rel=1e-12)


@pytest.mark.parametrize("name", [*WITH_A_MEMORY, "PCGrad", "ConFIG"])
def test_where_a_device_has_no_float64_the_memory_stays_in_float32(name: str) -> None:
    rule = FromTorchJD(AGGREGATORS[name](3))
    wide = narrow = rule.init(3)
    narrow = TheirState(
        wide.seed,
        wide.calls,
        tuple(tuple(t.float() if t.is_floating_point() else t for t in p) for p in wide.memory),
    )
    for gramian in gramians(3, 2):
        exact, wide = rule.update(seen(gramian), wide)
        raw, narrow = rule.update(seen(gramian.float()), narrow)
        assert raw.dtype == torch.float32
        torch.testing.assert_close(raw.double(), exact, rtol=1e-2, atol=1e-3)
        for part in narrow.memory:
            assert not any(tensor.dtype == torch.float64 for tensor in part)


def test_pcd_wants_its_first_task() -> None:
    rule = FromTorchJD(jd.PCD())
    with pytest.raises(ValueError, match="primary objective, the first task"):
        rule.update(seen(without(torch.eye(3), 0)), rule.init(3))


def test_of_the_fractions_of_pcd_those_of_the_tasks_present_are_taken() -> None:
    whole, part = (FromTorchJD(jd.PCD(tau=torch.tensor(tau))) for tau in ([0.1, 0.4], [0.4]))
    gramian = gramians(3, 1)[0]
    raw, _ = whole.update(seen(without(gramian, 1)), whole.init(3))
    here = torch.tensor([0, 2])
    expected, _ = part.update(seen(gramian[here][:, here]), part.init(2))
    torch.testing.assert_close(raw[here], expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("bad", "at"), [(torch.inf, (1, 1)), (torch.nan, (0, 1))])
@pytest.mark.parametrize("name", EVERY)
def test_what_is_not_finite_gives_nan_and_reaches_no_memory(
    name: str, bad: float, at: tuple[int, int]
) -> None:
    rule = FromTorchJD(EVERY[name](3))
    gramian = torch.eye(3, dtype=torch.float64) * 2
    gramian[at] = bad
    state = rule.init(3)
    raw, after = rule.update(seen(gramian), state)
    assert bool(raw.isnan().all())
    for name, tensor in flatten(state).items():
        assert torch.equal(tensor, flatten(after)[name])


@pytest.mark.parametrize("name", ["GradVac", "NashMTL"])
def test_a_bad_step_leaves_the_memory_of_the_balancer_alone(name: str) -> None:
    model = TwoStage(SCALES, dtype=torch.float64)
    balancer = balancer_of(model, AGGREGATORS[name](3))
    weights_of(balancer, model, range(2))
    before = {k: v.clone() for k, v in balancer.state_dict().items() if "method_rule" in k}
    losses = model.losses(batch(dtype=torch.float64))
    bad = {task: None if loss is None else loss * torch.inf for task, loss in losses.items()}
    assert not bool(balancer.backward(bad).finite)
    after = balancer.state_dict()
    assert len(before) >= 2
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert grads(model)


def test_another_number_of_tasks_is_refused_when_the_balancer_is_made() -> None:
    model = TwoStage((1.0, 2.0))
    many = {
        "n_tasks must be the number of tasks, 2": jd.NashMTL(n_tasks=3),
        "initial_weights must have an entry": jd.CRMOGMWeighting(
            jd.MeanWeighting(), initial_weights=torch.ones(3)
        ),
        "at least 3 rows": jd.Krum(n_byzantine=0),
        "number of specified weights": jd.Constant(torch.ones(3)),
    }
    for message, weighting in many.items():
        with pytest.raises(ValueError, match=message):
            balancer_of(model, weighting)


def test_a_memory_of_an_unknown_kind_is_refused() -> None:
    class Counting(jd.MeanWeighting, Stateful):
        def reset(self) -> None:
            """Nothing."""

    with pytest.raises(TypeError, match="found Counting, whose memory is unknown"):
        FromTorchJD(Counting())
