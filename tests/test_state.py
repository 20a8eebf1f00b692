"""States taken apart and put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from gaba import state as states


@dataclass(frozen=True, eq=False)
class Inner:
    value: Tensor
    saturated: Tensor


@dataclass(frozen=True, eq=False)
class Outer:
    mean: Tensor
    parts: tuple[Any, ...]
    inner: Inner


def outer(seed: int) -> Outer:
    generator = torch.Generator().manual_seed(seed)

    def inner() -> Inner:
        value = torch.randn(3, generator=generator, dtype=torch.float64)
        return Inner(value, torch.rand(3, generator=generator) < 0.3)

    mean = torch.randn((), generator=generator, dtype=torch.float64)
    return Outer(mean, (inner(), (), (torch.randint(9, (), generator=generator),)), inner())


def test_names_are_dotted_and_in_order() -> None:
    assert list(states.flatten(outer(0))) == [
        "mean",
        "parts.0.value",
        "parts.0.saturated",
        "parts.2.0",
        "inner.value",
        "inner.saturated",
    ]


def test_unflatten_undoes_flatten_and_ignores_the_template() -> None:
    state, template = outer(0), outer(1)
    again = states.unflatten(template, states.flatten(state))
    assert isinstance(again, Outer)
    assert isinstance(again.parts[0], Inner)
    assert again.parts[1] == ()
    before = states.flatten(state)
    assert {name: id(t) for name, t in states.flatten(again).items()} == {
        name: id(t) for name, t in before.items()
    }


def test_unflatten_takes_names_in_any_order() -> None:
    flat = dict(reversed(states.flatten(outer(0)).items()))
    again = states.flatten(states.unflatten(outer(1), flat))
    assert list(again) == list(reversed(flat))
    assert all(again[name] is tensor for name, tensor in flat.items())


def test_the_empty_state() -> None:
    assert states.flatten(()) == {}
    assert states.unflatten((), {}) == ()
    assert states.select(torch.tensor(True), (), ()) == ()


def test_a_name_too_few_or_too_many_is_an_error() -> None:
    flat = states.flatten(outer(0))
    with pytest.raises(ValueError, match=r"missing \['mean'\] and unknown \['median'\]"):
        states.unflatten(outer(0), {"median": flat.pop("mean"), **flat})


@pytest.mark.parametrize("state", [1.0, [torch.ones(2)], (torch.ones(2), None), Inner])
def test_other_things_are_no_states(state: object) -> None:
    with pytest.raises(TypeError, match="a state must be a tensor, a dataclass or a tuple"):
        states.flatten(state)


@pytest.mark.parametrize("keep", [True, False])
def test_select_takes_one_of_two_whole(keep: bool) -> None:
    new, old = outer(0), outer(1)
    chosen = states.flatten(states.select(torch.tensor(keep), new, old))
    for name, tensor in states.flatten(new if keep else old).items():
        assert chosen[name].dtype == tensor.dtype
        assert torch.equal(chosen[name], tensor)
        assert chosen[name].data_ptr() != tensor.data_ptr()


def test_select_keeps_nan_and_infinity_out() -> None:
    bad = torch.tensor([torch.nan, torch.inf])
    (kept,) = states.select(torch.tensor(False), (bad,), (torch.ones(2),))
    assert kept.tolist() == [1, 1]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_all_finite_looks_at_every_floating_tensor(bad: float) -> None:
    state = outer(0)
    assert bool(states.all_finite(state))
    for name, tensor in states.flatten(state).items():
        if tensor.is_floating_point():
            spoilt = {**states.flatten(state), name: torch.full_like(tensor, bad)}
            assert not bool(states.all_finite(states.unflatten(state, spoilt)))
    assert bool(states.all_finite(()))


def holding(parts: int) -> states.StateBuffers[Any]:
    return states.StateBuffers(tuple(torch.full((2,), float(k)) for k in range(parts)))


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("saved", "made"), [(1, 2), (2, 1)])
def test_a_state_of_another_structure_is_refused_whole(saved: int, made: int, strict: bool) -> None:
    """Half of one and half of another would be wrong without a word."""
    before = states.StateBuffers(tuple(torch.full((2,), -1.0) for _ in range(made)))
    with pytest.raises(RuntimeError, match="with the same method and settings") as caught:
        before.load_state_dict(holding(saved).state_dict(), strict=strict)
    word = "Missing" if made > saved else "Unexpected"
    assert (f'{word} key(s) in state_dict: "1"' in str(caught.value)) == strict
    assert [part.tolist() for part in before.get()] == [[-1.0, -1.0]] * made


def test_a_state_of_the_same_structure_is_loaded() -> None:
    state = states.StateBuffers((torch.zeros(2), torch.zeros(2)))
    assert state.get()[1].tolist() == [0, 0]
    state.load_state_dict(holding(2).state_dict())
    assert [part.tolist() for part in state.get()] == [[0, 0], [1, 1]]
