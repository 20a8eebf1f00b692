"""What a measurement is: from the losses of one step to norms, or to a Gramian."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch.autograd.graph import GradientEdge

from gaba.autograd.graph import LossGraph

Gradients = Sequence["Tensor | None"]


@dataclass(frozen=True)
class TaskGradients:
    """The gradients of each task that a measurement left behind, so that none is computed twice.

    Attributes:
        leaves: n leaf tensors.
        of: K rows of n gradients: ``of[k][i]`` is ∂L_k/∂leaves[i], or ``None`` where task k does
            not reach that leaf.
        features: where the passes stopped; empty if they went through to every leaf.
        at_features: K rows of gradients with respect to ``features``. One pass from there, of
            their weighted sum, fills what lies below.
        weighted: whether ``of`` is one row instead, the sum Σ_k c_k ∂L_k/∂leaf with the
            coefficients c of :attr:`LossGraph.factors`.
    """

    leaves: tuple[Tensor, ...]
    of: tuple[Gradients, ...]
    features: tuple[GradientEdge, ...] = ()
    at_features: tuple[Gradients, ...] = ()
    weighted: bool = False

    @property
    def by_task(self) -> bool:
        """Whether it shows, or goes without saying, which tasks reach which leaf."""
        return not self.weighted and not any(g is None for row in self.at_features for g in row)


@dataclass(frozen=True)
class Observation:
    """What was observed of the K losses of one step.

    Attributes:
        norms: (K,), ‖∇_θ L_k‖₂ in float64 (float32 where the device lacks it).
        gramian: (K, K), ⟨∇_θ L_k, ∇_θ L_l⟩ in the same dtype, or ``None`` if not asked for.
        unreached: the tasks, by position, whose loss reaches no shared parameter.
        gradients: the gradients of every leaf, if they were asked for.
        state: what the measurement remembers for the next step.
        statistics: (K, m), what a special measurement adds for a weighting of its own.
    """

    norms: Tensor
    gramian: Tensor | None
    unreached: tuple[int, ...]
    gradients: TaskGradients | None
    state: Any = ()
    statistics: Tensor | None = None


class Measurement(ABC):
    """Observes how hard each task would pull on the shared parameters.

    Subclasses are frozen dataclasses: settings only. What they remember is an explicit state, a
    frozen dataclass of tensors, there from :meth:`init` on. Measuring never writes into ``.grad``.
    """

    needs_calls: ClassVar[bool] = False
    """Whether the calls of the shared module must be kept until the backward pass, to run again."""

    halves: ClassVar[bool] = False
    """Whether each loss must come as two: its means over two disjoint halves of the batch, (2,)."""

    def init(self, n_tasks: int) -> Any:
        """The state before the first step, for K = ``n_tasks``; by default there is none."""
        return ()

    def due(self, step: int) -> bool:
        """Whether to measure in step number ``step``, from 0; by default always."""
        return True

    @abstractmethod
    def __call__(
        self, graph: LossGraph, state: Any = (), *, gramian: bool = False, gradients: bool = False
    ) -> Observation:
        """Observe the losses of ``graph``.

        Args:
            graph: the losses of the tasks present, and which parameters are shared.
            state: what the last step left in :attr:`Observation.state`.
            gramian: give the Gramian too.
            gradients: give the gradients too, heads included. The graph is freed then, as far as
                no pass is to follow; otherwise it is kept for one.
        """
