"""What TorchJD's weightings remember, as tensors that a Balancer keeps and saves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeAlias, final

import torch
from torch import Tensor

from gaba.extras import needs

with needs("the bridge to TorchJD needs", "bench", "torchjd"):
    from torchjd import Stateful, aggregation

Memory: TypeAlias = "tuple[Tensor, ...]"


class Keeper(ABC):
    """Knows how one class of TorchJD lays out its memory: writes it into a part and reads it back.

    The tensors of a memory are over all K tasks. ``here`` (k,) holds the positions of the tasks
    that a step has.
    """

    def __init__(self, part: Any) -> None:
        self.part = part

    @abstractmethod
    def blank(self, n_tasks: int) -> Memory:
        """The memory before the first step."""

    @abstractmethod
    def put(self, memory: Memory, here: Tensor, gramian: Tensor) -> None:
        """Bring the part, which is about to see ``gramian`` (k, k), to ``memory``."""

    @abstractmethod
    def take(self, memory: Memory, here: Tensor) -> Memory:
        """What the part remembers now; a missing task keeps what ``memory`` holds."""


@final
class _GradVac(Keeper):
    """The targets φ (K, K) of the cosines."""

    def blank(self, n_tasks: int) -> Memory:
        return (torch.zeros(n_tasks, n_tasks, dtype=torch.float64),)

    def put(self, memory: Memory, here: Tensor, gramian: Tensor) -> None:
        self.part._phi_t = memory[0][here[:, None], here].clone()
        self.part._state_key = (len(here), gramian.dtype)

    def take(self, memory: Memory, here: Tensor) -> Memory:
        return (memory[0].index_put((here[:, None], here), self.part._phi_t),)


@final
class _CRMOGM(Keeper):
    """The smoothed weights λ (K,), and which tasks have one (K,).

    A task that comes later than the others starts from their mean.
    """

    def blank(self, n_tasks: int) -> Memory:
        first = self.part._initial_weights
        if first is None:
            return torch.zeros(n_tasks, dtype=torch.float64), torch.zeros(n_tasks).bool()
        if first.shape != (n_tasks,):
            raise ValueError(
                f"initial_weights must have an entry for each of the {n_tasks} tasks, found shape "
                f"{tuple(first.shape)}"
            )
        return first.detach().to("cpu", torch.float64), torch.ones(n_tasks).bool()

    def put(self, memory: Memory, here: Tensor, gramian: Tensor) -> None:
        weights, known = memory[0][here], memory[1][here]
        self.part._lambda = None
        if bool(known.any()):
            self.part._lambda = torch.where(known, weights, weights[known].mean())

    def take(self, memory: Memory, here: Tensor) -> Memory:
        weights, known = memory
        return (
            weights.index_copy(0, here, self.part._lambda.to(weights)),
            known.index_fill(0, here, True),
        )


@final
class _PCD(Keeper):
    """The mean square norms (K,), debiased, and how many steps each is the mean of (K,)."""

    def blank(self, n_tasks: int) -> Memory:
        return torch.zeros(n_tasks, dtype=torch.float64), torch.zeros(n_tasks).long()

    def put(self, memory: Memory, here: Tensor, gramian: Tensor) -> None:
        if int(here[0]) != 0:
            raise ValueError(
                "PCD needs its primary objective, the first task, in every step, and found it "
                "missing: give its loss, or use another weighting"
            )
        if isinstance(self.part.tau, Tensor) and len(self.part.tau) == len(memory[0]) - 1:
            self.part.tau = self.part.tau[here[1:] - 1]  # an entry for each secondary objective
        means, counts = memory[0][here], memory[1][here]
        means = torch.where(counts > 0, means, gramian.diagonal())
        steps = int(counts.max())
        self.part._sq_norm_ema = means * (1 - self.part.beta**steps)
        self.part._n_steps = torch.tensor(steps)
        self.part._state_key = len(here)

    def take(self, memory: Memory, here: Tensor) -> Memory:
        means = self.part._sq_norm_ema / (1 - self.part.beta ** int(self.part._n_steps))
        return (
            memory[0].index_copy(0, here, means),
            memory[1].index_add(0, here, torch.ones_like(here)),
        )


@final
class _NashMTL(Keeper):
    """The last α (K,), from which the next search starts, and the number of steps ()."""

    def blank(self, n_tasks: int) -> Memory:
        if self.part.n_tasks != n_tasks:
            raise ValueError(
                f"n_tasks must be the number of tasks, {n_tasks}, found {self.part.n_tasks}: use "
                f"NashMTL(n_tasks={n_tasks})"
            )
        return torch.ones(n_tasks, dtype=torch.float64), torch.zeros(()).long()

    def put(self, memory: Memory, here: Tensor, gramian: Tensor) -> None:
        self.part.n_tasks = len(here)
        self.part.reset()
        self.part._init_optim_problem()
        self.part.prvs_alpha = memory[0][here].numpy()
        self.part.step = float(memory[1])

    def take(self, memory: Memory, here: Tensor) -> Memory:
        alpha = torch.as_tensor(self.part.prvs_alpha, dtype=torch.float64)
        return memory[0].index_copy(0, here, alpha), torch.tensor(int(self.part.step))


KEEPERS: dict[str, type[Keeper]] = {
    "GradVacWeighting": _GradVac,
    "CRMOGMWeighting": _CRMOGM,
    "PCDWeighting": _PCD,
    "_NashMTLWeighting": _NashMTL,
}
"""By the name of the class: not every one of them is public."""


def keepers(weighting: Any) -> list[Keeper]:
    """A keeper for each part of ``weighting`` that remembers something.

    Raises:
        TypeError: a part remembers something of which no keeper knows.
    """
    found = []
    for part in weighting.modules():
        name = type(part).__name__
        if name in KEEPERS:
            found.append(KEEPERS[name](part))
        elif isinstance(part, Stateful) and not isinstance(part, aggregation.Aggregator):
            raise TypeError(
                f"weighting must have a memory that can be saved, found {name}, whose memory is "
                f"unknown: use one of {', '.join(KEEPERS)}"
            )
    return found
