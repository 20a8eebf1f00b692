"""The ranks of a run, seen from one of them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
import torch.distributed as dist
from torch import Tensor

from gaba.ranks.sync import Sync

_HASH = 2**20  # squares of up to 8,192 numbers below it add up in float64 without rounding


@final
@dataclass(frozen=True)
class Roll:
    """What all ranks know of a step once each has said which tasks it has.

    Attributes:
        tasks: the positions of the tasks that at least one rank has.
        complete: whether every rank has every task.
        uneven: whether some rank lacks a task that another has.
        losses: (K,), L̄_k, the mean over the ranks, in which a loss that a rank lacks is 0; NaN for
            a task that no rank has.
    """

    tasks: tuple[int, ...]
    complete: bool
    uneven: bool
    losses: Tensor


@final
@dataclass(frozen=True)
class Ranks:
    """The ranks that decide together. On one rank every method gives back what it is given.

    Attributes:
        size: R.
        rank: the number of this one, from 0.
        sync: how they come to one decision.

    Example:
        >>> import torch
        >>> from gaba.ranks.processes import Ranks
        >>> Ranks().mean(torch.tensor([1.0, 2.0]))
        tensor([1., 2.])
    """

    size: int = 1
    rank: int = 0
    sync: Sync = field(default_factory=Sync)

    @staticmethod
    def now(sync: Sync | None) -> Ranks:
        """Those of the process group, if there is one and ``sync`` is not ``None``."""
        if sync is None or not running():
            return _ALONE
        size = dist.get_world_size(sync.group)
        if size < 1:
            raise ValueError("group must hold this rank, found that it does not: pass its own")
        return Ranks(size, dist.get_rank(sync.group), sync)

    @property
    def several(self) -> bool:
        """Whether there is anyone to talk to."""
        return self.size > 1

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, the same to the bit on each of them."""
        return self.start(tensor.clone())() if self.several else tensor

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over the ranks, the same to the bit on each of them."""
        return self.total(tensor) / self.size if self.several else tensor

    def all(self, flag: bool, device: torch.device) -> bool:
        """Whether ``flag`` holds on every rank. Waits for the device."""
        if not self.several:
            return flag
        against = torch.full((), 0.0 if flag else 1.0, device=device)
        return not bool(self.total(against))

    def start(self, tensor: Tensor) -> Any:
        """Begin to add ``tensor`` up over the ranks, in place; call what comes back to have it."""
        work = dist.all_reduce(tensor, group=self.sync.group, async_op=True)

        def finish() -> Tensor:
            if work is not None:
                work.wait()
            return tensor

        return finish

    def call_roll(
        self,
        present: Sequence[int],
        losses: Tensor,
        multipliers: Tensor,
        marks: Sequence[object],
    ) -> Roll:
        """Exchange which tasks are present, and see that all ranks are in the same state.

        Args:
            present: the positions of the tasks that this rank has.
            losses: (K,), without graph; those of other tasks do not matter.
            multipliers: (K,), as they are, which must be the same everywhere.
            marks: what else must be: step, tasks, size of the shared part.

        Raises:
            ValueError: a rank refuses its losses, or is in another state.
        """
        wide = losses.double()
        k = len(losses)
        here = torch.tensor([i in present for i in range(k)], dtype=torch.float64).to(wide.device)
        values = torch.where(here > 0, wide, 0.0)
        mark = _hash(multipliers.double(), marks)
        said = torch.stack([mark, mark * mark, torch.zeros_like(mark)])
        said = torch.cat([here, values, said])
        heard = self.total(said)
        *numbers, refusals = heard.tolist()
        if refusals:
            raise ValueError(
                f"losses must be sound on every rank, found {refusals:.0f} that refuses them: see "
                "its own message; no rank has changed anything"
            )
        if self.size * int(numbers[-1]) != int(numbers[-2]) ** 2:
            raise ValueError(
                "multipliers, step, tasks and size of the shared part must be the same on all "
                "ranks, found that they differ: load the same state on each of them, and make the "
                "Balancer with the same settings (or with sync=False, for each rank by itself)"
            )
        counts = [round(n) for n in numbers[:k]]
        means = torch.where(heard[:k] > 0, heard[k : 2 * k] / self.size, torch.nan)
        return Roll(
            tasks=tuple(i for i, n in enumerate(counts) if n),
            complete=all(n == self.size for n in counts),
            uneven=any(0 < n < self.size for n in counts),
            losses=means.to(losses.dtype),
        )

    def refuse(self, n_tasks: int, device: torch.device) -> None:
        """Let the others know, in place of :meth:`call_roll`, that this rank has to stop."""
        if self.several:
            if dist.get_backend(self.sync.group) == "nccl":
                device = torch.device("cuda", torch.cuda.current_device())
            said = torch.zeros(2 * n_tasks + 3, dtype=torch.float64, device=device)
            said[-1] = 1
            self.total(said)


_ALONE = Ranks()


def running() -> bool:
    """Whether there is a process group, of one rank or of several."""
    return dist.is_available() and dist.is_initialized()


def _hash(values: Tensor, marks: Sequence[object]) -> Tensor:
    """A number below 2²⁰ that is another one, most likely, where a bit of the arguments is."""
    bits = values.view(torch.int64)
    odd = torch.arange(len(values), device=values.device) * 0x9E3779B97F4A7C14 % 2**62 * 2 + 1
    folded = (bits ^ (bits >> 29)) * odd + _checksum(tuple(marks))
    whole = folded.sum() * 0x5851F42D4C957F2D
    return ((whole >> 40) & (_HASH - 1)).double()


def _checksum(marks: tuple[object, ...]) -> int:
    return zlib.crc32(repr(marks).encode())
