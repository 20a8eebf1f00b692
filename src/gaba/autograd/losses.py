"""The losses of one step, checked, and the vectors over all tasks that belong to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from gaba.arrays import on_device, work_dtype


@final
@dataclass(frozen=True)
class Batch:
    """The tasks that one step has, out of K.

    Attributes:
        names: those present, in the order of the Balancer's tasks.
        indices: their positions among the K tasks.
        losses: their scalar losses, with graph.
        n_tasks: K.
        halves: (2,) for each, what ``losses`` are the means of, if the losses came by halves.
        everywhere: (K,), the means of the losses over all ranks, where there are several.
    """

    names: tuple[str, ...]
    indices: tuple[int, ...]
    losses: tuple[Tensor, ...]
    n_tasks: int
    halves: tuple[Tensor, ...] | None = None
    everywhere: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where the losses, and so the state, live."""
        return self.losses[0].device

    @cached_property
    def values(self) -> tuple[Tensor, ...]:
        """The losses without graph, in the working dtype; over all ranks, their means."""
        if self.everywhere is not None:
            return tuple(self.everywhere[k] for k in self.indices)
        dtype = work_dtype(self.device)
        return tuple(loss.detach().to(self.device, dtype) for loss in self.losses)

    @cached_property
    def present(self) -> Tensor | None:
        """(K,), bool, or ``None`` if no task is missing."""
        return None if len(self.indices) == self.n_tasks else self.mask

    @cached_property
    def mask(self) -> Tensor:
        """(K,), bool: which tasks are present."""
        flags = [k in self.indices for k in range(self.n_tasks)]
        return on_device(flags, self.device)

    @cached_property
    def _where(self) -> Tensor:
        return on_device(self.indices, self.device)

    def take(self, vector: Tensor) -> Tensor:
        """(K,) → the entries of the tasks present."""
        return vector if self.present is None else vector[self._where]

    def spread(self, vector: Tensor, missing: float = torch.nan) -> Tensor:
        """Entries of the tasks present → (K,), with ``missing`` for the others."""
        if self.present is None:
            return vector
        full = torch.full((self.n_tasks,), missing, dtype=vector.dtype, device=vector.device)
        return full.index_copy(0, self._where, vector)

    def spread_square(self, matrix: Tensor) -> Tensor:
        """A matrix over the tasks present → (K, K), with NaN for the others."""
        if self.present is None:
            return matrix
        full = matrix.new_full((self.n_tasks, self.n_tasks), torch.nan)
        full[self._where[:, None], self._where] = matrix
        return full

    def on_simplex(self, weights: Tensor) -> Tensor:
        """(K,), with 0 for missing tasks and the others brought to Σλ = 1."""
        if self.present is None:
            return weights / weights.sum()
        here = torch.where(self.mask, weights, torch.zeros_like(weights))
        return here / here.sum()

    def fill(self, weights: Tensor, last: Tensor) -> Tensor:
        """(K,) on the simplex: missing tasks keep their ``last`` weight, the others share the rest.

        If nothing is left to share, those present and those missing get one half each.
        """
        if self.present is None:
            return weights
        rest = 1.0 - torch.where(self.mask, torch.zeros_like(last), last).sum()
        share = torch.where(rest > 0, rest, torch.ones_like(rest))
        filled = torch.where(self.mask, self.spread(weights * share, 0.0), last)
        return torch.where(rest > 0, filled, filled / filled.sum())

    def position(self, task: int | None) -> int | None:
        """Where task number ``task`` stands among those present, if it does."""
        return self.indices.index(task) if task in self.indices else None


def check_losses(
    losses: Mapping[str, Tensor | None],
    tasks: Sequence[str],
    need_graph: bool = True,
    halves: bool = False,
) -> Batch:
    """The losses of one step as a :class:`Batch`; with ``halves`` each comes by halves, as (2,).

    Raises:
        TypeError: ``losses`` is no mapping, or a loss no tensor.
        ValueError: a name is unknown, a loss is no scalar or has no graph, or none is there.
    """
    if not isinstance(losses, Mapping):
        raise TypeError(
            f"losses must be a mapping from task name to scalar tensor, found "
            f"{type(losses).__name__}: pass {{{tasks[0]!r}: ..., {tasks[1]!r}: ...}}"
        )
    for name, loss in losses.items():
        if name not in tasks:
            raise ValueError(f"losses holds the unknown task {name!r}: the tasks are {tasks}")
        if loss is not None:
            _check_loss(name, loss, need_graph, halves)
    present = [k for k, name in enumerate(tasks) if losses.get(name) is not None]
    if not present:
        raise ValueError(f"losses must hold at least one of the tasks {tasks}, found none")
    names = tuple(tasks[k] for k in present)
    given = (losses[name] for name in names)
    found = tuple(loss for loss in given if loss is not None)
    if halves:
        with torch.enable_grad():
            means = tuple(loss.mean() for loss in found)
        return Batch(names, tuple(present), means, len(tasks), found)
    return Batch(names, tuple(present), tuple(loss.reshape(()) for loss in found), len(tasks))


def _check_loss(name: str, loss: object, need_graph: bool, halves: bool) -> None:
    if not isinstance(loss, Tensor):
        raise TypeError(
            f"losses[{name!r}] must be a scalar tensor, found {type(loss).__name__}: pass the loss "
            "itself, not its value"
        )
    if halves and loss.shape != (2,):
        raise ValueError(
            f"losses[{name!r}] must have shape (2,), its means over the two halves of the batch, "
            f"found shape {tuple(loss.shape)}: give torch.stack([half.mean() for half in "
            "errors.chunk(2)]), or use another measurement"
        )
    if not halves and loss.numel() != 1:
        raise ValueError(
            f"losses[{name!r}] must be a scalar, found shape {tuple(loss.shape)}: reduce it, for "
            "instance by .mean()"
        )
    if need_graph and not loss.requires_grad:
        raise ValueError(
            f"losses[{name!r}] has no graph: it was detached, computed under no_grad, or depends "
            "on no trainable parameter; leave the task out of this step or mend the loss"
        )


def checked_tasks(tasks: Sequence[str]) -> tuple[str, ...]:
    """``tasks``, at least two different names."""
    if isinstance(tasks, str) or any(not isinstance(t, str) for t in tasks):
        raise TypeError(f"tasks must be a sequence of names, found {tasks!r}: pass ['a', 'b']")
    if len(tasks) < 2 or len(set(tasks)) < len(tasks):
        raise ValueError(
            f"tasks must hold at least 2 different names, found {list(tasks)}: one loss needs no "
            "balancing"
        )
    return tuple(tasks)


def check_choice(name: str, found: object, choices: Sequence[str]) -> None:
    """Refuse a setting that is none of its choices."""
    if found not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, found {found!r}")
