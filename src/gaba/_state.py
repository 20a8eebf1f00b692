"""States as values: what a stabiliser or measurement remembers, taken apart and put together.

A state is a frozen dataclass of tensors, of further states, or of both; a tuple of states; or the
empty tuple. The helpers here are pure: they never write into a tensor, and they never ask a device
for a value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

S = TypeVar("S")


def flatten(state: object) -> dict[str, Tensor]:
    """The tensors of ``state`` by dotted name, such as ``"mean"`` or ``"0.value"``, in order.

    Args:
        state: A state as described at the top of this module.

    Returns:
        The very tensors of the state, not copies.

    Raises:
        TypeError: If a part is neither a tensor, nor a dataclass, nor a tuple.

    >>> flatten((torch.tensor(1.0), (torch.tensor(2.0), ())))
    {'0': tensor(1.), '1.0': tensor(2.)}
    """
    return dict(_leaves(state, ""))


def unflatten(template: S, flat: Mapping[str, Tensor]) -> S:
    """A state of the structure of ``template`` that holds the tensors ``flat``.

    Args:
        template: Any state of the wanted structure; its tensors are not used.
        flat: Tensors by dotted name, as ``flatten`` gives them.

    Returns:
        A new state; ``unflatten(s, flatten(s))`` equals ``s``.

    Raises:
        ValueError: If a name of the template is missing in ``flat``, or the other way round.

    >>> unflatten((torch.tensor(1.0), ()), {"0": torch.tensor(3.0)})
    (tensor(3.), ())
    """
    names = [name for name, _ in _leaves(template, "")]
    missing = sorted(set(names) - set(flat))
    unknown = sorted(set(flat) - set(names))
    if missing or unknown:
        raise ValueError(
            f"flat must hold exactly the tensors of the template, found missing {missing} and "
            f"unknown {unknown}: flatten a state of the same settings"
        )
    return _rebuild(template, "", lambda name, _: flat[name])


def select(keep_new: Tensor, new: S, old: S) -> S:
    """``new`` where ``keep_new`` is true and ``old`` where it is not, without asking which.

    Args:
        keep_new: A boolean tensor of shape (), on the device of the states.
        new: The state to take if ``keep_new``.
        old: A state of the same structure, to take if not.

    Returns:
        A new state of the same structure; no tensor of it aliases an argument's.

    >>> select(torch.tensor(False), (torch.tensor(1.0),), (torch.tensor(2.0),))
    (tensor(2.),)
    """
    before = flatten(old)
    return _rebuild(new, "", lambda name, tensor: torch.where(keep_new, tensor, before[name]))


def saturated(state: object, n_tasks: int, device: torch.device | str | None = None) -> Tensor:
    """Which of the K tasks sit on a bound: every field named ``saturated``, joined by *or*.

    Args:
        state: Any state; one without such a field saturates nothing.
        n_tasks: K.
        device: Where the answer is wanted, which is where the state is.

    Returns:
        A boolean tensor of shape (K,).

    >>> saturated((), 2)
    tensor([False, False])
    """
    result = torch.zeros(n_tasks, dtype=torch.bool, device=device)
    for name, tensor in _leaves(state, ""):
        if name.rpartition(".")[2] == "saturated":
            result = result | tensor
    return result


def _parts(state: object) -> list[tuple[str, Any]]:
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        return [(field.name, getattr(state, field.name)) for field in dataclasses.fields(state)]
    if isinstance(state, tuple):
        return [(str(index), part) for index, part in enumerate(state)]
    raise TypeError(
        f"a state must be a tensor, a dataclass or a tuple of them, found {type(state).__name__}: "
        "wrap the value in a tensor"
    )


def _leaves(state: object, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(state, Tensor):
        yield name, state
        return
    for key, part in _parts(state):
        yield from _leaves(part, f"{name}.{key}" if name else key)


def _rebuild(state: Any, name: str, leaf: Callable[[str, Tensor], Tensor]) -> Any:
    if isinstance(state, Tensor):
        return leaf(name, state)
    parts = {
        key: _rebuild(part, f"{name}.{key}" if name else key, leaf) for key, part in _parts(state)
    }
    return tuple(parts.values()) if isinstance(state, tuple) else type(state)(**parts)
