"""The gradients of the tasks themselves, averaged over the steps, in the place of their norms."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from gaba.arrays import as_float, on_device, work_dtype
from gaba.ranks.wrappers import sharded
from gaba.autograd.graph import LossGraph
from gaba.measurement._base import Gradients, Measurement, Observation, TaskGradients
from gaba.measurement._gradients import observed, task_passes
from gaba.autograd.shared import SharedAuto


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

    ĝ_k ← β_t ĝ_k + (1 − β_t) ∇_θ log L_k, from 0, with β_t = β/t^r in the t-th step of task k, β
    the decay and r the rate. The norms are ‖ĝ_k‖, and it is ĝ that is combined: the update of the
    shared parameters is Σ_k λ_k ĝ_k. Parameters of a head get ∇ log L_k of this step. With
    ``log=False``, L_k takes the place of log L_k.

    This is DB-MTL together with these settings of the Balancer::

        measurement=SmoothedGradients.like(trunk), norm_stabiliser=None,
        weighting=InverseNorm(), scale="max", heads="plain"

    ∇ log L_k = ∇L_k/L_k has the direction of ∇L_k: without the average (β = 0) DB-MTL's update of
    the shared parameters has the direction of ``InverseNorm``'s on the losses themselves.

    A missing task keeps its row and its t. Where a loss is 0 or negative, its gradient becomes NaN,
    and the Balancer learns nothing from the step. The published code takes log(L_k + 1e-8).

    Only where gradients are combined by hand: in one process, without hooks on parameters or FSDP,
    by ``balancer.backward``. Every step must be measured (``heads="plain"`` sees to that).

    Cost: K passes in all, and arithmetic on K P numbers. Held between steps, and saved with the
    state: K P numbers in float64.

    Args:
        size: P, the number of values in the shared parameters; :meth:`like` counts them.
        decay: β in [0, 1).
        rate: r, zero or more; at 0 β stays the same.
        log: whether the gradients are those of log L_k.

    Raises:
        ValueError: a setting is out of its range, P is not the size of what is shared, or the
            gradients cannot be combined by hand.

    Source: Lin et al., Dual-Balancing for Multi-Task Learning, 2023, algorithm 1; β = .9 as in its
    published code.

    Example:
        >>> import torch, gaba
        >>> w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> engine = gaba.measurement.SmoothedGradients.like([w], decay=0.5)
        >>> settings = dict(norm_stabiliser=None, scale="max", heads="plain")
        >>> balancer = gaba.Balancer(["a", "b"], [w], measurement=engine, **settings)
        >>> step = balancer.backward({"a": w[0], "b": 2 * w[1] ** 2})
        >>> step.norms  # half of 1/3 and of 2/4
        tensor([0.1667, 0.2500], dtype=torch.float64)
        >>> w.grad  # each brought to the largest
        tensor([0.2500, 0.2500])
    """

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
        return cls(sum(_length(p) for p in trainable), decay=decay, rate=rate, log=log)

    def init(self, n_tasks: int) -> AveragedGradients:
        """All gradients 0."""
        dtype = work_dtype(torch.device("cpu"))
        return AveragedGradients(
            torch.zeros(n_tasks, self.size, dtype=dtype), torch.zeros(n_tasks, dtype=torch.int64)
        )

    def __call__(
        self, graph: LossGraph, state: Any = (), *, gramian: bool = False, gradients: bool = False
    ) -> Observation:
        """Observe the K losses of ``graph``; see :class:`Measurement`."""
        theta = graph.shared.parameters()
        self._check(graph, theta, gradients)
        leaves = graph.leaves  # θ in front
        of = task_passes(graph.losses, leaves, free=True)
        if self.log:
            of = [_over(loss, row) for loss, row in zip(graph.losses, of, strict=True)]
        now = torch.stack([_flat(row[: len(theta)], theta) for row in of])
        if not self.log:
            now = graph.unscaled(now)
        new = self._advance(state, now, graph.tasks)
        rows = new.mean[on_device(graph.tasks, now.device)]
        unit = graph.unscaled(torch.ones_like(rows[0, 0]))  # as if of losses times the loss scale
        smooth = [_parts(row / unit, theta) for row in rows]
        heads = [[_times(g, unit, self.log) for g in row[len(theta) :]] for row in of]
        found = TaskGradients(
            leaves, tuple([*a, *b] for a, b in zip(smooth, heads, strict=True)), features=()
        )
        scales = graph.scales(theta)
        seen = observed(
            smooth, graph, gramian=gramian, theta=theta, scales=scales, gradients=found, state=new
        )
        lost = [k for k, row in enumerate(of) if all(g is None for g in row[: len(theta)])]
        return dataclasses.replace(seen, unreached=tuple(lost))

    def _check(self, graph: LossGraph, theta: Sequence[nn.Parameter], gradients: bool) -> None:
        if isinstance(graph.shared, SharedAuto):
            raise ValueError(
                "shared='auto' cannot be used with SmoothedGradients, whose rows need a known "
                "length: pass shared=model.backbone"
            )
        if not gradients or graph.ranks.several or sharded(theta):
            raise ValueError(
                "SmoothedGradients must combine gradients by hand, found a backward pass that "
                "others listen to or make (several ranks, FSDP, hooks on parameters, "
                "balancer(losses)): use balancer.backward in one process, or measurement='exact'"
            )
        size = sum(_length(p) for p in theta)
        if size != self.size:
            raise ValueError(
                f"size must be the number of trainable shared values, {size}, found {self.size}: "
                "use SmoothedGradients.like(shared), and do not freeze a part of it later"
            )

    def _advance(
        self, old: AveragedGradients, now: Tensor, tasks: tuple[int, ...]
    ) -> AveragedGradients:
        """With the gradients ``now`` (present, P) of ``tasks`` taken in."""
        where = on_device(tasks, now.device)
        count = old.count[where] + 1
        beta = (self.decay * count.to(now.dtype) ** -self.rate)[:, None]
        mean = beta * old.mean[where] + (1 - beta) * now
        return AveragedGradients(
            old.mean.index_copy(0, where, mean), old.count.index_copy(0, where, count)
        )


