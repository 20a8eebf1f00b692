"""What holds for every stabiliser: pure, resumable, float64, detached, blind to missing tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gaba import _state
from gaba.stabilisers import (
    EMA,
    AnyStabiliser,
    Chain,
    Clip,
    Floor,
    Freeze,
    LogEMA,
    Warmup,
    by_name,
)

NAMES = ("ema", "log-ema", "floor", "warmup", "clip", "freeze")
EVERY: list[AnyStabiliser] = [
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


def identical(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


@every
def test_resumes_bit_for_bit(stabiliser: AnyStabiliser) -> None:
    state = stabiliser.init(K)
    for value in values(25):
        _, state = stabiliser.update(value, state)
    saved = {name: tensor.clone() for name, tensor in _state.flatten(state).items()}
    resumed = _state.unflatten(stabiliser.init(K), saved)
    for value in values(50)[25:]:
        expected, state = stabiliser.update(value, state)
        result, resumed = stabiliser.update(value, resumed)
        assert identical(result, expected)
    after = _state.flatten(state)
    assert list(_state.flatten(resumed)) == list(after)
    assert all(identical(tensor, after[name]) for name, tensor in _state.flatten(resumed).items())


@every
def test_neither_writes_into_what_it_is_given_nor_shares_it(stabiliser: AnyStabiliser) -> None:
    state = stabiliser.init(K)
    for step, value in enumerate(values(30)):
        present = torch.tensor([True, step % 3 != 0, True])
        given = [value, present, *_state.flatten(state).values()]
        copies = [tensor.clone() for tensor in given]
        result, new = stabiliser.update(value, state, present)
        made = [result, *_state.flatten(new).values()]
        assert all(map(identical, given, copies))
        places = {tensor.untyped_storage().data_ptr() for tensor in (value, present)}
        assert not places & {tensor.untyped_storage().data_ptr() for tensor in made}
        assert result.untyped_storage().data_ptr() not in {
            tensor.untyped_storage().data_ptr() for tensor in _state.flatten(state).values()
        }
        state = new


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_works_in_float64_whatever_comes_in(stabiliser: AnyStabiliser, dtype: torch.dtype) -> None:
    state = stabiliser.init(K)
    wide = stabiliser.init(K)
    for value in values(30).to(dtype):
        result, state = stabiliser.update(value, state)
        expected, wide = stabiliser.update(value.double(), wide)
        assert identical(result, expected)
        for name, tensor in _state.flatten(state).items():
            assert tensor.dtype in (torch.float64, torch.int64, torch.bool), name


@every
def test_keeps_no_graph(stabiliser: AnyStabiliser) -> None:
    state = stabiliser.init(K)
    value = values(1)[0].requires_grad_()
    result, state = stabiliser.update(value * 2, state)
    assert not result.requires_grad
    assert not any(tensor.requires_grad for tensor in _state.flatten(state).values())


@every
def test_what_a_missing_task_holds_is_ignored(stabiliser: AnyStabiliser) -> None:
    state = other = stabiliser.init(K)
    present = torch.tensor([True, False, True])
    for step, value in enumerate(values(40)):
        mask = present if step % 2 else None
        result, state = stabiliser.update(value, state, mask)
        odd = value.clone()
        if step % 2:
            odd[1] = (torch.nan, torch.inf, -1.0, 0.0)[step // 2 % 4]
        again, other = stabiliser.update(odd, other, mask)
        here = present if step % 2 else torch.ones(K, dtype=torch.bool)
        assert identical(result[here], again[here])
        flat = _state.flatten(other)
        assert all(identical(tensor, flat[name]) for name, tensor in _state.flatten(state).items())


@every
def test_a_missing_task_keeps_its_part_of_the_state(stabiliser: AnyStabiliser) -> None:
    state = stabiliser.init(K)
    present = torch.tensor([True, False, True])
    for step, value in enumerate(values(30)):
        _, new = stabiliser.update(value, state, present if step > 10 else None)
        if step > 10:
            before = _state.flatten(state)
            for name, tensor in _state.flatten(new).items():
                if tensor.shape == (K,) and not name.endswith("saturated"):
                    assert identical(tensor[1], before[name][1]), name
        state = new


@every
def test_no_task_missing_is_the_same_as_no_mask(stabiliser: AnyStabiliser) -> None:
    state = stabiliser.init(K)
    for value in values(30):
        masked, _ = stabiliser.update(value, state, torch.ones(K, dtype=torch.bool))
        plain, state = stabiliser.update(value, state)
        assert identical(masked, plain)


@every
def test_dropping_a_step_is_keeping_the_old_state(stabiliser: AnyStabiliser) -> None:
    state = skipped = stabiliser.init(K)
    bad = torch.tensor([torch.nan, torch.inf, 1.0])
    for value in values(20):
        _, spoilt = stabiliser.update(bad, skipped)
        skipped = _state.select(torch.tensor(False), spoilt, skipped)
        result, state = stabiliser.update(value, state)
        again, skipped = stabiliser.update(value, skipped)
        assert identical(result, again)


@every
def test_permuting_tasks_permutes_the_result(stabiliser: AnyStabiliser) -> None:
    order = torch.tensor([2, 0, 1])
    state = permuted = stabiliser.init(K)
    for value in values(50):
        result, state = stabiliser.update(value, state)
        again, permuted = stabiliser.update(value[order], permuted)
        torch.testing.assert_close(again, result[order], rtol=1e-13, atol=1e-15)


@every
def test_the_state_is_there_from_the_start_and_keeps_its_form(stabiliser: AnyStabiliser) -> None:
    def form(state: object) -> dict[str, tuple[torch.Size, torch.dtype]]:
        return {name: (t.shape, t.dtype) for name, t in _state.flatten(state).items()}

    state = stabiliser.init(K)
    first = form(state)
    for value in values(3):
        _, state = stabiliser.update(value, state)
        assert form(state) == first


@every
def test_settings_are_frozen_comparable_and_hashable(stabiliser: AnyStabiliser) -> None:
    assert hash(stabiliser) == hash(dataclasses.replace(stabiliser))  # type: ignore[type-var]
    for setting in dataclasses.fields(stabiliser):  # type: ignore[arg-type]
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(stabiliser, setting.name, 1)


@every
def test_no_step_waits_for_the_device(stabiliser: AnyStabiliser) -> None:
    """Fake tensors hold no data: any use of a value on the host raises."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        state = stabiliser.init(K)
        for tensor in _state.flatten(state).values():
            assert tensor.fake_mode is mode  # type: ignore[attr-defined]
        present = torch.ones(K, dtype=torch.bool)
        for mask in (None, present):
            result, state = stabiliser.update(torch.rand(K), state, mask)
        _state.saturated(state, K)
        _state.select(torch.ones((), dtype=torch.bool), state, state)
    assert result.shape == (K,)


