"""How far two ways to compute the same number may differ by rounding alone."""

from __future__ import annotations

import torch

from gaba.measurement.along import STEP

ROOM = 16.0
"""How many times a typical error the largest of some hundred comparisons may be."""


def of_sums(dtype: torch.dtype, summands: int) -> float:
    """The relative error of a sum that is taken in another order, or on another processor."""
    return ROOM * torch.finfo(dtype).eps * summands**0.5


def of_slopes(dtype: torch.dtype, summands: int, rms: float, least: float = 0.1) -> float:
    """The relative error of a slope v · ∇L that comes from (z(θ + εv) − z(θ))/ε.

    Each z has an absolute error of about u |z| √summands, with u the machine epsilon, and the move
    of ε‖v‖ = η‖θ‖ (``STEP`` of :mod:`gaba.measurement.along`) divides it. With |z| of order 1 and
    J_z v as long as the gradient that is the relative error of a slope; one that is ``least`` of
    that, because v is nearly at right angles to its gradient, has so much more.

    Args:
        dtype: in which z is computed.
        summands: how many products each entry of z is the sum of, over all layers.
        rms: the root mean square of θ.
        least: the smallest slope to reckon with, in parts of the gradient's length.
    """
    step = STEP[dtype] * rms
    return of_sums(dtype, summands) / step / least
