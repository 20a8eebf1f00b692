"""What all ranks agree on before a step: which tasks there are, and that it can be done at all."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor

from gaba.autograd.graph import LossGraph
from gaba.autograd.losses import Batch, check_losses
from gaba.autograd.sharding import sharded
from gaba.autograd.shared import Shared, SharedAuto
from gaba.ranks.processes import Ranks, Roll
from gaba.ranks.sync import Sync
from gaba.ranks.wrappers import Wrappers


@final
class Agreement:
    """Brings the losses of this rank and those of the others to one step.

    Args:
        sync: how, or ``None`` for each rank by itself.
        tasks: the K names.
        shared: which parameters are shared.
        loss_shape: of each loss, as the measurement wants it.
    """

    def __init__(
        self,
        sync: Sync | None,
        tasks: Sequence[str],
        shared: Shared,
        loss_shape: tuple[int, ...] = (),
    ) -> None:
        self._sync = sync
        self._tasks = tuple(tasks)
        self._shared = shared
        self._loss_shape = loss_shape
        self._wrappers = Wrappers()

    @property
    def ranks(self) -> Ranks:
        """The ranks that there are now."""
        return Ranks.now(self._sync)

    def batch(
        self,
        losses: Mapping[str, object],
        multipliers: Tensor,
        marks: Sequence[object],
        met: Container[int] = (),
    ) -> tuple[Batch, Roll | None]:
        """The losses, checked; on several ranks those of all tasks that one of them has.

        A loss that only other ranks have is 0 here, and reaches nothing. All values are the means
        over the ranks.

        Args:
            losses: by name, as the user gave them.
            multipliers: (K,), as they are.
            marks: what else must be the same on all ranks: the step, what was measured when.
            met: the positions of the tasks that had a graph before.

        Raises:
            ValueError, TypeError: the losses are not sound; on several ranks, all of them raise.
        """
        ranks = self.ranks
        try:
            batch = check_losses(losses, self._tasks, loss_shape=self._loss_shape, met=met)
        except (TypeError, ValueError):
            ranks.refuse(len(self._tasks), multipliers.device)
            raise
        if not ranks.several:
            return batch, None
        size = sum(p.numel() for p in self._shared.parameters())
        roll = ranks.call_roll(
            batch.present, batch.values, multipliers.to(batch.device), (*marks, self._tasks, size)
        )
        own = dict(zip(batch.present, batch.given, strict=True))
        shape, device = self._loss_shape, batch.device
        given = tuple(
            own[k] if k in own else torch.zeros(shape, device=device, requires_grad=True)
            for k in roll.tasks
        )
        return replace(batch, present=roll.tasks, given=given, values=roll.losses), roll

    def check(self, graph: LossGraph, roll: Roll | None) -> None:
        """Refuse a step with a missing task whose gradients could not be reduced.

        Raises:
            ValueError: on all ranks.
        """
        if roll is None or roll.complete:
            return
        complaint = self._complaint(graph, roll)
        if not self.ranks.all(complaint is None, graph.device):
            raise ValueError(
                complaint
                or "losses must be such as every rank can reduce, found that another "
                "rank cannot: see its own message"
            )

    @property
    def held_back(self) -> bool:
        """Whether the coming backward pass leaves gradients as this rank has them (``no_sync``)."""
        return self.ranks.several and self._wrappers.held_back()

    def _complaint(self, graph: LossGraph, roll: Roll) -> str | None:
        if roll.uneven and isinstance(self._shared, SharedAuto) and not self._shared.parameters():
            return (
                "shared='auto' must see every task on every rank in its first step, found one "
                "that some ranks lack: pass shared=model.backbone"
            )
        if roll.uneven and sharded(self._shared.parameters()):
            return (
                "losses must be of the same tasks on every rank where FSDP has sharded the "
                "parameters, found one that some ranks lack: give those the loss "
                "0 * output.sum(), or wrap the model in DistributedDataParallel with "
                "find_unused_parameters=True"
            )
        return self._wrappers.complaint(graph.leaves)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_wrappers": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _wrappers=Wrappers())
