"""Per-task gradients averaged over the ranks, a part of each of them on every rank."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import final

import torch
from torch import Tensor

from gaba.autograd.passes import Gradients
from gaba.measurement.directions import direction, rotations
from gaba.ranks.processes import Ranks
from gaba.tensors import dense, flat, length

_APART = 0x5EED  # so that runs of earlier versions continue with the same signs


class Averages(ABC):
    """Takes rows of gradients one after the other, and gives this rank's part of their averages.

    The squared norm of an average, and the inner product of two, is the sum over the ranks of that
    of the parts. So every number comes out of one sum over the ranks, the same to the bit on each.
    """

    @abstractmethod
    def add(self, row: Gradients) -> None:
        """Begin to average the next row; one gradient for each θ, ``None`` for 0."""

    @abstractmethod
    def parts(self) -> list[list[Tensor]]:
        """One row of tensors for each row added; waits for what is still under way."""


def averages(ranks: Ranks, theta: Sequence[Tensor], step: int) -> Averages:
    """Averages of gradients with respect to ``theta``, in the way that ``ranks.sync`` says."""
    if ranks.sync.how == "sketch":
        return _Sketched(ranks, theta, step)
    return _Exact(ranks, theta)


@final
class _Exact(Averages):
    """Buckets of whole gradients; those of one row travel while the next row is computed."""

    def __init__(self, ranks: Ranks, theta: Sequence[Tensor]) -> None:
        self._ranks = ranks
        self._theta = theta
        self._under_way: list[Callable[[], Tensor]] = []
        self._parts: list[list[Tensor]] = []

    def add(self, row: Gradients) -> None:
        self._settle()
        buckets = _buckets(row, self._theta, self._ranks.sync.bucket)
        self._under_way = [self._ranks.start(bucket) for bucket in buckets]

    def parts(self) -> list[list[Tensor]]:
        self._settle()
        return self._parts

    def _settle(self) -> None:
        if self._under_way:
            ours = [_own_slice(finish(), self._ranks).clone() for finish in self._under_way]
            self._parts.append([part.div_(self._ranks.size) for part in ours])
            self._under_way = []


@final
class _Sketched(Averages):
    """m numbers a row: signs, then sums over m buckets, the same on every rank.

    The gradient is cut into blocks of m; each is turned round by an offset of its own, and all are
    added up. Two entries meet with probability 1/m at most, so E‖u‖² = ‖g‖² and
    Var‖u‖² ≤ (2/m)‖g‖⁴.
    """

    def __init__(self, ranks: Ranks, theta: Sequence[Tensor], step: int) -> None:
        self._ranks = ranks
        self._theta = theta
        self._seed = ranks.sync.seed + _APART
        self._count = torch.tensor(step, device=theta[0].device)
        self._signs = direction(theta, self._seed, self._count)
        self._rows: list[Tensor] = []

    def add(self, row: Gradients) -> None:
        m = self._ranks.sync.width
        total = torch.zeros(m, dtype=torch.float64, device=self._count.device)
        pairs = zip(row, self._signs, strict=True)
        signed = [None if g is None else dense(g) * dense(v) for g, v in pairs]
        for number, bucket in enumerate(_buckets(signed, self._theta, self._ranks.sync.bucket)):
            blocks = torch.nn.functional.pad(bucket, (0, -len(bucket) % m)).view(-1, m)
            turn = rotations(len(blocks), m, self._seed + number, self._count)
            places = (torch.arange(m, device=bucket.device) + turn[:, None]) % m
            total += blocks.gather(1, places).sum(0)
        self._rows.append(total)

    def parts(self) -> list[list[Tensor]]:
        means = self._ranks.mean(torch.stack(self._rows))
        return [[_own_slice(row, self._ranks)] for row in means]


def _own_slice(row: Tensor, ranks: Ranks) -> Tensor:
    """One R-th of ``row``, another one for each rank."""
    n = len(row)
    return row[ranks.rank * n // ranks.size : (ranks.rank + 1) * n // ranks.size]


def _buckets(row: Gradients, theta: Sequence[Tensor], size: int) -> Iterator[Tensor]:
    """The gradients one after the other in flat tensors of about ``size`` bytes, 0 for ``None``."""
    kinds = {t.dtype.to_real() for t in (*theta, *row) if t is not None}
    dtype = max(torch.float32, *kinds, key=lambda kind: kind.itemsize)
    waiting: list[Tensor] = []
    for gradient, p in zip(row, theta, strict=True):
        if gradient is None:
            waiting.append(torch.zeros(length(p), dtype=dtype, device=p.device))
        else:
            waiting.append(flat(gradient, dtype))
        if sum(part.nbytes for part in waiting) >= size:
            yield torch.cat(waiting)
            waiting = []
    if waiting:
        yield torch.cat(waiting)
