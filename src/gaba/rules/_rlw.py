"""Random weights: what any method of weighting should beat."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from gaba.rules._base import Measured, Needs, StatefulWeighting
from gaba.rules._memory import masked, softmax

_GOLDEN, _FIRST, _SECOND = (
    constant - 2**64  # as int64
    for constant in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


@final
@dataclass(frozen=True, eq=False)
class Drawn:
    """Where the stream of random numbers stands.

    Attributes:
        step: (), int64, how many vectors have been drawn.
        seed: (), int64.
    """

    step: Tensor
    seed: Tensor


@final
@dataclass(frozen=True)
class RLW(StatefulWeighting[Drawn]):
    """Weigh at random in every step, w = softmax(x) with x_k standard normal, independent.

    Raw weights: w (K,), which sum to 1 over the tasks present. A control: what another method gains
    over it is not owed to the mere stir of the weights.

    x comes from a counter: x_k of step n is a function of the seed, n and k alone, computed in
    integers by the finaliser of SplitMix64 and brought to a normal by Box and Muller. So it is
    the same on every device (but for the last bits of log and cos), after a resume, and whatever
    else draws random numbers; no generator is touched.

    Args:
        seed: of the stream, an int.

    Raises:
        ValueError: ``seed`` is no int of 64 bits.

    Source: Lin et al., Reasonable Effectiveness of Random Weighting, TMLR 2022 (there with the
    normal distribution). Random numbers: Steele, Lea and Flood, Fast Splittable Pseudorandom Number
    Generators, OOPSLA 2014.

    Example:
        >>> import torch
        >>> rule = RLW(seed=7)
        >>> weights, state = rule.update(Measured(torch.ones(3)), rule.init(3))
        >>> again, _ = rule.update(Measured(torch.ones(3)), rule.init(3))
        >>> bool((weights == again).all()), round(float(weights.sum()), 12)
        (True, 1.0)
    """

    seed: int = 0
    needs: ClassVar[Needs] = "losses"

    def __post_init__(self) -> None:
        if not isinstance(self.seed, int) or not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"RLW: seed must be an int of 64 bits, found {self.seed!r}")

    def init(self, n_tasks: int) -> Drawn:
        """The start of the stream."""
        seed = torch.tensor(self.seed, dtype=torch.int64)
        return Drawn(torch.zeros((), dtype=torch.int64), seed)

    def update(
        self, measured: Measured, state: Drawn, present: Tensor | None = None
    ) -> tuple[Tensor, Drawn]:
        """The weights (K,) of this step; the stream moves on by one, for missing tasks as well."""
        losses, here = masked(measured.losses, present, 0.0)
        normal = normals(state.seed, state.step, losses)
        return softmax(normal, here), Drawn(state.step + 1, state.seed)


def normals(seed: Tensor, step: Tensor, like: Tensor) -> Tensor:
    """Standard normal numbers (K,) of step number ``step`` in the stream ``seed``."""
    tasks = torch.arange(like.shape[-1], dtype=torch.int64, device=like.device)
    start = _mixed(seed + _GOLDEN) + step * _GOLDEN
    key = _mixed(_mixed(start) + (2 * tasks + 1) * _GOLDEN)
    angle = _uniform(_mixed(key + _GOLDEN), like)
    return (-2 * _uniform(key, like).log()).sqrt() * torch.cos(2 * math.pi * angle)


def _uniform(bits: Tensor, like: Tensor) -> Tensor:
    """Numbers in (0, 1] from the upper 53 bits (24 where the dtype is float32)."""
    used = 53 if like.dtype == torch.float64 else 24
    return (_shifted(bits, 64 - used) + 1).to(like.dtype) * 2.0**-used


def _mixed(bits: Tensor) -> Tensor:
    """The finaliser of SplitMix64; products wrap around, as int64 does."""
    bits = (bits ^ _shifted(bits, 30)) * _FIRST
    bits = (bits ^ _shifted(bits, 27)) * _SECOND
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, n: int) -> Tensor:
    """To the right by n, with zeros from the left: torch's own shift keeps the sign."""
    return (bits >> n) & ((1 << (64 - n)) - 1)
