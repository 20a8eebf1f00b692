"""The gradients of the tasks themselves, averaged over the steps, in the place of their norms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from gaba.autograd.passes import Gradients, TaskGradients, task_passes
from gaba.autograd.sharding import sharded
from gaba.autograd.shared import SharedAuto
from gaba.measurement.base import Measurement, Observation, Request
from gaba.measurement.norms import observed
from gaba.tensors import DTYPE, flat, length, shaped


@final
@dataclass(frozen=True, eq=False)
class AveragedGradients:
    """The averaged gradient of each task, as one row of P numbers.

    Attributes:
        mean: (K, P), ĝ, in the order of the shared parameters.
        count: (K,), int64, t, how many gradients of each task it has taken in.

    Example:
        >>> state = SmoothedGradients(size=3).init(n_tasks=2)
        >>> isinstance(state, AveragedGradients), tuple(state.mean.shape)
        (True, (2, 3))
    """

    mean: Tensor
    count: Tensor


@final
@dataclass(frozen=True)
class SmoothedGradients(Measurement):
    """The K gradients of the log-losses, averaged over the steps, and their norms.

    ĝ_k ← β_t ĝ_k + (1 − β_t) ∇_θ log L_k, from 0, with β_t = β/t^r in the t-th step of task k. The
    norms are ‖ĝ_k‖, and it is ĝ that is combined: the update is Σ_k m_k ĝ_k. Parameters of a head
    get ∇ log L_k of this step. A missing task keeps its row and its t. Where a loss is 0 or
    negative, nothing is learnt from the step.

    Gradients must be combined by hand, in every step: in one process, without hooks on parameters,
    by ``balancer.backward``. Held between steps, and saved with the state: K P numbers in float64.

    Args:
        size: P, the number of values in the shared parameters; :meth:`like` counts them.
        decay: β in [0, 1).
        rate: r, zero or more; at 0 β stays the same.
        log: whether the gradients are those of log L_k; else of L_k.

    Raises:
        ValueError: a setting is out of its range, P is not the size of what is shared, or the
            gradients cannot be combined by hand.

    Source: Lin et al., Dual-Balancing for Multi-Task Learning, 2023, algorithm 1; β = 0.9 as in its
    published code.

    Example:
        >>> import torch
        >>> from gaba.autograd.graph import LossGraph
        >>> from gaba.autograd.shared import as_shared
        >>> w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> engine = SmoothedGradients.like([w], decay=0.5)
        >>> request = Request(LossGraph([w[0], 2 * w[1] ** 2], as_shared([w])), gradients=True)
        >>> seen, state = engine.update(request, engine.init(2))
        >>> seen.norms  # half of 1/3 and of 2/4
        tensor([0.1667, 0.2500], dtype=torch.float64)
    """

    needs_every_step: ClassVar[bool] = True
    averages: ClassVar[bool] = True

    size: int
    decay: float = 0.9
    rate: float = 0.5
    log: bool = True

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(
                f"size must be at least 1, found {self.size}: use SmoothedGradients.like(shared)"
            )
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1, found {self.decay}")
        if not (math.isfinite(self.rate) and self.rate >= 0):
            raise ValueError(f"rate must be finite and zero or more, found {self.rate}")

    @classmethod
    def like(
        cls,
        shared: nn.Module | Iterable[nn.Parameter],
        *,
        decay: float = 0.9,
        rate: float = 0.5,
        log: bool = True,
    ) -> SmoothedGradients:
        """The measurement with the ``size`` of the parameters of ``shared`` that are trainable.

        Raises:
            TypeError: ``shared`` is neither a module nor parameters, as ``"auto"``.

        Example:
            >>> SmoothedGradients.like(torch.nn.Linear(3, 4)).size
            16
        """
        if isinstance(shared, str):
            raise TypeError(
                f"shared must be a module or parameters, found {shared!r}: their number must be "
                "known before the first step, so pass model.backbone"
            )
        found = shared.parameters() if isinstance(shared, nn.Module) else shared
        trainable = [p for p in dict.fromkeys(found) if p.requires_grad]
        return cls(sum(map(length, trainable)), decay=decay, rate=rate, log=log)

    def init(self, n_tasks: int) -> AveragedGradients:
        """All gradients 0."""
        return AveragedGradients(
            torch.zeros(n_tasks, self.size, dtype=DTYPE), torch.zeros(n_tasks, dtype=torch.int64)
        )

    def update(self, told: Request, state: Any) -> tuple[Observation, Any]:
        """Observe the losses and take their gradients in."""
        graph = told.graph
        theta = graph.theta
        self._check(told, theta)
        leaves = graph.leaves  # θ in front
        rows: list[Gradients] = list(task_passes(graph, leaves, free=told.frees))
        if self.log:
            rows = [_over(loss, row) for loss, row in zip(graph.losses, rows, strict=True)]
        now = torch.stack([_whole(row[: len(theta)], theta) for row in rows])
        taken = graph.spread(now if self.log else told.unscaled(now))
        new = self._advance(state, taken, graph.present)
        unit = told.unscaled(torch.ones_like(now[0, 0]))  # as if of losses times the loss scale
        smooth = [_parts(row / unit, theta) for row in graph.take(new.mean)]
        heads = [[_times(g, unit, self.log) for g in row[len(theta) :]] for row in rows]
        found = TaskGradients(leaves, tuple([*a, *b] for a, b in zip(smooth, heads, strict=True)))
        seen = observed(told, smooth, theta=theta, gradients=found)
        lost = [all(g is None for g in row[: len(theta)]) for row in rows]
        unreached = tuple(k for k, nothing in zip(graph.tasks, lost, strict=True) if nothing)
        return replace(seen, unreached=unreached), new

    def _check(self, request: Request, theta: Sequence[nn.Parameter]) -> None:
        if isinstance(request.graph.shared, SharedAuto):
            raise ValueError(
                "shared='auto' cannot be used with SmoothedGradients, whose rows need a known "
                "length: pass shared=model.backbone"
            )
        if not request.gradients or request.ranks.several or sharded(theta):
            raise ValueError(
                "SmoothedGradients must combine gradients by hand, found a backward pass that "
                "others listen to or make (several ranks, FSDP, hooks on parameters, "
                "balancer(losses)): use balancer.backward in one process, or measure='exact'"
            )
        size = sum(map(length, theta))
        if size != self.size:
            raise ValueError(
                f"size must be the number of trainable shared values, {size}, found {self.size}: "
                "use SmoothedGradients.like(shared), and do not freeze a part of it later"
            )

    def _advance(self, old: AveragedGradients, now: Tensor, here: Tensor) -> AveragedGradients:
        """With the gradients ``now`` (K, P) of the tasks that are ``here`` (K,) taken in."""
        count = torch.where(here, old.count + 1, old.count)
        beta = (self.decay * count.to(now.dtype) ** -self.rate)[:, None]
        mean = beta * old.mean + (1 - beta) * now
        return AveragedGradients(torch.where(here[:, None], mean, old.mean), count)


def _over(loss: Tensor, row: Gradients) -> tuple[Tensor | None, ...]:
    """∇ log L from ∇L; a factor of the loss cancels. NaN where the loss is not above 0."""
    value = torch.where(loss.detach() > 0, loss.detach(), math.nan)
    return tuple(None if g is None else g / value.to(g.dtype) for g in row)


def _times(gradient: Tensor | None, unit: Tensor, log: bool) -> Tensor | None:
    """A head's gradient as if of the loss times the loss scale, which that of the log has lost."""
    return gradient / unit.to(gradient.dtype) if gradient is not None and log else gradient


def _whole(row: Gradients, theta: Sequence[Tensor]) -> Tensor:
    """One task's gradient (P,) in the working dtype, 0 where the task does not reach."""
    pairs = zip(row, theta, strict=True)
    return torch.cat([flat(torch.zeros_like(p) if g is None else g) for g, p in pairs])


def _parts(row: Tensor, theta: Sequence[Tensor]) -> list[Tensor]:
    """A row (P,) as gradients of the parameters, in their shapes and dtypes."""
    parts = row.split([length(p) for p in theta])
    return [shaped(part, p) for part, p in zip(parts, theta, strict=True)]