@every
def test_wrong_shapes_are_errors(stabiliser: AnyStabiliser) -> None:
    state = stabiliser.init(K)
    with pytest.raises(ValueError, match=r"value must have the shape \(.*\) .* found \(2, 3\)"):
        stabiliser.update(torch.ones(2, 3), state)
    with pytest.raises(ValueError, match=r"present must be a boolean mask of shape \(3,\)"):
        stabiliser.update(torch.ones(3), state, torch.ones(3))
    with pytest.raises(ValueError, match=r"n_tasks must be an int of at least 1, found 0"):
        stabiliser.init(0)


@pytest.mark.parametrize("stabiliser", [EMA(), LogEMA(), Floor(), Clip(0.1), Freeze(3)], ids=repr)
def test_a_value_of_another_number_of_tasks_is_an_error(stabiliser: AnyStabiliser) -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\) of the state, found \(1,\)"):
        stabiliser.update(torch.ones(1), stabiliser.init(3))


@pytest.mark.parametrize("name", NAMES)
def test_by_name(name: str) -> None:
    stabiliser = by_name(name)
    assert type(stabiliser).__name__.lower() == name.replace("-", "")
    stabiliser.update(torch.tensor([0.5, 0.5]), stabiliser.init(2))


def test_an_unknown_name_lists_the_names() -> None:
    with pytest.raises(ValueError, match="found 'emma'") as error:
        by_name("emma")
    assert all(repr(name) in str(error.value) for name in NAMES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EMA(-0.1), r"decay must lie in \[0, 1\), found -0.1: "),
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
