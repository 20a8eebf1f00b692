"""What the trainings have in common whose losses are means over the examples of a batch."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from gaba.bench.problem import Session


class ByExample(Session):
    """A training that takes both forms of its losses from the losses by example.

    A subclass gives ``_each``, and sets ``_features`` in it if the shared part gives one tensor.
    """

    _features: Tensor | None = None

    @property
    def features(self) -> Tensor | None:
        return self._features

    @abstractmethod
    def _each(self) -> dict[str, Tensor]:
        """The losses of the next batch by task, each by example, (N,) with N even."""

    def losses(self) -> dict[str, Tensor]:
        return {task: each.mean() for task, each in self._each().items()}

    def losses_of_halves(self) -> dict[str, Tensor]:
        return {task: each.reshape(2, -1).mean(dim=1) for task, each in self._each().items()}