def _over(loss: Tensor, row: Gradients) -> tuple[Tensor | None, ...]:
    """∇ log L from ∇L; a factor of the loss cancels. NaN where the loss is not above 0."""
    value = torch.where(loss.detach() > 0, loss.detach(), math.nan)
    return tuple(None if g is None else g / value.to(g.dtype) for g in row)


def _times(gradient: Tensor | None, unit: Tensor, log: bool) -> Tensor | None:
    """A head's gradient as if of the loss times the loss scale, which that of the log has lost."""
    return gradient / unit.to(gradient.dtype) if gradient is not None and log else gradient


def _length(parameter: Tensor) -> int:
    return parameter.numel() * (2 if parameter.is_complex() else 1)


def _flat(row: Gradients, theta: Sequence[Tensor]) -> Tensor:
    """One task's gradient (P,) in the working dtype, 0 where the task does not reach."""
    parts = []
    for g, p in zip(row, theta, strict=True):
        dense = torch.zeros_like(p) if g is None else g.to_dense() if g.is_sparse else g
        parts.append(torch.view_as_real(dense) if dense.is_complex() else dense)
    return torch.cat([as_float(part).flatten() for part in parts])


def _parts(row: Tensor, theta: Sequence[Tensor]) -> list[Tensor]:
    """A row (P,) as gradients of the parameters, in their shapes and dtypes."""
    parts = []
    for part, p in zip(row.split([_length(p) for p in theta]), theta, strict=True):
        if p.is_complex():
            parts.append(torch.view_as_complex(part.view(*p.shape, 2)).to(p.dtype))
        else:
            parts.append(part.view(p.shape).to(p.dtype))
    return parts
