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
Engine = Literal["", "norms", "products", "probe"]


@final
@dataclass(frozen=True, eq=False, repr=False)
class Step:
    """What the Balancer saw and did in one step. Its tensors stay on the device until you ask.

    Attributes:
        tasks: the K names, in the order of every vector below.
        step: how many steps came before this one.
        measured: whether the norms were measured in this step.
        combined: how the gradient reached ``.grad``: ``"by-hand"`` from the gradients of the tasks,
            ``"backward"`` by one weighted backward pass, ``"caller"`` if the caller does it.
        losses: (K,), L_k; NaN for a missing task.
        norms: (K,), g_k as measured, or the effective norms ĝ_k where the engine is ``"products"``
            or ``"probe"``; NaN for a missing task and without measurement.
        multipliers: (K,), m_k: the update is Σ m_k ∇L_k. NaN for a missing task.
        saturated: (K,), bool: the multiplier is at its limit, or the weight at its floor.
        finite: (), bool: losses and norms were finite. If not, nothing was learnt from the step.
        gramian: (K, K), ⟨∇L_k, ∇L_l⟩, where it was measured; NaN for a missing task.
        shares: (K,), s_k, the part of the update that each task accounts for, of sum 1; NaN where
            neither the Gramian nor the products ⟨∇L_k, u⟩ were measured.
        engine: what was measured: ``"norms"``, or ``"products"`` along the update, from gradients
            or by a ``"probe"``; empty without measurement.
        others: the values () of losses that are no tasks, fixed or observed, by name.
        groups: (K,) by part of the shared module, the norms g_k of its parameters alone.
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
    shares: Tensor = None  # pyright: ignore[reportAssignmentType]  # never None once it is made
    engine: Engine = ""
    others: Mapping[str, Tensor] = field(default_factory=dict)
    groups: Mapping[str, Tensor] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    time: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        if self.shares is None:
            object.__setattr__(self, "shares", self._shares())

    def _shares(self) -> Tensor:
        """From the Gramian; 0 for a missing task."""
        if self.gramian is None:
            return torch.full_like(self.multipliers, math.nan)
        away = self.multipliers.isnan()
        known = torch.where(away[:, None] | away, 0.0, self.gramian)
        return measures.shares(self._present, known)

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
    def cosines(self) -> Tensor | None:
        """(K, K), cos(∇L_k, ∇L_l) where the Gramian was measured; NaN for missing tasks."""
        return None if self.gramian is None else cosines_of(self.gramian)

    @property
    def _present(self) -> Tensor:
        """The multipliers, 0 for a missing task."""
        return torch.where(self.multipliers.isnan(), 0.0, self.multipliers)

    def asdict(self) -> dict[str, Any]:
        """Plain numbers by task name, ``None`` for what is not finite. Waits for the device.

        ``shares`` are there if they are known, ``cosines`` if the Gramian was measured.
        """
        k, cosines = len(self.tasks), self.cosines
        names = ["losses", "norms", "multipliers", "weights", "contributions", "shares"]
        names.append("saturated")
        parts = [self.finite.reshape(1), self.imbalance.reshape(1)]
        beside = (*self.others.values(), *self.groups.values())
        parts += [value.reshape(-1).to(self.multipliers) for value in beside]
        if cosines is not None:
            parts.append(cosines.flatten())
        parts = [*(getattr(self, name) for name in names), *parts]
        numbers = torch.cat([part.to(self.multipliers.dtype) for part in parts]).tolist()
        vectors = {name: numbers[i * k : (i + 1) * k] for i, name in enumerate(names)}
        finite, imbalance, *rest = numbers[len(names) * k :]
        n, m = len(self.others), k * len(self.groups)
        others = dict(zip(self.others, _plain(rest[:n]), strict=True))
        groups, rest = rest[n : n + m], rest[n + m :]
        saturated = (bool(value) for value in vectors.pop("saturated"))
        if not any(math.isfinite(share) and share != 0 for share in vectors["shares"]):
            del vectors["shares"]  # 0 is that of a missing task
        found = {
            "step": self.step,
            "measured": self.measured,
            "engine": self.engine,
            "combined": self.combined,
            "finite": bool(finite),
            **{name: self._named(_plain(values)) for name, values in vectors.items()},
            "saturated": self._named(saturated),
            "imbalance": next(_plain([imbalance])),
        }
        if others:
            found["others"] = others
        if groups:
            found["groups"] = {
                name: self._named(_plain(groups[i * k : (i + 1) * k]))
                for i, name in enumerate(self.groups)
            }
        if cosines is not None:
            found["cosines"] = [list(_plain(rest[i * k : (i + 1) * k])) for i in range(k)]
        return found

    def __repr__(self) -> str:
        """What a person wants to see of it. Waits for the device."""
        found = self.asdict()
        shown = [n for n in ("losses", "norms", "multipliers", "shares") if n in found]
        parts = [
            f"{name} {', '.join('–' if v is None else f'{v:.4g}' for v in found[name].values())}"
            for name in shown
            if any(value is not None for value in found[name].values())
        ]
        return f"Step {self.step} of {', '.join(self.tasks)}: {'; '.join(parts)}"

    def _named(self, values: Iterable[Any]) -> dict[str, Any]:
        return dict(zip(self.tasks, values, strict=True))


def cosines_of(gramian: Tensor) -> Tensor:
    """cos(∇L_k, ∇L_l) from the Gramian, both (..., K, K); NaN where a gradient is 0 or unknown."""
    length = gramian.diagonal(dim1=-2, dim2=-1).sqrt()
    return gramian / (length[..., None] * length[..., None, :])


def _plain(values: Iterable[float]) -> Iterator[float | None]:
    return (value if math.isfinite(value) else None for value in values)
