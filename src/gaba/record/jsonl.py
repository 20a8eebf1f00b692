"""What happened in a step, and the JSONL file of a run."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, final

import torch
from torch import Tensor

from gaba import measures

Combined = Literal["by-hand", "backward", "caller"]
COLUMNS = ("losses", "norms", "weights", "saturated")  # of K values each; then gain and finite


@final
@dataclass(frozen=True, eq=False)
class Step:
    """What the Balancer saw and did in one step; tensors stay on the device until asked for.

    Attributes:
        tasks: the K names, in the order of every vector below.
        step: how many steps came before this one.
        measured: whether the norms were measured in this step.
        combined: how the gradient reached ``.grad``: ``"by-hand"`` from the per-task gradients,
            ``"backward"`` by one weighted backward pass, ``"caller"`` if the caller does that.
        losses: (K,), L_k; NaN for a missing task.
        norms: (K,), g_k as measured, before any stabiliser; NaN if missing or not measured.
        weights: (K,), λ_k ≥ 0, Σλ = 1; 0 for a missing task.
        saturated: (K,), bool: the weight sits on its floor.
        gain: (), the common factor of the update: the gradient is gain · Σ λ_k ∇L_k.
        finite: (), bool: whether losses and norms were finite; if not, nothing was learnt from
            this step.
        gramian: (K, K) as measured, if the weighting needs it; NaN for a missing task.
        about: what holds for many steps, in words: ``"metric"``, ``"measurement"``, and why the
            latter was chosen if it chose itself.
        time: when it was recorded, in seconds since 1970.
    """

    tasks: tuple[str, ...]
    step: int
    measured: bool
    combined: Combined
    losses: Tensor
    norms: Tensor
    weights: Tensor
    saturated: Tensor
    gain: Tensor
    finite: Tensor
    gramian: Tensor | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    time: float = field(default_factory=time.time)

    @property
    def cosines(self) -> Tensor | None:
        """(K, K), cos(∇L_k, ∇L_l) where the Gramian was measured; NaN for missing tasks."""
        if self.gramian is None:
            return None
        length = self.gramian.diagonal().sqrt()
        return self.gramian / (length[:, None] * length)

    @property
    def contributions(self) -> Tensor:
        """(K,), c_k = λ_k g_k; NaN where the norm is."""
        return measures.contributions(self.weights, self.norms)

    @property
    def imbalance(self) -> Tensor:
        """(), max c / min c over the tasks that are present."""
        return measures.imbalance(self.weights, self.norms)

    def asdict(self) -> dict[str, Any]:
        """Plain numbers by task name; ``None`` for what is not finite. Waits for the device."""
        found = torch.cat([row(self), self.imbalance.reshape(1)]).tolist()
        k = len(self.tasks)
        parts = [found[i * k : (i + 1) * k] for i in range(len(COLUMNS))]
        losses, norms, weights, saturated = parts
        gain, finite, imbalance = found[-3:]
        contributions = [w * g for w, g in zip(weights, norms, strict=True)]
        described = {
            "step": self.step,
            "measured": self.measured,
            "combined": self.combined,
            "finite": bool(finite),
            "losses": self._named(losses),
            "norms": self._named(norms),
            "weights": self._named(weights),
            "contributions": self._named(contributions),
            "saturated": {task: bool(s) for task, s in zip(self.tasks, saturated, strict=True)},
            "gain": _number(gain),
            "imbalance": _number(imbalance),
        }
        cosines = self.cosines
        if cosines is not None:
            described["cosines"] = [[_number(c) for c in line] for line in cosines.tolist()]
        return described

    def _named(self, values: Iterable[float]) -> dict[str, float | None]:
        return {task: _number(v) for task, v in zip(self.tasks, values, strict=True)}


def row(step: Step) -> Tensor:
    """The vectors of ``COLUMNS``, gain and finite of ``step`` in one: (4K + 2,)."""
    like = step.weights
    vectors = [getattr(step, name).to(like.dtype) for name in COLUMNS]
    return torch.cat([*vectors, step.gain.to(like).reshape(1), step.finite.to(like).reshape(1)])


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


@final
class RunRecord:
    """The JSONL file of a run, a line a step, written as the run goes on.

    The first line is ``{"gaba": version, "tasks": [...], "meta": {...}}``. A line
    ``{"about": {...}}`` holds :attr:`Step.about` of the steps that follow. Each other line is
    :meth:`Step.asdict` and ``"time"``, seconds since 1970.

    Args:
        path: the file; a new one is made, with its folder.
        tasks: the K names.
        meta: whatever should be known about the run, as JSON.
        resume_at: go on with an existing file: its steps from this number on are dropped, as they
            are about to be made again.

    Raises:
        FileExistsError: the file exists and ``resume_at`` is not given.
        ValueError: the existing file is of other tasks, or malformed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        tasks: Sequence[str],
        meta: Mapping[str, Any] | None = None,
        resume_at: int | None = None,
    ) -> None:
        self.path: Path = Path(path)
        self.tasks: tuple[str, ...] = tuple(tasks)
        self._about: dict[str, str] = {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if resume_at is not None and self.path.exists():
            kept = self._kept(resume_at)
            for line in kept[1:]:
                self._about = json.loads(line).get("about", self._about)
            partial = self.path.with_name(self.path.name + ".partial")
            partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
            partial.replace(self.path)
            self._file: IO[str] = self.path.open("a", encoding="utf-8")
        else:
            if self.path.exists():
                raise FileExistsError(
                    f"{self.path} exists: resume the run, delete the file or choose another path"
                )
            self._file = self.path.open("x", encoding="utf-8")
            header = {"gaba": gaba_version(), "tasks": list(self.tasks), "meta": dict(meta or {})}
            self._line(header)

    def _kept(self, resume_at: int) -> list[str]:
        lines = whole_lines(self.path)
        found = tuple(header_of(self.path, lines)["tasks"])
        if found != self.tasks:
            raise ValueError(f"{self.path} is of the tasks {found}, expected {self.tasks}")
        return [
            lines[0],
            *(line for line in lines[1:] if json.loads(line).get("step", -1) < resume_at),
        ]

    def write(self, step: Step) -> None:
        """Append ``step`` and hand the line to the system. Waits for the device."""
        if step.about != self._about:
            self._about = dict(step.about)
            self._line({"about": self._about})
        self._line({**step.asdict(), "time": round(step.time, 4)})

    def _line(self, value: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(value, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> RunRecord:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def gaba_version() -> str:
    """The version of this library."""
    return metadata.version("gaba")


def whole_lines(path: Path) -> list[str]:
    """The lines of ``path`` that end in a line feed; one that is still being written is not."""
    *whole, _cut = path.read_text(encoding="utf-8").split("\n")
    return whole


def header_of(path: Path, lines: Sequence[str]) -> dict[str, Any]:
    """The first of ``lines``, the header of the record ``path``."""
    try:
        header = json.loads(lines[0])
        _ = header["gaba"], header["tasks"]
    except (ValueError, KeyError, TypeError, IndexError):
        raise ValueError(
            f"{path}, line 1: not the header of a gaba record "
            '({"gaba": version, "tasks": [...], "meta": {...}}): give the history.jsonl of a run'
        ) from None
    return header


def parse_line(
    text: str, tasks: tuple[str, ...], about: Mapping[str, str], where: str
) -> Step | dict[str, str]:
    """The step of this line of a record, with ``about``; or what the line says about later steps.

    Raises:
        ValueError: it is no such thing; the message starts with ``where``.
    """
    try:
        line = json.loads(text)
        if "about" in line:
            return {str(name): str(value) for name, value in line["about"].items()}
        cosines = line.get("cosines")
        vectors = {name: _vector(line[name], tasks) for name in COLUMNS}
        return Step(
            tasks=tasks,
            step=int(line["step"]),
            measured=bool(line["measured"]),
            combined=line["combined"],
            losses=vectors["losses"],
            norms=vectors["norms"],
            weights=vectors["weights"],
            saturated=vectors["saturated"] > 0,
            gain=_vector({"gain": line["gain"]}, ("gain",))[0],
            finite=torch.tensor(bool(line["finite"])),
            gramian=None if cosines is None else _gramian(cosines, vectors["norms"]),
            about=about,
            time=float(line.get("time", math.nan)),
        )
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{where}: not a step of the tasks {tasks} ({error}): delete the line, or record the "
            "run anew"
        ) from None


def _vector(by_task: Mapping[str, float | None], tasks: Sequence[str]) -> Tensor:
    found = (by_task[task] for task in tasks)
    return torch.tensor([math.nan if v is None else v for v in found], dtype=torch.float64)


def _gramian(cosines: Sequence[Sequence[float | None]], norms: Tensor) -> Tensor:
    numbers = [[math.nan if c is None else c for c in line] for line in cosines]
    found = torch.tensor(numbers, dtype=norms.dtype)
    if found.shape != (len(norms), len(norms)):
        raise ValueError(f"cosines of shape {tuple(found.shape)}")
    return found * (norms[:, None] * norms)
