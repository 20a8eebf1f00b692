"""What the Balancer saw and did in one step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, final

import torch
from torch import Tensor

from gaba import measures

Combined = Literal["by-hand", "backward", "caller"]


@final
@dataclass(frozen=True, eq=False)
class Step:
    """What the Balancer saw and did in one step. Its tensors stay on the device until you ask.

    Attributes:
        tasks: the K names, in the order of every vector below.
        step: how many steps came before this one.
        measured: whether the norms were measured in this step.
        combined: how the gradient reached ``.grad``: ``"by-hand"`` from the gradients of the tasks,
            ``"backward"`` by one weighted backward pass, ``"caller"`` if the caller does it.
        losses: (K,), L_k; NaN for a missing task.
        norms: (K,), g_k as measured; NaN for a missing task and without measurement.
        multipliers: (K,), m_k: the update is Σ m_k ∇L_k. NaN for a missing task.
        saturated: (K,), bool: the multiplier is at its limit, or the weight at its floor.
        finite: (), bool: losses and norms were finite. If not, nothing was learnt from the step.
        gramian: (K, K), ⟨∇L_k, ∇L_l⟩, where it was measured; NaN for a missing task.
        about: what holds for many steps, in words: ``"metric"``, ``"measurement"``, ``"reason"``.
        time: when the step was recorded, in seconds since 1970.
    """

    tasks: tuple[str, ...]
    step: int
    measured: bool
    combined: Combined
    losses: Tensor
    norms: Tensor
    multipliers: Tensor
    saturated: Tensor
    finite: Tensor
    gramian: Tensor | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    time: float = field(default_factory=time.time)

    @property
    def weights(self) -> Tensor:
        """(K,), λ_k = m_k / Σ m over the tasks present; 0 for a missing task."""
        total = self._present.sum()
        return self._present / torch.where(total == 0, 1.0, total)

    @property
    def contributions(self) -> Tensor:
        """(K,), c_k = m_k g_k, how hard each task really pulls; NaN where the norm is."""
        return measures.contributions(self.multipliers, self.norms)

    @property
    def imbalance(self) -> Tensor:
        """(), max c / min c over the tasks present; 1 is balanced, NaN without measurement."""
        return measures.imbalance(self._present, self.norms)

    @property
    def shares(self) -> Tensor:
        """(K,), s_k = m_k (Gm)_k / Σ_j m_j (Gm)_j; 0 for a missing task, NaN without Gramian."""
        if self.gramian is None:
            return torch.full_like(self.multipliers, math.nan)
        away = self.multipliers.isnan()
        known = torch.where(away[:, None] | away, 0.0, self.gramian)
        return measures.shares(self._present, known)

    @property
    def cosines(self) -> Tensor | None:
        """(K, K), cos(∇L_k, ∇L_l) where the Gramian was measured; NaN for missing tasks."""
        return None if self.gramian is None else cosines_of(self.gramian)

    @property
    def _present(self) -> Tensor:
        """The multipliers, 0 for a missing task."""
        return torch.where(self.multipliers.isnan(), 0.0, self.multipliers)

    def asdict(self) -> dict[str, Any]:
        """Plain numbers by task name, ``None`` for what is not finite. Waits for the device.

        ``shares`` and ``cosines`` are there if the Gramian was measured.
        """
        k, cosines = len(self.tasks), self.cosines
        names = ["losses", "norms", "multipliers", "weights", "contributions", "saturated"]
        parts = [self.finite.reshape(1), self.imbalance.reshape(1)]
        if cosines is not None:
            names.append("shares")
            parts.append(cosines.flatten())
        parts = [*(getattr(self, name) for name in names), *parts]
        numbers = torch.cat([part.to(self.multipliers.dtype) for part in parts]).tolist()
        vectors = {name: numbers[i * k : (i + 1) * k] for i, name in enumerate(names)}
        finite, imbalance, *rest = numbers[len(names) * k :]
        saturated = (bool(value) for value in vectors.pop("saturated"))
        found = {
            "step": self.step,
            "measured": self.measured,
            "combined": self.combined,
            "finite": bool(finite),
            **{name: self._named(_plain(values)) for name, values in vectors.items()},
            "saturated": self._named(saturated),
            "imbalance": next(_plain([imbalance])),
        }
        if cosines is not None:
            found["cosines"] = [list(_plain(rest[i * k : (i + 1) * k])) for i in range(k)]
        return found

    def _named(self, values: Iterable[Any]) -> dict[str, Any]:
        return dict(zip(self.tasks, values, strict=True))


def cosines_of(gramian: Tensor) -> Tensor:
    """cos(∇L_k, ∇L_l) from the Gramian, both (..., K, K); NaN where a gradient is 0 or unknown."""
    length = gramian.diagonal(dim1=-2, dim2=-1).sqrt()
    return gramian / (length[..., None] * length[..., None, :])


def _plain(values: Iterable[float]) -> Iterator[float | None]:
    return (value if math.isfinite(value) else None for value in values)
