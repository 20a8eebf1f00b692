"""The steps of a run as columns."""

from __future__ import annotations

import html
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gaba import measures
from gaba.extras import library
from gaba.record._rows import Floats, Rows
from gaba.record.jsonl import (
    COMBINED,
    ENDING,
    ENGINES,
    SCALARS,
    VECTORS,
    Row,
    RunRecord,
    header,
    parse_lines,
    whole_lines,
)
from gaba.record.step import Step, cosines_of

KEEP = 100_000
_CHUNK = 256
_COSINES = 8_000_000  # numbers; with many tasks, fewer steps than ``keep`` have their cosines

Bools = NDArray[np.bool_]


@final
class History:
    """The steps of a run as columns: 8 · (5K + 7) bytes a step, and 8 · K² where cosines are known.

    Steps are gathered on their device and fetched 256 at a time, so recording does not wait for it.
    ``history[-1]`` is a :class:`Step`, ``history[-100:]`` a History.

    Args:
        tasks: the K names.
        keep: the newest steps that are all there. At most as many of the older ones are left,
            evenly spaced. None keeps all.

    Raises:
        ValueError: ``keep`` is less than 4.

    Example:
        >>> import torch, gaba
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> balancer = gaba.Balancer(["a", "b"], [w], "inverse")
        >>> _ = balancer.backward({"a": w.sum(), "b": 3 * w.sum()})
        >>> balancer.history.weights.round(4).tolist()
        [[0.75, 0.25]]
        >>> balancer.history
        History(1 step of a, b; imbalance 1 in the median step)
    """

    def __init__(self, tasks: Sequence[str], keep: int | None = KEEP) -> None:
        if keep is not None and keep < 4:
            raise ValueError(f"keep must be at least 4 steps, or None for all, found {keep}")
        self.tasks: tuple[str, ...] = tuple(tasks)
        self.about: dict[str, str] = {}
        """What the last step says of many: the metric, the measurement, and why."""
        k = len(self.tasks)
        self._rows = Rows(len(SCALARS) + len(VECTORS) * k, keep)
        few = None if keep is None else max(4, min(keep, _COSINES // max(1, k * k)))
        self._angles = Rows(1 + k * k, few)  # the number of the step, then its cosines
        self._others: dict[str, Rows] = {}  # each as long as the rows above
        self._groups: dict[str, Rows] = {}
        self._open: list[Step] = []

    # --- recording ------------------------------------------------------------------------------

    def append(self, step: Step) -> None:
        """Record ``step``. Does not wait for the device.

        Raises:
            ValueError: the step is of other tasks.
        """
        self._check(step)
        if len(self._open) == _CHUNK:
            self._fetch()
        self._open.append(step)
        self.about = dict(step.about)

    def amend(self, step: Step) -> None:
        """Record ``step`` in place of the last one, of which more is known now.

        What was read of the last one before stays as it was, and :meth:`since` does not give it
        again.

        Raises:
            ValueError: the step is of other tasks.

        Example:
            >>> import torch, gaba
            >>> w = torch.nn.Parameter(torch.ones(2))
            >>> balancer = gaba.Balancer(["a", "b"], [w], every=1)
            >>> for _ in range(2):  # the shares are known when the backward pass is over
            ...     balancer({"a": w[0], "b": 3 * w[1]}).backward()
            >>> balancer.history.engines.tolist()
            ['norms', 'products']
        """
        self._check(step)
        if self._open:
            self._open.pop()
        else:
            for rows in (self._rows, *self._others.values(), *self._groups.values()):
                rows.drop_last()
            angles = self._angles.values
            if len(angles) and angles[-1, 0] == self._rows.count:
                self._angles.drop_last()
        self.append(step)

    def _check(self, step: Step) -> None:
        if step.tasks != self.tasks:
            raise ValueError(f"step must be of the tasks {self.tasks}, found {step.tasks}")

    def add(self, rows: Sequence[Row], about: Mapping[str, str] | None = None) -> None:
        """Record the steps that lines of a record hold, with what they say of many steps."""
        self._fetch()
        if rows:
            numbers = np.array([row.numbers for row in rows], dtype=np.float64)
            _add_beside(self._others, [row.others or {} for row in rows], 1, self._rows)
            _add_beside(
                self._groups, [row.groups or {} for row in rows], len(self.tasks), self._rows
            )
            self._add(numbers, [row.cosines for row in rows])
        if about:
            self.about = {name: said for name, said in about.items() if name not in ENDING}

    def _fetch(self) -> None:
        if not self._open:
            return
        steps, self._open = self._open, []
        dtype = steps[0].multipliers.dtype
        finite = torch.stack([step.finite for step in steps])[:, None]
        vectors = [torch.stack([getattr(step, name) for step in steps]) for name in VECTORS]
        columns = [part.to(dtype) for part in (finite, *vectors)]
        scalars = [
            (s.step, s.measured, COMBINED.index(s.combined), ENGINES.index(s.engine), s.time)
            for s in steps
        ]
        known = [step.gramian for step in steps if step.gramian is not None]
        cosines = iter(cosines_of(torch.stack(known)).cpu().numpy() if known else ())
        _add_beside(self._others, _plain([step.others for step in steps]), 1, self._rows)
        groups = _plain([step.groups for step in steps])
        _add_beside(self._groups, groups, len(self.tasks), self._rows)
        self._add(
            np.hstack([scalars, torch.cat(columns, dim=1).cpu().numpy()]),
            [None if step.gramian is None else next(cosines).ravel() for step in steps],
        )

    def _add(self, rows: Floats, cosines: Sequence[Any]) -> None:
        places = [i for i, found in enumerate(cosines) if found is not None]
        if places:
            known = np.array([cosines[i] for i in places], dtype=np.float64)
            self._angles.add(np.column_stack([np.add(places, self._rows.count), known]))
        self._rows.add(rows)

    # --- reading --------------------------------------------------------------------------------

    @property
    def recorded(self) -> int:
        """How many steps were recorded. ``len(history)`` is less once old ones are thinned out."""
        numbers = self._rows.numbers
        return (int(numbers[-1] - numbers[0]) + 1 if len(numbers) else 0) + len(self._open)

    def since(self, cursor: int) -> tuple[History, int]:
        """The steps recorded after ``cursor`` of them, and the cursor for the next time.

        It takes as long as there are new steps, however long the history is. Begin with 0, or with
        :attr:`recorded` to leave out what is there.

        Example:
            >>> import gaba
            >>> new, cursor = gaba.History(["rul", "health"]).since(0)
            >>> len(new), cursor
            (0, 0)
        """
        self._fetch()
        first = int(np.searchsorted(self._rows.numbers, cursor))
        return self[first:], self._rows.count

    def __len__(self) -> int:
        self._fetch()
        return len(self._rows)

    def __iter__(self) -> Iterator[Step]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, at: int) -> Step: ...
    @overload
    def __getitem__(self, at: slice) -> History: ...
    def __getitem__(self, at: int | slice) -> Step | History:
        if isinstance(at, slice):
            return self._part(*at.indices(len(self)))
        if not -len(self) <= at < len(self):
            raise IndexError(f"step {at} of a history of {len(self):,} steps")
        return self._step(self._part(at % len(self), at % len(self) + 1, 1))

    def _part(self, first: int, last: int, step: int) -> History:
        if step < 1:
            raise ValueError(f"a history is read forwards, found a slice with the step {step}")
        found = History(self.tasks, self._rows.keep)
        found.about = dict(self.about)
        found._rows = self._rows.part(first, last, step)
        found._others = {n: rows.part(first, last, step) for n, rows in self._others.items()}
        found._groups = {n: rows.part(first, last, step) for n, rows in self._groups.items()}
        if len(found._rows):
            ends = found._rows.numbers[[0, -1]] + [0, 1]
            low, high = np.searchsorted(self._angles.values[:, 0], ends)
            found._angles = self._angles.part(int(low), int(high))
        return found

    @staticmethod
    def _step(one: History) -> Step:
        """The only step of ``one``."""
        vectors = {name: torch.from_numpy(one._vector(name)[0].copy()) for name in VECTORS}
        vectors["saturated"] = vectors["saturated"] > 0
        norms, cosines = vectors["norms"], one._cosines()
        gramian = (
            torch.from_numpy(cosines[1][0]) * (norms[:, None] * norms) if len(cosines[1]) else None
        )
        return Step(
            tasks=one.tasks,
            step=int(one.steps[0]),
            measured=bool(one.measured[0]),
            combined=one.combined[0].item(),
            engine=one.engines[0].item(),
            finite=torch.tensor(bool(one.finite[0])),
            gramian=gramian,
            others={
                name: torch.tensor(values[0])
                for name, values in one.others.items()
                if not np.isnan(values[0])
            },
            groups={
                name: torch.from_numpy(values[0].copy())
                for name, values in one.groups.items()
                if not np.isnan(values[0]).all()
            },
            about=one.about,
            time=float(one.times[0]),
            losses=vectors["losses"],
            norms=norms,
            multipliers=vectors["multipliers"],
            saturated=vectors["saturated"],
            shares=vectors["shares"],
        )

    # --- columns --------------------------------------------------------------------------------

    def _scalar(self, name: str) -> Floats:
        self._fetch()
        return self._rows.values[:, SCALARS.index(name)]

    def _vector(self, name: str) -> Floats:
        self._fetch()
        k = len(self.tasks)
        start = len(SCALARS) + VECTORS.index(name) * k
        return self._rows.values[:, start : start + k]

    def _cosines(self) -> tuple[NDArray[np.int64], Floats]:
        """Where the cosines are known, (M,), and these, (M, K, K)."""
        self._fetch()
        k, numbers, found = len(self.tasks), self._rows.numbers, self._angles.values
        of = found[:, 0].astype(np.int64)
        places = np.searchsorted(numbers, of)
        there = places < len(numbers)
        there[there] = numbers[places[there]] == of[there]
        return places[there], found[there, 1:].reshape(-1, k, k)

    @property
    def steps(self) -> NDArray[np.int64]:
        """(N,), the number of each step."""
        return self._scalar("step").astype(np.int64)

    @property
    def measured(self) -> Bools:
        """(N,), whether the norms were measured."""
        return self._scalar("measured") > 0

    @property
    def finite(self) -> Bools:
        """(N,), whether losses and norms were finite."""
        return self._scalar("finite") > 0

    @property
    def combined(self) -> NDArray[np.str_]:
        """(N,), ``"by-hand"``, ``"backward"`` or ``"caller"``, as in :class:`Step`."""
        return np.array(COMBINED)[self._scalar("combined").astype(np.int64)]

    @property
    def engines(self) -> NDArray[np.str_]:
        """(N,), what was measured: ``"norms"``, ``"products"``, ``"probe"`` or nothing, empty."""
        return np.array(ENGINES)[self._scalar("engine").astype(np.int64)]

    @property
    def times(self) -> Floats:
        """(N,), when each step was recorded, in seconds since 1970; NaN where that is not known."""
        return self._scalar("time")

    @property
    def losses(self) -> Floats:
        """(N, K), L_k; NaN for a missing task."""
        return self._vector("losses")

    @property
    def norms(self) -> Floats:
        """(N, K), g_k; NaN for a missing task and without measurement."""
        return self._vector("norms")

    @property
    def multipliers(self) -> Floats:
        """(N, K), m_k; NaN for a missing task."""
        return self._vector("multipliers")

    @property
    def saturated(self) -> Bools:
        """(N, K), the multiplier is at its limit, or the weight at its floor."""
        return self._vector("saturated") > 0

    @property
    def weights(self) -> Floats:
        """(N, K), λ_k = m_k / Σ m over the tasks present; 0 for a missing task."""
        total = self._present.sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):  # a file may hold an infinite multiplier
            return self._present / np.where(total == 0, 1, total)

    @property
    def contributions(self) -> Floats:
        """(N, K), c_k = m_k g_k; NaN where the norm is."""
        return measures.contributions(self.multipliers, self.norms)

    @property
    def imbalance(self) -> Floats:
        """(N,), max c / min c over the tasks present; NaN without measurement."""
        return measures.imbalance(self._present, self.norms)

    @property
    def cosines(self) -> Floats:
        """(N, K, K), cos(∇L_k, ∇L_l); NaN where the Gramian was not measured."""
        places, found = self._cosines()
        whole = np.full((len(self), *found.shape[1:]), np.nan)
        whole[places] = found
        return whole

    @property
    def shares(self) -> Floats:
        """(N, K), the part of the update that each task accounts for; NaN where it is not known."""
        return self._vector("shares")

    @property
    def others(self) -> dict[str, Floats]:
        """(N,) by name, the values of losses that are no tasks, fixed or observed; NaN if away."""
        self._fetch()
        return {name: rows.values[:, 0] for name, rows in self._others.items()}

    @property
    def groups(self) -> dict[str, Floats]:
        """(N, K) by part of the shared module, the norms there; NaN where not measured."""
        self._fetch()
        return {name: rows.values for name, rows in self._groups.items()}

    @property
    def _present(self) -> Floats:
        """(N, K), the multipliers, 0 for a missing task."""
        return np.nan_to_num(self.multipliers, nan=0, posinf=np.inf)

    # --- files and tables -----------------------------------------------------------------------

    @classmethod
    def read(cls, path: str | os.PathLike[str], keep: int | None = None) -> History:
        """The history in the JSONL file ``path``, which may still be written to.

        A last line that is cut short is left out.

        Args:
            path: the file of a :class:`gaba.RunRecord`, of this version or of 0.1.0.
            keep: as for a new History; all steps by default.

        Raises:
            ValueError: a line is not of such a file. The message names the file and the line.
        """
        first, *lines = whole_lines(path) or [b""]
        history = cls(header(first, path).tasks, keep)
        for start in range(0, len(lines), 10 * _CHUNK):
            piece = lines[start : start + 10 * _CHUNK]
            found = parse_lines(piece, history.tasks, path, first=start + 2)
            if found.error:
                raise ValueError(found.error)
            history.add(found.rows, found.about)
        return history

    def write(self, path: str | os.PathLike[str], meta: Mapping[str, Any] | None = None) -> None:
        """Write the history as the JSONL file of a run, whole or not at all."""
        target = Path(path)
        partial = target.with_name(target.name + ".partial")
        partial.unlink(missing_ok=True)
        with RunRecord(partial, self.tasks, meta) as record:
            for step in self:
                record.write(step)
        partial.replace(target)

    def to_pandas(self) -> Any:
        """The steps as a ``pandas.DataFrame`` with the step as its index.

        Its columns are ``measured``, ``combined``, ``finite``, ``imbalance``, ``times``, then
        ``losses/TASK`` and so on for norms, multipliers, weights, contributions and saturated, and
        where they are known ``shares/TASK``, ``others/NAME`` and ``cosines/TASK/OTHER``.

        Raises:
            ImportError: pandas is not installed: ``pip install "gaba[parquet]"``.

        Example:
            >>> import gaba
            >>> frame = gaba.History(["rul", "health"]).to_pandas()
            >>> frame.index.name, len(frame), "weights/rul" in frame.columns
            ('step', 0, True)
        """
        pandas = library("pandas", "to_pandas needs", "parquet")
        names = ["losses", "norms", "multipliers", "weights", "contributions", "saturated"]
        scalars = ("measured", "combined", "finite", "imbalance", "times")
        columns = {name: getattr(self, name) for name in scalars}
        places, found = self._cosines()
        shown = [*names, "shares"] if np.isfinite(self.shares).any() else names
        for name in shown:
            values = getattr(self, name)
            columns |= {f"{name}/{task}": values[:, k] for k, task in enumerate(self.tasks)}
        columns |= {f"others/{name}": values for name, values in self.others.items()}
        for i, j in zip(*np.triu_indices(len(self.tasks), 1), strict=True):
            if np.isfinite(found[:, i, j]).any():
                column = np.full(len(self), np.nan)
                column[places] = found[:, i, j]
                columns[f"cosines/{self.tasks[i]}/{self.tasks[j]}"] = column
        return pandas.DataFrame(columns, index=pandas.Index(self.steps, name="step"))

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

    # --- how it shows itself --------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"History({self._summary()})"

    def _summary(self) -> str:
        n, k, whole = len(self), len(self.tasks), self.recorded
        thinned = f"{n:,} of " if n < whole else ""
        of = ", ".join(self.tasks) if k <= 6 else f"{k} tasks"
        imbalance = self.imbalance
        known = imbalance[~np.isnan(imbalance)]
        said = f"; imbalance {np.median(known):.3g} in the median step" if known.size else ""
        steps = f"{whole:,} step{'s' * (whole != 1)}"
        return f"{thinned}{steps} of {of}{said}"

    def _repr_html_(self) -> str:
        if not len(self):
            return f"<p>{html.escape(self._summary())}</p>"
        names = ("losses", "norms", "multipliers", "weights", "contributions")
        last = [getattr(self[-1:], name)[0] for name in names]
        held = self.saturated.mean(axis=0)
        heads = ("", "loss", "norm", "multiplier", "weight", "contribution", "saturated")
        rows = [
            [task, *("–" if np.isnan(v[k]) else f"{v[k]:.4g}" for v in last), f"{held[k]:.1%}"]
            for k, task in enumerate(self.tasks)
        ]
        body = "".join(
            f"<tr><th>{html.escape(row[0])}</th>"
            + "".join(f"<td>{value}</td>" for value in row[1:])
            + "</tr>"
            for row in rows
        )
        return (
            f"<table><caption>{html.escape(self._summary())}. The last step, and in how many steps "
            "the multiplier was at its limit.</caption><thead><tr>"
            + "".join(f"<th>{name}</th>" for name in heads)
            + f"</tr></thead><tbody>{body}</tbody></table>"
        )


def _plain(steps: Sequence[Mapping[str, Tensor]]) -> list[dict[str, list[float]]]:
    """The values that stand beside those of the tasks, by step, with one look at the device."""
    found = [value.double().reshape(-1) for named in steps for value in named.values()]
    numbers = iter(torch.cat(found).tolist() if found else ())
    return [
        {name: [next(numbers) for _ in range(value.numel())] for name, value in named.items()}
        for named in steps
    ]


def _add_beside(
    columns: dict[str, Rows], steps: Sequence[Mapping[str, list[float]]], width: int, rows: Rows
) -> None:
    """Add a row a step to each of ``columns``, before the steps are added to ``rows``."""
    for name in {name: None for found in steps for name in found} | columns:
        if name not in columns:
            columns[name] = Rows(width, rows.keep)
            columns[name].add(np.full((rows.count, width), np.nan))
        away = [math.nan] * width
        values = [found.get(name, away) for found in steps]
        columns[name].add(np.array(values, dtype=np.float64).reshape(len(values), width))
