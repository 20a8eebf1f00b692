"""Steps as columns, under the names of a ``gaba.History``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast, final

import numpy as np
from numpy.typing import NDArray

import gaba
from gaba.record import diagnosis
from gaba.web._parse import SCALARS, VECTORS, Floats


@final
@dataclass(frozen=True)
class Columns:
    """Steps as columns of the names and shapes of :class:`gaba.History`."""

    tasks: tuple[str, ...]
    table: Floats
    cosines: Floats
    about: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """N, the number of steps."""
        return len(self.table)

    def _scalar(self, name: str) -> Floats:
        return self.table[:, SCALARS.index(name)]

    def _vector(self, name: str) -> Floats:
        k = len(self.tasks)
        start = len(SCALARS) + VECTORS.index(name) * k
        return self.table[:, start : start + k]

    @property
    def steps(self) -> NDArray[np.int64]:
        """(N,), the number of each step."""
        return self._scalar("step").astype(np.int64)

    @property
    def measured(self) -> NDArray[np.bool_]:
        """(N,), whether the norms were measured."""
        return self._scalar("measured") > 0

    @property
    def finite(self) -> NDArray[np.bool_]:
        """(N,), losses and norms were finite."""
        return self._scalar("finite") > 0

    @property
    def gain(self) -> Floats:
        """(N,), the common factor of the update."""
        return self._scalar("gain")

    @property
    def times(self) -> Floats:
        """(N,), seconds since 1970; NaN where the record has no times."""
        return self._scalar("time")

    @property
    def losses(self) -> Floats:
        """(N, K), L_k."""
        return self._vector("losses")

    @property
    def norms(self) -> Floats:
        """(N, K), g_k."""
        return self._vector("norms")

    @property
    def weights(self) -> Floats:
        """(N, K), λ_k."""
        return self._vector("weights")

    @property
    def saturated(self) -> NDArray[np.bool_]:
        """(N, K), the weight sat on its floor."""
        return self._vector("saturated") > 0

    @property
    def contributions(self) -> Floats:
        """(N, K), c_k = λ_k g_k."""
        return np.asarray(gaba.contributions(self.weights, self.norms))

    @property
    def imbalance(self) -> Floats:
        """(N,), max c / min c."""
        return np.asarray(gaba.imbalance(self.weights, self.norms))

    def diagnose(self) -> diagnosis.Diagnosis | None:
        """What these steps say; None if there are none."""
        return diagnosis.diagnose(cast("gaba.History", self)) if len(self) else None


def cosines_of(found: Floats | None, steps: int, tasks: int) -> Floats:
    """The cosines (N, K, K); NaN, and no memory, where none were measured."""
    return np.broadcast_to(np.nan, (steps, tasks, tasks)) if found is None else found


def all_cosines(pieces: Sequence[Floats | None], tables: Sequence[Floats]) -> Floats | None:
    """The cosines of all ``tables``, or None where none were measured."""
    shapes = [found.shape[1] for found in pieces if found is not None]
    if not shapes:
        return None
    pairs = zip(pieces, tables, strict=True)
    return np.concatenate([cosines_of(found, len(table), shapes[0]) for found, table in pairs])
