"""J_z v: how the features change along a direction in the shared parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import (
    Tensor,
    _foreach_add_,  # pyright: ignore[reportPrivateImportUsage]
    _foreach_norm,  # pyright: ignore[reportPrivateImportUsage]
)
from torch.autograd import forward_ad

from gaba.autograd.rerun import Rerun, swapped
from gaba.tensors import dense, work_dtype


def by_difference(rerun: Rerun, v: list[Tensor], step: Tensor) -> list[Tensor]:
    """(z(θ + εv) − z(θ))/ε, one tensor a feature in the working dtype.

    Args:
        rerun: the calls that gave the features.
        v: the direction, one tensor a parameter; overwritten.
        step: (), ε.
    """
    for part in v:
        part.mul_(step.to(part.device, non_blocking=True))
    _foreach_add_(v, [p.detach() for p in rerun.parameters])
    with swapped(rerun.parameters, v):
        after = rerun()
    return [
        torch.sub(_wide(a), _wide(b)) / step.to(a.device, non_blocking=True)
        for a, b in zip(after, rerun.values(), strict=True)
    ]


def by_forward(rerun: Rerun, v: Sequence[Tensor]) -> list[Tensor]:
    """J_z v by forward-mode automatic differentiation, one tensor a feature.

    Raises:
        RuntimeError: part of the module has no forward-mode derivative.
    """
    names = {id(p): name for name, p in rerun.module.named_parameters()}
    try:
        with forward_ad.dual_level():
            duals = {
                names[id(p)]: forward_ad.make_dual(p.detach(), part)
                for p, part in zip(rerun.parameters, v, strict=True)
            }
            pairs = [forward_ad.unpack_dual(z) for z in rerun(duals)]
    except (RuntimeError, NotImplementedError) as error:
        if not any(words in str(error) for words in ("forward AD", "forward-mode", "forward mode")):
            raise
        raise RuntimeError(_no_forward(str(error).splitlines()[0])) from error
    if all(pair.tangent is None for pair in pairs):
        raise RuntimeError(_no_forward("no derivative came out, as of a compiled module"))
    return [
        torch.zeros_like(_wide(pair.primal)) if pair.tangent is None else _wide(pair.tangent)
        for pair in pairs
    ]


def _no_forward(reason: str) -> str:
    return (
        'SketchNorms(method="forward") needs a shared module all of whose parts have a '
        f'forward-mode derivative, found: {reason} Use method="difference"'
    )


def step_size(rerun: Rerun, device: torch.device) -> Tensor:
    """ε = η · rms(θ), with η = √u/3 and u the precision in which the features are computed.

    The mean is over all parameters together; if all are 0, ε = η. u is the machine epsilon of the
    coarsest dtype among those of the parameters, of autocast and of the features. Of the steps
    tried on ReLU, attention and LSTM networks, in float32 and bfloat16, this one was best: with a
    larger one the network bends, with a smaller one the difference drowns in rounding.
    """
    parameters = rerun.parameters
    dtypes = {p.dtype for p in parameters}
    dtypes |= {dtype for call in rerun.calls.values() for dtype in call.autocast.values()}
    dtypes |= {mark.value.dtype for mark in rerun.marks if mark.value is not None}
    eta = max(torch.finfo(dtype).eps for dtype in dtypes) ** 0.5 / 3
    lengths = _foreach_norm([p.detach() for p in parameters])
    wide = [g.to(device, work_dtype(device), non_blocking=True) for g in lengths]
    n = sum(p.numel() for p in parameters)
    rms = torch.linalg.vector_norm(torch.stack(wide)) / n**0.5
    return eta * torch.where(rms > 0, rms, torch.ones_like(rms))


BOUND = 30.0
"""How many times its typical value P may be in a difference; what lies above counts as that."""


def bounded(scales: Sequence[Tensor], device: torch.device) -> tuple[list[Tensor], Tensor]:
    """P, at most BOUND times its geometric mean, and its root mean square, ().

    A parameter that has had hardly any gradient (behind a dead unit) has a P up to 1/ε of the
    optimizer, a hundred million: a step along it would leave the neighbourhood in which a
    difference is a derivative, and all other parameters would drown in its rounding.
    """
    n = sum(scale.numel() for scale in scales)
    logs = [scale.clamp(min=torch.finfo(scale.dtype).tiny).log() for scale in scales]
    total = torch.stack([log.sum().to(device, work_dtype(device)) for log in logs]).sum()
    most = BOUND * (total / n).exp()
    within = [s.clamp(max=most.to(s.device, s.dtype, non_blocking=True)) for s in scales]
    lengths = [g.to(device, work_dtype(device)) for g in _foreach_norm(within)]
    length = torch.linalg.vector_norm(torch.stack(lengths)) / n**0.5
    return within, torch.where(length > 0, length, torch.ones_like(length))


def _wide(tensor: Tensor) -> Tensor:
    whole = dense(tensor)
    return whole.to(work_dtype(whole.device))
