"""What TorchJD's weightings remember, as tensors that a Balancer can keep and save."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeAlias, final

import torch
from torch import Tensor
from torchjd import Stateful, aggregation

Memory: TypeAlias = "tuple[Tensor, ...]"


class Keeper(ABC):
    """How the memory of one class of theirs is laid out, written into a part and read back.

    Tensors are over all K tasks; ``here`` holds the positions of the k that the step has.
    """

    @abstractmethod
    def blank(self, part: Any, n_tasks: int) -> Memory:
        """The memory before the first step."""

    @abstractmethod
    def put(self, part: Any, memory: Memory, here: Tensor, gramian: Tensor) -> None:
        """Bring ``part``, which is to see ``gramian`` (k, k), to ``memory``."""

    @abstractmethod
    def take(self, part: Any, memory: Memory, here: Tensor) -> Memory:
        """What ``part`` remembers now; the tasks that were not here keep what ``memory`` had."""


@final
class _GradVac(Keeper):
    """The targets φ (K, K) of the cosines."""

    def blank(self, part: Any, n_tasks: int) -> Memory:
        return (torch.zeros(n_tasks, n_tasks, dtype=torch.float64),)

    def put(self, part: Any, memory: Memory, here: Tensor, gramian: Tensor) -> None:
        part._phi_t = memory[0][here[:, None], here].clone()
        part._state_key = (len(here), gramian.dtype)

    def take(self, part: Any, memory: Memory, here: Tensor) -> Memory:
        return (memory[0].index_put((here[:, None], here), part._phi_t),)


@final
class _CRMOGM(Keeper):
    """The smoothed weights λ (K,), and which tasks have one.

    A task that comes later than the others starts from their mean.
    """

    def blank(self, part: Any, n_tasks: int) -> Memory:
        first = part._initial_weights
        if first is None:
            return torch.zeros(n_tasks, dtype=torch.float64), torch.zeros(n_tasks).bool()
        if first.shape != (n_tasks,):
            raise ValueError(
                f"initial_weights must have an entry for each of the {n_tasks} tasks, found shape "
                f"{tuple(first.shape)}"
            )
        return first.detach().to("cpu", torch.float64), torch.ones(n_tasks).bool()

    def put(self, part: Any, memory: Memory, here: Tensor, gramian: Tensor) -> None:
        weights, known = memory[0][here], memory[1][here]
        part._lambda = None
        if bool(known.any()):
            part._lambda = torch.where(known, weights, weights[known].mean())

    def take(self, part: Any, memory: Memory, here: Tensor) -> Memory:
        weights, known = memory
        return (
            weights.index_copy(0, here, part._lambda.to(weights)),
            known.index_fill(0, here, True),
        )


@final
class _PCD(Keeper):
    """The mean square norms (K,), debiased, and of how many steps each is the mean, (K,)."""

    def blank(self, part: Any, n_tasks: int) -> Memory:
        return torch.zeros(n_tasks, dtype=torch.float64), torch.zeros(n_tasks).long()

    def put(self, part: Any, memory: Memory, here: Tensor, gramian: Tensor) -> None:
        if int(here[0]) != 0:
            raise ValueError(
                "PCD needs its primary objective, the first task, in every step, and found it "
                "missing: give its loss, or use another weighting"
            )
        means, counts = memory[0][here], memory[1][here]
        means = torch.where(counts > 0, means, gramian.diagonal())
        steps = int(counts.max())
        part._sq_norm_ema = means * (1 - part.beta**steps)
        part._n_steps = torch.tensor(steps)
        part._state_key = len(here)

    def take(self, part: Any, memory: Memory, here: Tensor) -> Memory:
        means = part._sq_norm_ema / (1 - part.beta ** int(part._n_steps))
        return memory[0].index_copy(0, here, means), memory[1].index_add(
            0, here, torch.ones_like(here)
        )


@final
class _NashMTL(Keeper):
    """The last α (K,), from which the next search starts, and the number of steps."""

    def blank(self, part: Any, n_tasks: int) -> Memory:
        if part.n_tasks != n_tasks:
            raise ValueError(
                f"n_tasks must be the number of tasks, {n_tasks}, found {part.n_tasks}: use "
                f"NashMTL(n_tasks={n_tasks})"
            )
        return torch.ones(n_tasks, dtype=torch.float64), torch.zeros(()).long()

    def put(self, part: Any, memory: Memory, here: Tensor, gramian: Tensor) -> None:
        part.n_tasks = len(here)
        part.reset()
        part._init_optim_problem()
        part.prvs_alpha = memory[0][here].numpy()
        part.step = float(memory[1])

    def take(self, part: Any, memory: Memory, here: Tensor) -> Memory:
        alpha = torch.as_tensor(part.prvs_alpha, dtype=torch.float64)
        return memory[0].index_copy(0, here, alpha), torch.tensor(int(part.step))


KEEPERS: dict[str, Keeper] = {
    "GradVacWeighting": _GradVac(),
    "CRMOGMWeighting": _CRMOGM(),
    "PCDWeighting": _PCD(),
    "_NashMTLWeighting": _NashMTL(),
}
"""By the name of their class, of which not every one is public."""


def keepers(weighting: Any) -> list[tuple[Any, Keeper]]:
    """The parts of ``weighting`` that remember something, each with what knows its memory.

    Raises:
        TypeError: a part remembers something that is not known here.
    """
    found = []
    for part in weighting.modules():
        name = type(part).__name__
        if name in KEEPERS:
            found.append((part, KEEPERS[name]))
        elif isinstance(part, Stateful) and not isinstance(part, aggregation.Aggregator):
            raise TypeError(
                f"weighting must have a memory that can be saved, found {name}, of whose memory "
                f"nothing is known: use one of {', '.join(KEEPERS)}"
            )
    return found
