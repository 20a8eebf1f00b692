"""J_z v: how the features change along a direction in the shared parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from gaba.autograd.rerun import Rerun, swapped
from gaba.tensors import dense, work_dtype


def by_difference(rerun: Rerun, v: list[Tensor], step: Tensor) -> list[Tensor]:
    """(z(θ + εv) − z(θ))/ε, one tensor a feature in the working dtype.

    Args:
        rerun: the calls that gave the features.
        v: the direction, one dense tensor a parameter.
        step: (), ε.
    """
    moved = [  # in one go: fresh memory is what this costs most
        torch.addcmul(p.detach(), part.to(p.dtype), step.to(p.device, p.dtype, non_blocking=True))
        for p, part in zip(rerun.parameters, v, strict=True)
    ]
    with swapped(rerun.parameters, moved):
        after = rerun()
    return [
        torch.sub(_wide(a), _wide(b)) / step.to(a.device, non_blocking=True)
        for a, b in zip(after, rerun.values(), strict=True)
    ]


def _wide(tensor: Tensor) -> Tensor:
    whole = dense(tensor)
    return whole.to(work_dtype(whole.device))
