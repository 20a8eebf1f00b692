"""Norms at the features: one pass a task through its head, and no further."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from gaba.autograd.passes import TaskGradients, task_passes
from gaba.measurement.base import Measurement, Observation, Request
from gaba.measurement.exact import ExactNorms
from gaba.measurement.norms import observed
from gaba.tensors import DTYPE


@final
@dataclass(frozen=True, eq=False)
class Calibration:
    """What the norms at the features have been found to stand for.

    Attributes:
        ratio: (K,), r_k, the exact norm divided by that at the features, when last measured.
        known: (K,), bool, whether it has been measured.
    """

    ratio: Tensor
    known: Tensor

    def learnt(self, exact: Tensor, near: Tensor) -> Calibration:
        """With the ratios of exact to near norms (K,), where both are positive and finite."""
        ratio = exact / near
        usable = ratio.isfinite() & (ratio > 0)
        return Calibration(torch.where(usable, ratio, self.ratio), usable | self.known)

    @property
    def believed(self) -> Tensor:
        """The ratios (K,); one not yet known is the geometric mean of those that are."""
        logs = torch.where(self.known, self.ratio, torch.ones_like(self.ratio)).log()
        typical = (logs.sum() / self.known.sum().clamp(min=1)).exp()
        return torch.where(self.known, self.ratio, typical)


@final
@dataclass(frozen=True)
class FeatureNorms(Measurement):
    """A cheap proxy for the norms: ‖∂L_k/∂z‖₂, with z the features, in place of ‖∇_θ L_k‖₂.

    This is not the norm of the gradient: the shared part stretches the tasks' directions unequally,
    and the ratio between two tasks can be wrong by several times. The norm is over all entries of
    all features of the batch together. Where heads and shared part have no clean boundary, the step
    has exact norms, at their price.

    Args:
        calibrate_every: n ≥ 1: in measured steps 0, n, 2n, ... measure the ratio r_k of exact to
            feature norm and report the exact norms; the steps between report r_k ‖∂L_k/∂z‖.
            ``None`` for the proxy as it is.

    Raises:
        ValueError: ``calibrate_every`` is smaller than 1; or the metric is the optimizer's and
            nothing is calibrated.

    Source: Sener and Koltun, Multi-Task Learning as Multi-Objective Optimization, NeurIPS 2018,
    section 3.3 (gradients of the representations in place of those of the parameters).

    Example:
        >>> import torch
        >>> from gaba.autograd.graph import LossGraph
        >>> from gaba.autograd.shared import as_shared
        >>> trunk = torch.nn.Linear(2, 3)
        >>> shared = as_shared(trunk)
        >>> z = trunk(torch.ones(4, 2))
        >>> seen, _ = FeatureNorms().update(Request(LossGraph([z.sum(), 5 * z.sum()], shared)), ())
        >>> [round(g, 4) for g in seen.norms.tolist()]
        [3.4641, 17.3205]
    """

    calibrate_every: int | None = None

    def __post_init__(self) -> None:
        if self.calibrate_every is not None and self.calibrate_every < 1:
            raise ValueError(
                f"calibrate_every must be at least 1, or None, found {self.calibrate_every}"
            )

    def init(self, n_tasks: int) -> Any:
        """No ratio known yet; without calibration nothing is remembered."""
        if self.calibrate_every is None:
            return ()
        return Calibration(torch.ones(n_tasks, dtype=DTYPE), torch.zeros(n_tasks, dtype=torch.bool))

    def update(self, told: Request, state: Any) -> tuple[Observation, Any]:
        """Observe the losses at the features."""
        graph = told.graph
        if not told.ranks.all(graph.features is not None, graph.device):
            return ExactNorms().update(told, ())[0], state
        if self.calibrate_every is None:
            if told.metric is not None:
                raise ValueError(
                    "FeatureNorms sees no parameters, and so not the metric of the optimizer: "
                    "give it calibrate_every=..., or use another measurement"
                )
            return _at_features(told), state
        if told.step % self.calibrate_every == 0:
            near = _at_features(replace(told, gramian=False, gradients=False))
            exact, _ = ExactNorms().update(told, ())
            return exact, state.learnt(exact.norms, near.norms)
        near, ratio = _at_features(told), state.believed
        gram = None if near.gramian is None else near.gramian * ratio[:, None] * ratio
        return replace(near, norms=near.norms * ratio, gramian=gram), state


def _at_features(request: Request) -> Observation:
    rows, found = head_passes(request)
    return observed(request, rows, theta=None, gradients=found)


def head_passes(
    request: Request, *, above: bool = True
) -> tuple[list[tuple[Tensor | None, ...]], TaskGradients | None]:
    """A row ∂L_k/∂z for each task, with the gradients of the heads on the way if they are wanted.

    Args:
        request: of a graph with sound features.
        above: whether what lies above the features is to get a gradient.
    """
    graph = request.graph
    edges = graph.features or ()
    by_hand = request.gradients and (graph.apart or not above)
    heads = graph.heads if by_hand and above else ()
    rows = task_passes(graph, (*edges, *heads), free=by_hand and request.frees)
    at = [row[: len(edges)] for row in rows]
    if not by_hand:
        return at, None
    of = tuple(row[len(edges) :] for row in rows)
    return at, TaskGradients(heads, of, edges, tuple(at))
