"""Rules that other fields wrote by hand: image and audio codecs, physics-informed networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor

from gaba.pieces import Seen
from gaba.rules._settings import (
    check_count,
    check_each,
    check_number,
    check_position,
    keep_ratios,
)
from gaba.rules._vectors import known, ones, row
from gaba.rules.rule import Rule

_PUBLISHED = "leave it out for that of the original"


@final
@dataclass(frozen=True)
class EnCodec(Rule):
    """Give each task its part of a total norm, m_k = R · (r_k / Σ_j r_j) / (g_k + ε).

    Contributions are then R r_k / Σr, whatever the losses' scales; a norm well below ε counts as ε.
    The original measures at the output of the model (``measure="output"``) and smooths the norms by
    a debiased EMA at 0.999.

    Args:
        ratios: r, one positive finite number a task, or ``None`` for equal parts.
        total_norm: R, positive.
        epsilon: ε, positive.

    Raises:
        ValueError: A setting is not positive or not finite, or the ratios are not K.

    Source: Défossez et al., High Fidelity Neural Audio Compression, 2022, equation 5; ε = 1e-12 is
    that of the authors' code.

    Example:
        >>> import numpy as np
        >>> norms = np.array([5.0, 0.01])
        >>> (EnCodec(ratios=(1, 3)).raw(norms) * norms).round(6).tolist()
        [0.25, 0.75]
    """

    ratios: Sequence[float] | None = None
    total_norm: float = 1.0
    epsilon: float = 1e-12
    defined_at_zero: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.ratios is not None:
            keep_ratios(self, "ratios")
        check_number(self, "total_norm", _PUBLISHED)
        check_number(self, "epsilon", _PUBLISHED)

    def init(self, n_tasks: int) -> Any:
        """No memory."""
        if self.ratios is not None:
            check_each(self, "ratios", n_tasks)
        return ()

    def update(self, seen: Seen, state: Any) -> tuple[Tensor, Any]:
        """The multipliers (..., K); the sum of the ratios is over the tasks that are known."""
        norms, here = known(seen.norms, 0.0)
        ratios = torch.ones_like(norms) if self.ratios is None else row(self.ratios, norms)
        total = torch.where(here, ratios, 0.0).sum(-1, keepdim=True)
        return self.total_norm * ratios / total / (norms + self.epsilon), state


@final
@dataclass(frozen=True, eq=False)
class AdaptiveWeights:
    """What :class:`VQGAN` remembers.

    Attributes:
        steps: (), int64, how many steps it has weighed.
        weights: (K,), the multipliers as they are once every task is let in.
    """

    steps: Tensor
    weights: Tensor


@final
@dataclass(frozen=True)
class VQGAN(Rule):
    """Let the other tasks pull as hard as the reconstruction, from a given step on.

    m_r = 1 for the reference r (the reconstruction), and m_k = w · clamp(g_r / (g_k + ε), 0, M) for
    every other task, but 0 in the first ``start`` steps. The original measures at the last layer of
    the decoder (``ExactNorms(layer="last")``), unsmoothed. Where the reference is missing, the
    multipliers are the last ones.

    Args:
        weight: w, zero or more: the weight of the discriminator.
        start: the number of steps before the others are let in; only measured steps count.
        epsilon: ε, positive.
        most: M, positive.
        reference: the position of the reference among the tasks.

    Raises:
        ValueError: A setting is out of its range.

    Source: Esser, Rombach and Ommer, Taming Transformers for High-Resolution Image Synthesis, CVPR
    2021, equation 7; ε = 1e-4 and M = 1e4 are those of the authors' code, where the paper has 1e-6.

    Example:
        >>> seen = Seen(torch.ones(2), torch.tensor([3.0, 0.0299]))
        >>> rule = VQGAN(weight=0.5, start=1)
        >>> first, state = rule.update(seen, rule.init(2))
        >>> second, state = rule.update(seen, state)
        >>> first.tolist(), [round(m, 3) for m in second.tolist()]
        ([1.0, 0.0], [1.0, 50.0])
    """

    weight: float = 1.0
    start: int = 0
    epsilon: float = 1e-4
    most: float = 1e4
    reference: int = 0
    defined_at_zero: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number(self, "weight", "1 lets the others pull as hard as the reference", zero=True)
        check_number(self, "epsilon", _PUBLISHED)
        check_number(self, "most", _PUBLISHED)
        check_count(self, "start", "0 lets them in at once", least=0)
        check_count(self, "reference", "positions count from 0", least=0)

    def init(self, n_tasks: int) -> AdaptiveWeights:
        """No step weighed yet, all multipliers 1."""
        check_position(self, "reference", n_tasks)
        return AdaptiveWeights(torch.zeros((), dtype=torch.int64), ones(n_tasks))

    def update(self, seen: Seen, state: AdaptiveWeights) -> tuple[Tensor, AdaptiveWeights]:
        """The multipliers (K,) for the norms that were measured."""
        norms, here = _measured(seen)
        first, at = _at(self.reference, norms)
        ratio = (norms[..., at] / (norms + self.epsilon)).clamp(0, self.most) * self.weight
        wanted = torch.where(first, 1.0, ratio)
        weights = torch.where(here & here[..., at], wanted, state.weights)
        acting = torch.where(first | (state.steps >= self.start), weights, 0.0)
        return acting, AdaptiveWeights(state.steps + 1, weights)


@final
@dataclass(frozen=True)
class PINN(Rule):
    """Average multipliers that make the contributions equal, m_k ← d m_k + (1 − d) Σ_j g_j / g_k.

    Every m_k starts at 1. At rest m_k g_k = Σ_j g_j: this is :class:`InverseNorm` at another
    length, with the multipliers averaged in place of the norms. The original measures in every
    1000th step (``every=1000``). A task whose norm is 0, or that is missing, keeps its multiplier;
    the sum is over those present.

    Args:
        decay: d, in [0, 1).
        total: ``"sum"`` for Σ_j g_j as published, or ``"mean"`` for (1/K) Σ_j g_j as in the
            authors' code: the same proportions, K times as short.

    Raises:
        ValueError: A setting is out of its range.

    Source: Wang, Sankaran, Wang and Perdikaris, An Expert's Guide to Training Physics-informed
    Neural Networks, 2023, section 5.1 (grad norm weighting) and algorithm 1.

    Example:
        >>> rule, seen = PINN(decay=0.9), Seen(torch.ones(2), torch.tensor([4.0, 1.0]))
        >>> m, state = rule.update(seen, rule.init(2))
        >>> [round(x, 6) for x in m.tolist()]  # 0.9 + 0.1 · 5/4 and 0.9 + 0.1 · 5
        [1.025, 1.4]
    """

    decay: float = 0.9
    total: Literal["sum", "mean"] = "sum"
    defined_at_zero: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_decay(self, self.decay)
        if self.total not in ("sum", "mean"):
            raise ValueError(
                f"PINN: total must be 'sum' or 'mean', found {self.total!r}; 'sum' is as published"
            )

    def init(self, n_tasks: int) -> Tensor:
        """Every multiplier 1."""
        return ones(n_tasks)

    def update(self, seen: Seen, state: Tensor) -> tuple[Tensor, Tensor]:
        """The multipliers (K,) with the norms that were measured taken in."""
        norms, here = _measured(seen)
        total = torch.where(here, norms, 0.0).sum(-1, keepdim=True)
        if self.total == "mean":
            total = total / here.sum(-1, keepdim=True)
        new = _averaged(state, total / norms, self.decay, here & (norms != 0))
        return new, new


@final
@dataclass(frozen=True)
class PINNAnnealing(Rule):
    """Raise each task to the residual, m_k ← d m_k + (1 − d) max|∇L_r| / mean|∇L_k|.

    r is the reference (the residual of the equation), which keeps multiplier 1; max and mean are
    over the entries of the gradient (``measure=ElementNorms()``); every m_k starts at 1. A mean is
    far below a maximum, so at rest the others pull harder than the residual. A task whose gradient
    is 0, or that is missing, keeps its multiplier; so do all where the reference is missing.

    Args:
        decay: d, in [0, 1).
        reference: the position of the residual among the tasks.
        weighted: divide by m_k mean|∇L_k| instead, with the m_k before, as the authors' code does;
            at rest m_k is then the square root of what it is otherwise.

    Raises:
        ValueError: A setting is out of its range, or the measurement gives no max and mean.

    Source: Wang, Teng and Perdikaris, Understanding and Mitigating Gradient Flow Pathologies in
    Physics-Informed Neural Networks, SIAM J. Sci. Comput. 2021, algorithm 1.

    Example:
        >>> rule, statistics = PINNAnnealing(decay=0.9), torch.tensor([[3.0, 0.5], [0.6, 0.1]])
        >>> seen = Seen(torch.ones(2), torch.tensor([4.0, 1.0]), statistics=statistics)
        >>> m, state = rule.update(seen, rule.init(2))
        >>> [round(x, 6) for x in m.tolist()]  # 1 and 0.9 + 0.1 · 3/0.1
        [1.0, 3.9]
    """

    decay: float = 0.9
    reference: int = 0
    weighted: bool = False
    defined_at_zero: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_decay(self, self.decay)
        check_count(self, "reference", "positions count from 0", least=0)

    def init(self, n_tasks: int) -> Tensor:
        """Every multiplier 1."""
        check_position(self, "reference", n_tasks)
        return ones(n_tasks)

    def update(self, seen: Seen, state: Tensor) -> tuple[Tensor, Tensor]:
        """The multipliers (K,) with the max and mean that were measured taken in."""
        if seen.statistics is None:
            raise ValueError(
                "PINNAnnealing: the measurement must give max and mean of each gradient, found "
                "that it does not; use measure=gaba.measurement.ElementNorms()"
            )
        most, mean = seen.statistics.unbind(-1)
        _, here = _measured(seen)
        first, at = _at(self.reference, mean)
        below = mean * state if self.weighted else mean
        usable = here & here[..., at] & ~first & (below != 0)
        new = _averaged(state, most[..., at] / below, self.decay, usable)
        return new, new


def _measured(seen: Seen) -> tuple[Tensor, Tensor]:
    """The norms (..., K), and the mask of the tasks that are there and measured."""
    return seen.norms, ~(seen.losses.isnan() | seen.norms.isnan())


def _at(reference: int, like: Tensor) -> tuple[Tensor, slice]:
    """The mask (K,) of the reference, and the slice that takes it alone."""
    mask = torch.arange(like.shape[-1], device=like.device) == reference
    return mask, slice(reference, reference + 1)


def _averaged(old: Tensor, new: Tensor, decay: float, usable: Tensor) -> Tensor:
    """A step of the average from ``old`` to ``new`` where ``usable`` (K,), ``old`` elsewhere."""
    return torch.where(usable, decay * old + (1 - decay) * new, old)


def _check_decay(rule: Rule, decay: float) -> None:
    """Refuse a ``decay`` outside [0, 1)."""
    if not 0 <= decay < 1:
        raise ValueError(
            f"{type(rule).__name__}: decay must lie in [0, 1), found {decay!r}; 0.9 is that of the "
            "original"
        )
