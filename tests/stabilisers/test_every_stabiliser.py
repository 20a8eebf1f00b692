"""What holds for every stabiliser: pure, resumable, float64, detached, blind to missing tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gaba import state as states
from gaba.stabilisers import (
    EMA,
    Belief,
    Chain,
    Clip,
    Floor,
    Freeze,
    Identity,
    LogEMA,
    Stabiliser,
    Warmup,
)

EVERY: list[Stabiliser] = [
    Identity(),
    Belief(),
    Belief(0.2, 0.5),
    EMA(),
    EMA(0.9, debias=True),
    LogEMA(),
    Floor(),
    Floor(0.1, mode="project"),
    Warmup(20),
    Clip(0.1, 0.6),
    Clip(),
    Freeze(10),
    Freeze(40),
    Chain((Warmup(20), EMA(), Floor())),
    Chain((LogEMA(), Chain((EMA(debias=True), Freeze(40))))),
    Chain(()),
]
every = pytest.mark.parametrize("stabiliser", EVERY, ids=repr)

K = 3

ANYTHING: dict[Any, Any] = {value: value for value in ("clip", "floor", 1.5)}
"""Values of a wrong type, hidden from the type checker."""


def values(n: int) -> Tensor:
    """n vectors on the simplex, some entries 0."""
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(n, K, generator=generator, dtype=torch.float64).mul(2).exp()
    raw = raw * (torch.rand(n, K, generator=generator) > 0.1)
    return (raw + 1e-9) / (raw + 1e-9).sum(-1, keepdim=True) * (raw > 0)


def with_missing(value: Tensor, missing: bool = True) -> Tensor:
    """``value`` with NaN for the second task, if it is missing."""
    return torch.where(torch.tensor([False, missing, False]), torch.nan, value)


def identical(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())


@every
def test_resumes_bit_for_bit(stabiliser: Stabiliser) -> None:
    state = stabiliser.init(K)
    for value in values(25):
        _, state = stabiliser.update(value, state)
    saved = {name: tensor.clone() for name, tensor in states.flatten(state).items()}
    resumed = states.unflatten(stabiliser.init(K), saved)
    for value in values(50)[25:]:
        expected, state = stabiliser.update(value, state)
        result, resumed = stabiliser.update(value, resumed)
        assert identical(result, expected)
    after = states.flatten(state)
    assert list(states.flatten(resumed)) == list(after)
    assert all(identical(tensor, after[name]) for name, tensor in states.flatten(resumed).items())


@every
def test_neither_writes_into_what_it_is_given_nor_shares_it(stabiliser: Stabiliser) -> None:
    state = stabiliser.init(K)
    for step, value in enumerate(values(30)):
        value = with_missing(value, step % 3 == 0)
        given = [value, *states.flatten(state).values()]
        copies = [tensor.clone() for tensor in given]
        result, new = stabiliser.update(value, state)
        made = [result, *states.flatten(new).values()]
        assert all(map(identical, given, copies))
        places = {tensor.untyped_storage().data_ptr() for tensor in (value,)}
        assert not places & {tensor.untyped_storage().data_ptr() for tensor in made}
        assert result.untyped_storage().data_ptr() not in {
            tensor.untyped_storage().data_ptr() for tensor in states.flatten(state).values()
        }
        state = new


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_works_in_float64_whatever_comes_in(stabiliser: Stabiliser, dtype: torch.dtype) -> None:
    state = stabiliser.init(K)
    wide = stabiliser.init(K)
    for value in values(30).to(dtype):
        result, state = stabiliser.update(value, state)
        expected, wide = stabiliser.update(value.double(), wide)
        assert identical(result, expected)
        for name, tensor in states.flatten(state).items():
            assert tensor.dtype in (torch.float64, torch.int64, torch.bool), name


@every
def test_keeps_no_graph(stabiliser: Stabiliser) -> None:
    state = stabiliser.init(K)
    value = values(1)[0].requires_grad_()
    result, state = stabiliser.update(value * 2, state)
    assert not result.requires_grad
    assert not any(tensor.requires_grad for tensor in states.flatten(state).values())


@every
def test_a_missing_task_keeps_its_part_of_the_state(stabiliser: Stabiliser) -> None:
    state = stabiliser.init(K)
    for step, value in enumerate(values(30)):
        _, new = stabiliser.update(with_missing(value, step > 10), state)
        if step > 10:
            before = states.flatten(state)
            for name, tensor in states.flatten(new).items():
                later = name[:1].isdigit() and int(name[0]) > 0  # a link before it fills the gap
                if tensor.shape == (K,) and not name.endswith("saturated") and not later:
                    assert identical(tensor[1], before[name][1]), name
        state = new


@every
def test_what_comes_out_for_a_missing_task_is_what_came_out_for_it_before(
    stabiliser: Stabiliser,
) -> None:
    """A memory gives back what it holds, and what has none gives NaN; nothing is made up."""
    state = stabiliser.init(K)
    result = torch.full((K,), torch.nan)
    for value in values(50):
        result, state = stabiliser.update(value.clamp(min=1e-3), state)
    missing, _ = stabiliser.update(with_missing(values(1)[0].clamp(min=1e-3)), state)
    remembers = any(
        tensor.shape == (K,) and not name.endswith("saturated")
        for name, tensor in states.flatten(state).items()
    )
    if remembers and not any(isinstance(part, Floor) for part in parts(stabiliser)):
        assert float(missing[1]) == pytest.approx(float(result[1]), rel=1e-12)
    elif not remembers:
        assert missing[1].isnan()
    else:  # the floor keeps the sum at 1, so the others move what is left for it
        assert 0 < float(missing[1]) < 1


def parts(stabiliser: Stabiliser) -> list[Stabiliser]:
    """The links of a chain, or the stabiliser itself."""
    if isinstance(stabiliser, Chain):
        return [part for link in stabiliser.stabilisers for part in parts(link)]
    return [stabiliser]


@every
def test_dropping_a_step_is_keeping_the_old_state(stabiliser: Stabiliser) -> None:
    state = skipped = stabiliser.init(K)
    bad = torch.tensor([torch.nan, torch.inf, 1.0])
    for value in values(20):
        _, spoilt = stabiliser.update(bad, skipped)
        skipped = states.select(torch.tensor(False), spoilt, skipped)
        result, state = stabiliser.update(value, state)
        again, skipped = stabiliser.update(value, skipped)
        assert identical(result, again)


@every
def test_permuting_tasks_permutes_the_result(stabiliser: Stabiliser) -> None:
    order = torch.tensor([2, 0, 1])
    state = permuted = stabiliser.init(K)
    for value in values(50):
        result, state = stabiliser.update(value, state)
        again, permuted = stabiliser.update(value[order], permuted)
        torch.testing.assert_close(again, result[order], rtol=1e-13, atol=1e-15)


@every
def test_the_state_is_there_from_the_start_and_keeps_its_form(stabiliser: Stabiliser) -> None:
    def form(state: object) -> dict[str, tuple[torch.Size, torch.dtype]]:
        return {name: (t.shape, t.dtype) for name, t in states.flatten(state).items()}

    state = stabiliser.init(K)
    first = form(state)
    assert bool(states.all_finite(state))  # or the Balancer drops every step
    for step, value in enumerate(values(6)):
        _, state = stabiliser.update(with_missing(value, step % 2 == 0), state)
        assert form(state) == first
        assert bool(states.all_finite(state))


@every
def test_settings_are_frozen_comparable_and_hashable(stabiliser: Stabiliser) -> None:
    assert hash(stabiliser) == hash(dataclasses.replace(stabiliser))  # type: ignore[type-var]
    for setting in dataclasses.fields(stabiliser):  # type: ignore[arg-type]
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(stabiliser, setting.name, 1)


@every
def test_no_step_waits_for_the_device(stabiliser: Stabiliser) -> None:
    """Fake tensors hold no data: any use of a value on the host raises."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        state = stabiliser.init(K)
        for tensor in states.flatten(state).values():
            assert tensor.fake_mode is mode  # type: ignore[attr-defined]
        result, state = stabiliser.update(torch.rand(K), state)
        result, state = stabiliser.update(torch.rand(K), state)
        states.all_finite(state)
        states.select(torch.ones((), dtype=torch.bool), state, state)
    assert result.shape == (K,)


