"""Norms at the features: one pass a task through its head, and no further."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from gaba.arrays import on_device, work_dtype
from gaba.autograd.graph import LossGraph
from gaba.measurement._base import Measurement, Observation, TaskGradients
from gaba.measurement._exact import ExactNorms
from gaba.measurement._gradients import observed, task_passes


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

    def learnt(self, exact: Tensor, near: Tensor, tasks: tuple[int, ...]) -> Calibration:
        """With the ratios of ``tasks`` measured anew, where both norms are positive and finite."""
        where = on_device(tasks, exact.device)
        ratio = exact / near
        usable = ratio.isfinite() & (ratio > 0)
        return Calibration(
            self.ratio.index_copy(0, where, torch.where(usable, ratio, self.ratio[where])),
            self.known.index_copy(0, where, usable | self.known[where]),
        )

    def of(self, tasks: tuple[int, ...]) -> Tensor:
        """The ratios of ``tasks``; one not yet known is the geometric mean of those that are."""
        where = on_device(tasks, self.ratio.device)
        logs = torch.where(self.known, self.ratio, torch.ones_like(self.ratio)).log()
        typical = (logs.sum() / self.known.sum().clamp(min=1)).exp()
        return torch.where(self.known, self.ratio, typical)[where]


@final
@dataclass(frozen=True)
class FeatureNorms(Measurement):
    """A proxy for the norms: ‖∂L_k/∂z‖₂, with z the features, in place of ‖∇_θ L_k‖₂.

    The gradient of task k with respect to the shared parameters is J_zᵀ ∂L_k/∂z; this leaves J_z
    out. What is reported is then NOT the norm of the gradient: J_z stretches the tasks' directions
    unequally, and the ratio between two tasks can be wrong by several times once training has set
    in. The norm is over all entries of all features of the batch together, and the Gramian, if
    asked for, is that of ∂L_k/∂z.

    With ``calibrate_every=n`` the ratio r_k of exact to feature norm is measured for each task in
    the steps 0, n, 2n, ..., which report the exact norms; the others report r_k ‖∂L_k/∂z‖, and
    r_k r_l ⟨∂L_k/∂z, ∂L_l/∂z⟩ in the Gramian. Of these steps only those that are measured count:
    with ``every=m``, let n be a multiple of m. A ratio stays as it was while its task is missing.

    Cost: K passes through the heads and one through the shared part, which is about that of the
    backward pass without any balancing; 2 K through the heads and K through the shared part in a
    step that calibrates. Held: K gradients of the features. Where heads and shared part have no
    clean boundary (:attr:`gaba.autograd.graph.LossGraph.features`), the step has exact norms, uncorrected,
    at their price.

    Args:
        calibrate_every: n ≥ 1, or ``None`` for the proxy as it is.

    Raises:
        ValueError: ``calibrate_every`` is smaller than 1.

    Source: Sener and Koltun, Multi-Task Learning as Multi-Objective Optimization, NeurIPS 2018,
    section 3.3 (gradients of the representations in place of those of the parameters).

    Example:
        >>> import torch
        >>> from gaba.autograd.graph import LossGraph
        >>> from gaba.autograd.shared import as_shared
        >>> trunk = torch.nn.Linear(2, 3)
        >>> shared = as_shared(trunk)
        >>> z = trunk(torch.ones(4, 2))
        >>> seen = FeatureNorms()(LossGraph([z.sum(), 5 * z.sum()], shared))
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
        ratio = torch.ones(n_tasks, dtype=work_dtype(torch.device("cpu")))
        return Calibration(ratio, torch.zeros(n_tasks, dtype=torch.bool))

    def __call__(
        self, graph: LossGraph, state: Any = (), *, gramian: bool = False, gradients: bool = False
    ) -> Observation:
        """Observe the K losses of ``graph``; see :class:`Measurement`."""
        if not graph.ranks.all(graph.features is not None, graph.losses[0].device):
            exact = ExactNorms()(graph, gramian=gramian, gradients=gradients)
            return replace(exact, state=state)
        if self.calibrate_every is None:
            if graph.metric is not None:
                raise ValueError(
                    "FeatureNorms sees no parameters, and so not the metric of the optimizer: "
                    "give it calibrate_every=..., or use another measurement"
                )
            return _at_features(graph, gramian, gradients)
        if graph.step % self.calibrate_every == 0:
            near = _at_features(graph, gramian=False, gradients=False)
            exact = ExactNorms()(graph, gramian=gramian, gradients=gradients)
            return replace(exact, state=state.learnt(exact.norms, near.norms, graph.tasks))
        near, ratio = _at_features(graph, gramian, gradients), state.of(graph.tasks)
        gram = None if near.gramian is None else near.gramian * ratio[:, None] * ratio
        return replace(near, norms=near.norms * ratio, gramian=gram, state=state)


def _at_features(graph: LossGraph, gramian: bool, gradients: bool) -> Observation:
    """Norms of ∂L_k/∂z, and the gradients of the heads on the way there."""
    edges = graph.features or ()
    n, by_hand = len(edges), gradients and graph.apart
    heads = graph.heads if by_hand else ()
    rows = task_passes(graph.losses, (*edges, *heads), free=by_hand)
    at, of = [row[:n] for row in rows], [row[n:] for row in rows]
    found = None
    if by_hand:
        graph.shared.learn(heads, [[g is not None for g in row] for row in of])
        found = TaskGradients(heads, tuple(of), tuple(edges), tuple(at))
    return observed(at, graph, gramian=gramian, theta=None, gradients=found)
