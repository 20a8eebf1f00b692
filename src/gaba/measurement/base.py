"""What a measurement is: from the losses of one step to norms, or to a Gramian."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

from torch import Tensor

from gaba.autograd.graph import LossGraph
from gaba.autograd.passes import TaskGradients
from gaba.measurement.metric import OptimizerMetric
from gaba.pieces import Piece
from gaba.ranks.processes import Ranks


@final
@dataclass(frozen=True, eq=False)
class Request:
    """What a measurement is asked for in one step.

    Attributes:
        graph: the losses of the tasks present, and which parameters are shared.
        metric: in which gradients are measured; ``None`` is the Euclidean one.
        ranks: with whom the gradients are averaged before they are measured.
        loss_scale: (), by what the losses have been multiplied, as a GradScaler does; norms are
            divided by it. ``None`` is 1.
        gramian: give the Gramian too.
        gradients: give the gradients too, heads included, if the measurement has them.
        step: how many steps have been measured before this one.
        own: the gradients of this step stay each rank's own (``no_sync``).
        direction: what to measure along in place of the update of this step, by parameter.
        retain_graph: keep the whole graph; else what no later pass needs is freed together with
            ``gradients``.
    """

    graph: LossGraph
    metric: OptimizerMetric | None = None
    ranks: Ranks = Ranks()  # noqa: RUF009 - frozen
    loss_scale: Tensor | None = None
    gramian: bool = False
    gradients: bool = False
    step: int = 0
    own: bool = False
    direction: Sequence[Tensor] | None = None
    retain_graph: bool = False

    @property
    def frees(self) -> bool:
        """Whether the last pass may free the graph."""
        return self.gradients and not self.retain_graph

    def scales(self, parameters: Sequence[Tensor]) -> list[Tensor] | None:
        """The metric P of ``parameters``, by which gradients are multiplied before their length.

        ``None`` in the Euclidean metric, where nothing is to be done.
        """
        if self.metric is None or not parameters:
            return None
        return self.metric.scales(parameters)

    def unscaled(self, norms: Tensor) -> Tensor:
        """Norms of the losses as they were before ``loss_scale``.

        Example:
            >>> import torch
            >>> from gaba.autograd.shared import as_shared
            >>> w = torch.nn.Parameter(torch.ones(2))
            >>> graph = LossGraph([w[0], w[1]], as_shared([w]))
            >>> Request(graph, loss_scale=torch.tensor(2.0)).unscaled(torch.tensor([4.0, 6.0]))
            tensor([2., 3.])
        """
        return norms if self.loss_scale is None else norms / self.loss_scale.to(norms)


@final
@dataclass(frozen=True, eq=False)
class Observation:
    """What was observed in one step, over all K tasks; NaN where a task is missing.

    Attributes:
        norms: (K,), ‖∇_θ L_k‖₂ in float64 (float32 where the device lacks it).
        gramian: (K, K), ⟨∇_θ L_k, ∇_θ L_l⟩ in the same dtype, or ``None`` if not asked for.
        unreached: the positions of the tasks whose loss reaches no shared parameter.
        gradients: the gradients of every leaf, a row for each task present, if there are any.
        statistics: (K, m), what a special measurement adds for a rule of its own.
        asked: (K,), bool, which tasks it was to observe; ``None`` for all that are present.
    """

    norms: Tensor
    gramian: Tensor | None = None
    unreached: tuple[int, ...] = ()
    gradients: TaskGradients | None = None
    statistics: Tensor | None = None
    asked: Tensor | None = None


class Measurement(Piece[Request, Observation]):
    """Observes how hard each task pulls on the shared parameters.

    Subclasses are frozen dataclasses: settings only. What they remember is an explicit state, there
    from ``init`` on. Measuring never writes into ``.grad``.

    Example:
        >>> import torch
        >>> from gaba.autograd.shared import as_shared
        >>> from gaba.measurement import ExactNorms
        >>> w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> request = Request(LossGraph([w @ w, 2 * w.sum()], as_shared([w])))
        >>> seen, state = ExactNorms().update(request, ())
        >>> [round(g, 4) for g in seen.norms.tolist()], state
        ([10.0, 2.8284], ())
    """

    tracks: ClassVar[bool] = False
    """Whether it measures along the update, after the backward pass, for the next step."""

    needs_every_step: ClassVar[bool] = False
    """Whether a step that is not measured would be combined from other gradients than the rest."""

    loss_shape: ClassVar[tuple[int, ...]] = ()
    """The shape of each loss: () for a scalar, (2,) for its means over two halves of the batch."""

    averages: ClassVar[bool] = False
    """Whether the norms are averages over the steps already, so that nothing need smooth them."""

    @property
    def unreached_says(self) -> str:
        """What is wrong with a loss in :attr:`Observation.unreached`, if not that of all others."""
        return ""


def balanced(seen: Observation, n_tasks: int) -> Observation:
    """What was observed of the first ``n_tasks`` terms: those that are balanced."""
    if len(seen.norms) == n_tasks:
        return seen
    gramian, statistics, asked = seen.gramian, seen.statistics, seen.asked
    return replace(
        seen,
        norms=seen.norms[:n_tasks],
        gramian=None if gramian is None else gramian[:n_tasks, :n_tasks],
        statistics=None if statistics is None else statistics[:n_tasks],
        asked=None if asked is None else asked[:n_tasks],
    )
