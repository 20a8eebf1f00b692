"""Streams of losses and norms, and how a rule with a memory is led along them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from gaba import state as states
from gaba.rules import Rule, Seen

Stream = list[Seen]


def both(losses: Any, norms: Any = None) -> Seen:
    """Losses and norms (K,) in float64; of norms that are not given nothing is known."""
    values = torch.as_tensor(losses, dtype=torch.float64)
    if norms is None:
        return Seen(values, torch.full_like(values, torch.nan))
    return Seen(values, torch.as_tensor(norms, dtype=torch.float64))


def stream(n_tasks: int, steps: int = 12, seed: int = 0, spread: float = 1.0) -> Stream:
    """Losses and norms (K,) that wander about a scale of their own, all of them positive."""
    generator = torch.Generator().manual_seed(seed)

    def walk() -> Tensor:
        start = 3 * spread * torch.randn(n_tasks, generator=generator, dtype=torch.float64)
        moves = 0.3 * torch.randn(steps, n_tasks, generator=generator, dtype=torch.float64)
        return (start + moves.cumsum(0)).exp()

    return [Seen(*row) for row in zip(walk(), walk(), strict=True)]


def streams() -> dict[str, Stream]:
    """By name: few and many tasks, all alike, far apart, tiny and huge."""
    small = stream(3, seed=1)
    found = {f"{k} tasks": stream(k, seed=k) for k in (1, 2, 3, 10, 40)}
    found["alike"] = [both([1.0] * 4, [1.0] * 4)] * 8
    found["far apart"] = stream(4, spread=4.0)
    for name, factor in (("tiny", 1e-18), ("huge", 1e18)):
        found[name] = [Seen(seen.losses * factor, seen.norms * factor) for seen in small]
    return found


def taken(seen: Seen, order: Sequence[int]) -> Seen:
    """Some of the tasks, in this order."""
    index = list(order)
    return Seen(seen.losses[index], seen.norms[index])


def without(seen: Seen, present: Tensor, *, believed: bool = False) -> Seen:
    """NaN for the tasks that are missing; their norms are still ``believed``, or NaN as well."""
    losses = torch.where(present, seen.losses, torch.nan)
    return Seen(losses, seen.norms if believed else torch.where(present, seen.norms, torch.nan))


def led(
    rule: Rule,
    along: Sequence[Seen],
    present: Sequence[Tensor] | None = None,
    state: Any = None,
) -> tuple[Tensor, Any]:
    """What ``update`` gives along a stream (steps, K), and the last state."""
    state = rule.init(len(along[0].losses)) if state is None else state
    rows = []
    for step, seen in enumerate(along):
        told = seen if present is None else without(seen, present[step])
        raw, state = rule.update(told, state)
        rows.append(raw)
    return torch.stack(rows), state


def parts(state: Any, n_tasks: int) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a state that have an entry for each task."""
    for name, tensor in states.flatten(state).items():
        if tensor.shape[:1] == (n_tasks,):
            yield name, tensor


def assert_same_state(a: Any, b: Any) -> None:
    """Two states are the same, to the last bit."""
    one, two = states.flatten(a), states.flatten(b)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert tensor.dtype == two[name].dtype
        assert torch.equal(tensor, two[name]), name
