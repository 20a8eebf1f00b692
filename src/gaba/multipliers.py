"""How long the combined update is: the gain, a common factor of all weights."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

Scale: TypeAlias = Literal["simplex", "mean", "max", "rule"]


def gain_of(
    weights: Tensor,
    norms: Tensor | None,
    scale: Scale,
    *,
    length: Tensor | None = None,
    anchor: int | None = None,
    held: Tensor | None = None,
) -> Tensor:
    """The gain of a step, so that the combined gradient is gain · Σ λ_k ∇L_k.

    ==================  =========================================================================
    ``"simplex"``       1: weights sum to 1
    ``"mean"``          mean g / Σ λ_k g_k: Σ gain λ_k g_k = mean g, as under uniform weights
    ``"max"``           max g / max λ_k g_k: the largest contribution is as long as the largest norm
    ``"rule"``          Σ w_k: the weights w that the rule itself gives, before their sum was made 1
    ``anchor=a``        1/λ_a: task a keeps weight 1
    ==================  =========================================================================

    Args:
        weights: (K,), λ on the simplex.
        norms: (K,), g as believed; ``None`` if there are none, and then only an anchor scales.
        scale: which of the above.
        length: (), Σ w_k; ``None`` is 1.
        anchor: the position of the anchor, if it is there in this step.
        held: the gain to keep when there is an anchor, but not in this step.

    Returns:
        A scalar; 1 where its denominator is 0.

    Example:
        >>> weights, norms = torch.tensor([0.002, 0.998]), torch.tensor([4.99, 0.01])
        >>> round(float(gain_of(weights, norms, "mean") * (weights * norms).sum()), 4)
        2.5
        >>> round(float(gain_of(weights, norms, "simplex", anchor=1) * weights[1]), 4)
        1.0
    """
    one = torch.ones_like(weights[0])
    if anchor is not None:
        return _ratio(one, weights[anchor])
    if held is not None:
        return held
    if scale == "rule":
        return one if length is None else length
    if norms is None or scale == "simplex":
        return one
    if scale == "max":
        return _ratio(norms.max(), (weights * norms).max())
    return _ratio(norms.mean(), (weights * norms).sum())


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    usable = denominator > 0
    safe = torch.where(usable, denominator, torch.ones_like(denominator))
    return torch.where(usable, numerator / safe, torch.ones_like(numerator))
