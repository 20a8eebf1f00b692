"""The losses of one step, checked, and the vectors over all K tasks that belong to them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from typing import final

import torch
from torch import Tensor

from gaba.spelling import did_you_mean
from gaba.tensors import on_device, spread, spread_square, work_dtype


@final
@dataclass(frozen=True, eq=False)
class Batch:
    """The losses of the tasks that one step has, out of K.

    Attributes:
        tasks: the names of all K tasks.
        present: the positions of those that this step has, in order.
        given: their losses as the user gave them, with graph: scalars, or by halves (2,).
        values: (K,), all losses without graph in the working dtype, NaN where missing; on several
            ranks the means over the ranks.
        constant: the positions of those that were given, but have no graph.
        others: the values of what is no task, by name.
    """

    tasks: tuple[str, ...]
    present: tuple[int, ...]
    given: tuple[Tensor, ...]
    values: Tensor
    constant: tuple[int, ...] = ()
    others: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the losses, and so the state, live."""
        return self.given[0].device

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tasks present."""
        return tuple(self.tasks[k] for k in self.present)

    @cached_property
    def losses(self) -> tuple[Tensor, ...]:
        """The scalar losses of the tasks present, with graph."""
        with torch.enable_grad():
            return tuple(
                loss if not loss.ndim else loss.reshape(()) if loss.numel() == 1 else loss.mean()
                for loss in self.given
            )

    @cached_property
    def mask(self) -> Tensor:
        """(K,), bool: which tasks are present."""
        if len(self.present) == len(self.tasks):
            return torch.ones(len(self.tasks), dtype=torch.bool, device=self.device)
        return on_device([k in self.present for k in range(len(self.tasks))], self.device)

    def spread(self, values: Tensor, missing: float = torch.nan) -> Tensor:
        """Entries of the tasks present → (K,), with ``missing`` for the others."""
        return spread(values, self.present, len(self.tasks), missing)

    def spread_square(self, matrix: Tensor) -> Tensor:
        """A matrix over the tasks present → (K, K), with NaN for the others."""
        return spread_square(matrix, self.present, len(self.tasks))

    def take(self, vector: Tensor) -> Tensor:
        """(K,) → the entries of the tasks present."""
        if len(self.present) == len(self.tasks):
            return vector
        return vector[on_device(self.present, vector.device)]

    def scaled(self, scaler: torch.amp.GradScaler) -> Batch:
        """The same with every loss multiplied by the scale of ``scaler``; values stay."""
        with torch.enable_grad():
            return replace(self, given=tuple(scaler.scale(loss) for loss in self.given))


def check_losses(
    losses: Mapping[str, object],
    tasks: Sequence[str],
    *,
    loss_shape: tuple[int, ...] = (),
    need_graph: bool = True,
    met: Container[int] = (),
) -> Batch:
    """The losses of one step as a :class:`Batch`.

    A task that is absent, ``None``, or (where graphs are needed) a constant is missing in this
    step. An entry that is no task is left out if it needs no gradient, such as a metric.

    Args:
        losses: by name.
        tasks: all K names.
        loss_shape: of each loss: () for a scalar, (2,) for its means over two halves of the batch.
        need_graph: whether the losses must have a graph.
        met: the positions of the tasks that had one before. Of another, a constant that is not 0
            is taken for a mistake.

    Raises:
        TypeError: ``losses`` is no mapping, or a loss no tensor.
        ValueError: a name is unknown, a loss has another shape or no graph, or none is there.
    """
    if not isinstance(losses, Mapping):
        form = f"{{{tasks[0]!r}: ..., {tasks[1]!r}: ...}}"
        what = f"each loss under its name, {form}, not their sum"
        if not isinstance(losses, Tensor):
            what = form if losses is None else f"each loss under its name, {form}"
        raise TypeError(
            f"losses must be a mapping from task name to scalar tensor, found "
            f"{type(losses).__name__}: pass {what}"
        )
    for name, loss in losses.items():
        if name not in tasks and isinstance(loss, Tensor) and loss.requires_grad:
            raise ValueError(
                f"losses holds the unknown task {name!r}{did_you_mean(name, tasks)}: the tasks are "
                f"{', '.join(tasks)}; give it a role by fixed={{{name!r}: 1.0}} (added, not "
                f"balanced) or observed=[{name!r}] (recorded), or detach it"
            )
    found: dict[int, Tensor] = {}
    constant: list[int] = []
    for k, name in enumerate(tasks):
        loss = losses.get(name)
        if loss is not None:
            checked = _checked(name, loss, loss_shape)
            if checked.requires_grad or not need_graph:
                found[k] = checked
            else:
                _check_constant(name, checked, met=k in met)
                constant.append(k)
    if not found:
        without = " without a graph" if constant else ""
        raise ValueError(
            f"losses must hold at least one of the tasks {', '.join(tasks)}, found "
            f"{', '.join(map(str, losses)) or 'none'}{without}: pass the loss of a task under its "
            "name, as the model computes it (not detached, and not under no_grad)"
        )
    present, given = tuple(found), tuple(found.values())
    device = given[0].device
    dtype = work_dtype(device)
    if any(loss.ndim or loss.device != device or loss.dtype != given[0].dtype for loss in given):
        values = torch.stack([loss.detach().to(device, dtype).mean() for loss in given])
    else:
        values = torch.stack([loss.detach() for loss in given]).to(dtype)
    return Batch(tuple(tasks), present, given, spread(values, present, len(tasks)), tuple(constant))


def _checked(name: str, loss: object, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(loss, Tensor):
        remedy = "pass the tensor that the model computes"
        if isinstance(loss, Real):
            remedy = "pass the loss itself, not its value (no .item() or float())"
        elif isinstance(loss, Sequence):
            remedy = "pass one tensor, for instance the sum of its parts, or name each part"
        raise TypeError(
            f"losses[{name!r}] must be a scalar tensor, found {type(loss).__name__}: {remedy}"
        )
    if shape and loss.shape != shape:
        raise ValueError(
            f"losses[{name!r}] must have shape {shape}, its means over the two halves of the "
            f"batch, found shape {tuple(loss.shape)}: give torch.stack([half.mean() for half in "
            "errors.chunk(2)]), or use another measurement"
        )
    if not shape and loss.numel() != 1:
        raise ValueError(
            f"losses[{name!r}] must be a scalar, found shape {tuple(loss.shape)}: reduce it, for "
            "instance by .mean()"
        )
    if loss.is_complex():
        raise ValueError(
            f"losses[{name!r}] must be real, found {loss.dtype}: take .real, or .abs()"
        )
    return loss


def _check_constant(name: str, loss: Tensor, *, met: bool) -> None:
    """Refuse a loss without a graph that never had one and is not 0."""
    if not met and not bool((loss == 0).all()):
        off = "" if torch.is_grad_enabled() else " (gradients are off here)"
        raise ValueError(
            f"losses[{name!r}] has no graph: it was detached, computed under no_grad{off}, or "
            "depends on no trainable parameter; fix the loss, or name it in observed=[...] to "
            "record it"
        )


def checked_tasks(tasks: Sequence[str]) -> tuple[str, ...]:
    """``tasks``, at least two different names."""
    if isinstance(tasks, str | Mapping | Tensor) or not isinstance(tasks, Iterable):
        raise TypeError(
            f"tasks must be a sequence of names, found {_short(tasks)}: {_remedy_for_tasks(tasks)}"
        )
    if isinstance(tasks, set | frozenset):
        raise TypeError(
            f"tasks must be in an order, found a set, whose order differs from run to run: pass "
            f"{sorted(map(str, tasks))}"
        )
    names = tuple(tasks)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(
                f"tasks must be a sequence of names, found {_short(name)} among them: "
                f"{_remedy_for_tasks(tasks)}"
            )
    if len(names) < 2:
        raise ValueError(
            f"tasks must hold at least 2 different names, found {list(names)}: one loss needs no "
            "balancing"
        )
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ValueError(
            f"tasks must hold at least 2 different names, found {twice[0]!r} twice in "
            f"{list(names)}: give each loss a name of its own"
        )
    return names


def _remedy_for_tasks(found: object) -> str:
    if isinstance(found, Mapping):
        return f"pass its names, {[str(name) for name in found]}; a coefficient goes into the loss"
    if isinstance(found, torch.nn.Module):
        return "the names come first, gaba.Balancer(['a', 'b'], model.backbone)"
    return "pass ['a', 'b']"


def _short(found: object) -> str:
    """``found`` in a few words: a long representation gives way to the type."""
    text = repr(found)
    return text if len(text) <= 60 and "\n" not in text else f"a {type(found).__name__}"


def check_choice(name: str, found: object, choices: Iterable[str | None]) -> None:
    """Refuse a setting that is none of its choices, and suggest the nearest one."""
    known = tuple(choices)
    if found not in known:
        words = [choice for choice in known if isinstance(choice, str)]
        raise ValueError(
            f"{name} must be one of {', '.join(map(str, known))}, found {found!r}"
            f"{did_you_mean(found, words)}"
        )
