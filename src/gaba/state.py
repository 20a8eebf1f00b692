"""States as values, and as the buffers of a module.

A state is a tensor, a frozen dataclass of states, a tuple of states, or the empty tuple. The
functions here are pure: they never write into a tensor and never ask a device for a value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Generic, TypeVar, final

import torch
from torch import Tensor, nn

from gaba.tensors import work_dtype

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


def all_finite(state: object) -> Tensor:
    """Whether every floating-point tensor of ``state`` is finite: (), bool.

    >>> all_finite((torch.tensor(1.0), torch.tensor(float("inf"))))
    tensor(False)
    """
    found = [t.flatten() for _, t in _leaves(state, "") if t.is_floating_point()]
    return torch.cat(found).isfinite().all() if found else torch.ones((), dtype=torch.bool)


@cache
def _fields(kind: type) -> tuple[str, ...] | None:
    """The fields of a dataclass, ``None`` for another type."""
    if not dataclasses.is_dataclass(kind):
        return None
    return tuple(field.name for field in dataclasses.fields(kind))


def _parts(state: object) -> list[tuple[str, Any]]:
    names = _fields(type(state))
    if names is not None:
        return [(name, getattr(state, name)) for name in names]
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


def _changes(new: object, old: object, name: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of ``new`` by name, without the parts that are the very ones of ``old``."""
    if new is old:
        return
    if isinstance(new, Tensor):
        yield name, new
        return
    before = dict(_parts(old)) if type(old) is type(new) else {}
    for key, part in _parts(new):
        yield from _changes(part, before.get(key), f"{name}.{key}" if name else key)


def _rebuild(state: Any, name: str, leaf: Callable[[str, Tensor], Tensor]) -> Any:
    if isinstance(state, Tensor):
        return leaf(name, state)
    parts = {
        key: _rebuild(part, f"{name}.{key}" if name else key, leaf) for key, part in _parts(state)
    }
    return tuple(parts.values()) if isinstance(state, tuple) else type(state)(**parts)


@final
class StateBuffers(nn.Module, Generic[S]):
    """Holds one state; :meth:`get` and :meth:`set` take and give it whole.

    The buffers exist from construction on. They follow ``.to(device)``, but no change of dtype (an
    average in bfloat16 stands still). ``state_dict()`` hands out copies, never the buffers.
    """

    def __init__(self, state: S) -> None:
        super().__init__()
        self._template = state
        self._held: S | None = None
        for name, tensor in flatten(state).items():
            self.register_buffer(name.replace(".", "_"), tensor.clone())

    def get(self) -> S:
        """The state; its tensors are read only by convention: updates make new ones."""
        found = self._held
        if found is None:
            found = _rebuild(
                self._template, "", lambda name, _: self.get_buffer(name.replace(".", "_"))
            )
            self._held = found
        return found

    def set(self, state: S) -> None:
        """Replace the state."""
        for name, tensor in _changes(state, self._held, ""):
            assert not tensor.requires_grad
            self._buffers[name.replace(".", "_")] = tensor
        self._held = state

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load a state whole; one of another structure is refused and nothing of it is taken."""
        there = {key.removeprefix(prefix) for key in state_dict if key.startswith(prefix)}
        lacking, unknown = set(self._buffers) - there, there - set(self._buffers)
        if there and (lacking or unknown):
            missing_keys += [prefix + name for name in sorted(lacking)]
            unexpected_keys += [prefix + name for name in sorted(unknown)]
            error_msgs.append(
                "the state must be of a Balancer with the same method and settings, found one of "
                f"others at {prefix!r}: make the Balancer as it was when it was saved, or leave "
                "its keys out to start from scratch"
            )
            return
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )
        self._held = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": None}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> StateBuffers[S]:
        for name, buffer in self._buffers.items():
            if buffer is None:
                continue
            moved = fn(buffer)
            if moved is buffer:
                continue
            if moved.dtype != buffer.dtype:
                wide = work_dtype(moved.device) if buffer.is_floating_point() else buffer.dtype
                moved = buffer.to(moved.device, wide)
            self._buffers[name] = moved
            self._held = None
        return self

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        for name, buffer in self._buffers.items():
            if buffer is not None:
                destination[prefix + name] = torch.clone(buffer.detach())
