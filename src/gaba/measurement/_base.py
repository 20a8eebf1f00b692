"""What a measurement is: from the losses of one step to norms, or to a Gramian."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from gaba.shared import LossGraph

Gradients = Sequence["Tensor | None"]


@dataclass(frozen=True)
class TaskGradients:
    """What the passes of a measurement left behind, so that no other backward pass is needed.

    ``of[k][i]`` is ∂L_k/∂leaves[i], or ``None`` where task k does not reach that leaf.
    """

    leaves: tuple[Tensor, ...]
    of: tuple[Gradients, ...]


@dataclass(frozen=True)
class Observation:
    """What was observed of the K losses of one step.

    Attributes:
        norms: (K,), ‖∇_θ L_k‖₂ in float64 (float32 where the device lacks it).
        gramian: (K, K), ⟨∇_θ L_k, ∇_θ L_l⟩ in the same dtype, or ``None`` if not asked for.
        unreached: the tasks, by position, whose loss reaches no shared parameter.
        gradients: the gradients of every leaf, if they were asked for.
    """

    norms: Tensor
    gramian: Tensor | None
    unreached: tuple[int, ...]
    gradients: TaskGradients | None


class Measurement(ABC):
    """Observes how hard each task would pull on the shared parameters.

    Subclasses are frozen dataclasses: settings only. Measuring never writes into ``.grad``.
    """

    @abstractmethod
    def __call__(
        self, graph: LossGraph, *, gramian: bool = False, gradients: bool = False
    ) -> Observation:
        """Observe the K losses of ``graph``.

        Args:
            graph: the losses of the tasks present, and which parameters are shared.
            gramian: give the Gramian too.
            gradients: give the gradients of every leaf too, heads included. The graph is freed
                then, as no other backward pass is to follow; otherwise it is kept for one.
        """