@pytest.mark.parametrize(
    "stabiliser", [EMA(), LogEMA(), Belief(), Floor(), Clip(0.1), Freeze(3)], ids=repr
)
def test_a_value_of_another_number_of_tasks_is_an_error(stabiliser: Stabiliser) -> None:
    for wrong in (torch.ones(1), torch.ones(2, 3)):
        with pytest.raises(ValueError, match=r"shape \(3,\) of the state, found \("):
            stabiliser.update(wrong, stabiliser.init(3))
    with pytest.raises(ValueError, match="n_tasks must be an int of at least 1, found 0"):
        stabiliser.init(0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EMA(-0.1), r"decay must lie in \[0, 1\), found -0.1: "),
        (lambda: Belief(0.0), r"rate must be above 0 and at most 0.3, found 0.0"),
        (lambda: Belief(0.31), r"rate must be above 0 and at most 0.3, found 0.31"),
        (lambda: Belief(jump=0.0), r"jump must be positive, found 0.0"),
        (lambda: EMA(1.0), r"decay must lie in \[0, 1\), found 1.0: "),
        (lambda: LogEMA(float("nan")), r"decay must lie in \[0, 1\), found nan: "),
        (lambda: Floor(-0.01), r"floor must lie in \[0, 1\), found -0.01: "),
        (lambda: Floor(1.0), r"floor must lie in \[0, 1\), found 1.0: "),
        (
            lambda: Floor(0.1, mode=ANYTHING["clip"]),
            r"mode must be 'renormalise' or 'project', found",
        ),
        (lambda: Floor(0.5, mode="project").init(2), r"floor must be below 1/K = 0.5 for 2 tasks"),
        (lambda: Warmup(-1), r"steps must be an int of at least 0, found -1: "),
        (lambda: Warmup(ANYTHING[1.5]), r"steps must be an int of at least 0, found 1.5: "),
        (lambda: Freeze(0), r"after must be an int of at least 1, found 0: "),
        (lambda: Clip(2.0, 1.0), r"low must not be above high = 1.0, found 2.0: "),
        (lambda: Clip(high=float("nan")), r"high must be a number, found nan: "),
        (
            lambda: Chain((EMA(), ANYTHING["floor"])),
            r"stabilisers must all be .* found 'floor' at position",
        ),
    ],
)
def test_bad_settings_are_errors(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
