"""The steps of a run as columns."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from gaba import measures
from gaba.record import _show
from gaba.extras import library
from gaba.record.jsonl import COLUMNS, Combined, RunRecord, Step, header_of, parse_line, row, whole_lines

_CHUNK = 256


@final
class History:
    """The steps of a run as columns: 8 · (4K + 2) bytes a step, whatever the model.

    Steps are gathered on their device and fetched 256 at a time, so that recording does not wait
    for it. Recording observes: it never alters what is computed.

    Args:
        tasks: the K names.

    Example:
        >>> import torch, gaba
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> balancer = gaba.Balancer(["a", "b"], shared=[w])
        >>> _ = balancer.backward({"a": w.sum(), "b": 3 * w.sum()})
        >>> balancer.history.weights.round(4).tolist()
        [[0.75, 0.25]]
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks: tuple[str, ...] = tuple(tasks)
        self._steps: list[int] = []
        self._measured: list[bool] = []
        self._combined: list[Combined] = []
        self._times: list[float] = []
        self._cosines: dict[int, Tensor] = {}
        self.about: dict[str, str] = {}
        """What the last step said holds for many: the metric, the measurement, and why."""
        self._done: list[np.ndarray[Any, np.dtype[np.float64]]] = []
        self._open: list[Tensor] = []

    def append(self, step: Step) -> None:
        """Record ``step``.

        Raises:
            ValueError: the step is of other tasks.
        """
        if step.tasks != self.tasks:
            raise ValueError(f"step must be of the tasks {self.tasks}, found {step.tasks}")
        self._steps.append(step.step)
        self._measured.append(step.measured)
        self._combined.append(step.combined)
        self._times.append(step.time)
        self.about = dict(step.about)
        if (cosines := step.cosines) is not None:
            self._cosines[len(self._steps) - 1] = cosines
        self._open.append(row(step))
        if len(self._open) == _CHUNK:
            self._fetch()

    def _fetch(self) -> None:
        if self._open:
            self._done.append(torch.stack(self._open).cpu().numpy().astype(np.float64))
            self._open = []

    def _table(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        self._fetch()
        if len(self._done) != 1:
            width = len(COLUMNS) * len(self.tasks) + 2
            self._done = [np.concatenate(self._done or [np.empty((0, width))])]
        return self._done[0]

    def _vectors(self, name: str) -> np.ndarray[Any, Any]:
        start = COLUMNS.index(name) * len(self.tasks)
        return self._table()[:, start : start + len(self.tasks)]

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def steps(self) -> np.ndarray[Any, Any]:
        """(N,), the number of each step."""
        return np.asarray(self._steps, dtype=np.int64)

    @property
    def measured(self) -> np.ndarray[Any, Any]:
        """(N,), bool: whether the norms were measured."""
        return np.asarray(self._measured, dtype=bool)

    @property
    def losses(self) -> np.ndarray[Any, Any]:
        """(N, K), L_k; NaN for a missing task."""
        return self._vectors("losses")

    @property
    def norms(self) -> np.ndarray[Any, Any]:
        """(N, K), g_k; NaN for a missing task and for a step without measurement."""
        return self._vectors("norms")

    @property
    def weights(self) -> np.ndarray[Any, Any]:
        """(N, K), λ_k; 0 for a missing task."""
        return self._vectors("weights")

    @property
    def contributions(self) -> np.ndarray[Any, Any]:
        """(N, K), c_k = λ_k g_k."""
        return measures.contributions(self.weights, self.norms)

    @property
    def saturated(self) -> np.ndarray[Any, Any]:
        """(N, K), bool: the weight sat on its floor."""
        return self._vectors("saturated") > 0

    @property
    def gain(self) -> np.ndarray[Any, Any]:
        """(N,), the common factor of the update."""
        return self._table()[:, -2]

    @property
    def finite(self) -> np.ndarray[Any, Any]:
        """(N,), bool: losses and norms were finite."""
        return self._table()[:, -1] > 0

    @property
    def imbalance(self) -> np.ndarray[Any, Any]:
        """(N,), max c / min c over the tasks present; NaN without measurement."""
        return measures.imbalance(self.weights, self.norms)

    @property
    def times(self) -> np.ndarray[Any, Any]:
        """(N,), when each step was recorded, in seconds since 1970; NaN where that is not known."""
        return np.asarray(self._times, dtype=np.float64)

    @property
    def cosines(self) -> np.ndarray[Any, Any]:
        """(N, K, K), cos(∇L_k, ∇L_l); NaN where the Gramian was not measured."""
        k = len(self.tasks)
        whole = np.full((len(self), k, k), np.nan)
        for i, cosines in self._cosines.items():
            whole[i] = cosines.cpu().numpy()
        return whole

    def to_pandas(self) -> Any:
        """The steps as a ``pandas.DataFrame`` with the step as its index.

        Its columns are ``measured``, ``finite``, ``gain``, ``imbalance``, ``times``, then
        ``losses/TASK``, ``norms/TASK``, ``weights/TASK``, ``contributions/TASK`` and
        ``saturated/TASK``, and where measured ``cosines/TASK/OTHER``.

        Raises:
            ImportError: pandas is not installed: ``pip install "gaba[parquet]"``.

        Example:
            >>> import gaba
            >>> frame = gaba.History(["rul", "health"]).to_pandas()
            >>> frame.index.name, len(frame), "weights/rul" in frame.columns
            ('step', 0, True)
        """
        pandas = library("pandas", "to_pandas needs", "parquet")
        return pandas.DataFrame(_show.columns(self), index=pandas.Index(self.steps, name="step"))

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`to_pandas` as a Parquet file, whole or not at all.

        Raises:
            ImportError: pandas or pyarrow is not installed: ``pip install "gaba[parquet]"``.

        Example:
            >>> import gaba
            >>> gaba.History(["a", "b"]).to_parquet("run.parquet")  # doctest: +SKIP
        """
        library("pyarrow", "to_parquet needs", "parquet")
        target = Path(path)
        partial = target.with_name(target.name + ".partial")
        self.to_pandas().to_parquet(partial, engine="pyarrow")
        partial.replace(target)

    def _repr_html_(self) -> str:
        return _show.as_html(self)

    def write(self, path: str | os.PathLike[str], meta: Mapping[str, Any] | None = None) -> None:
        """Write the history as the JSONL file of a run, whole or not at all."""
        target = Path(path)
        partial = target.with_name(target.name + ".partial")
        partial.unlink(missing_ok=True)
        with RunRecord(partial, self.tasks, meta) as record:
            for i in range(len(self)):
                record.write(self._step(i))
        partial.replace(target)

    def _step(self, i: int) -> Step:
        vectors = {name: torch.from_numpy(self._vectors(name)[i].copy()) for name in COLUMNS}
        return Step(
            tasks=self.tasks,
            step=self._steps[i],
            measured=self._measured[i],
            combined=self._combined[i],
            losses=vectors["losses"],
            norms=vectors["norms"],
            weights=vectors["weights"],
            saturated=vectors["saturated"] > 0,
            gain=torch.tensor(self.gain[i]),
            finite=torch.tensor(bool(self._table()[i, -1] > 0)),
            gramian=self._gramian(i, vectors["norms"]),
            about=self.about,
            time=self._times[i],
        )

    def _gramian(self, i: int, norms: Tensor) -> Tensor | None:
        cosines = self._cosines.get(i)
        return None if cosines is None else cosines.cpu() * (norms[:, None] * norms)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> History:
        """The history in the JSONL file ``path``, which may still be written to.

        A last line that is cut short is left out.

        Raises:
            ValueError: a line is not a record of such a file; the message names file and line.
        """
        lines = whole_lines(Path(path))
        history = cls(header_of(Path(path), lines)["tasks"])
        for number, line in enumerate(lines[1:], start=2):
            found = parse_line(line, history.tasks, history.about, f"{path}, line {number}")
            if isinstance(found, Step):
                history.append(found)
            else:
                history.about = found
        return history
