"""Norms and inner products of the gradients of the tasks, alone or over several ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import (
    Tensor,
    _foreach_norm,  # pyright: ignore[reportPrivateImportUsage]
)

from gaba.autograd.passes import Gradients, TaskGradients
from gaba.measurement.averages import averages
from gaba.measurement.base import Observation, Request
from gaba.tensors import dense, entries, flat, on_device, work_dtype

_SAFE = (1e-12, 1e18)  # norms whose squares, and those of their parts, float32 sums without loss


def observed(
    request: Request,
    rows: Sequence[Gradients],
    *,
    theta: Sequence[Tensor],
    gradients: TaskGradients | None = None,
) -> Observation:
    """What the gradients ``rows`` come to: norms, Gramian, and who reaches nothing.

    Args:
        request: what was asked for.
        rows: this rank's gradients, a row for each task present.
        theta: what the columns are gradients of.
        gradients: passed on.
    """
    reached = [any(g is not None for g in row) for row in rows]
    ranks, scales = request.ranks, request.scales(theta)
    if ranks.several:
        means = averages(ranks, theta, request.step)
        for row in rows:
            means.add(scaled(row, scales))
        return summed(request, means.parts(), reached)
    norms = torch.stack([norm(scaled(row, scales), request.graph.device) for row in rows])
    gramian = gramian_of(rows, norms, scales) if request.gramian else None
    return observation(request, norms, reached, gramian=gramian, gradients=gradients)


def summed(request: Request, parts: Sequence[Gradients], reached: Sequence[bool]) -> Observation:
    """Norms (and Gramian) from each rank's part of the gradients, by one sum over the ranks.

    Args:
        request: what was asked for.
        parts: rows of tensors that this rank alone has.
        reached: for each row, whether this rank's loss reaches the shared part.
    """
    local = torch.stack([norm(row, request.graph.device) for row in parts])
    squares = gramian_of(parts, local) if request.gramian else local.square()
    heard, reached = totals(request, squares, reached)
    if request.gramian:
        return observation(request, heard.diagonal().sqrt(), reached, gramian=heard)
    return observation(request, heard.sqrt(), reached)


def totals(
    request: Request, numbers: Tensor, reached: Sequence[bool]
) -> tuple[Tensor, Sequence[bool]]:
    """``numbers`` added up over the ranks, and for each task whether any rank reaches something.

    Nobody waits for the device as long as this rank reaches something for every task.
    """
    if not request.ranks.several:
        return numbers, reached
    heard = request.ranks.total(
        torch.cat([numbers.flatten(), on_device(list(reached), numbers.device).to(numbers.dtype)])
    )
    n = len(reached)
    if not all(reached):
        reached = [count > 0 for count in heard[-n:].tolist()]
    return heard[:-n].view_as(numbers), reached


def observation(
    request: Request,
    norms: Tensor,
    reached: Sequence[bool],
    *,
    gramian: Tensor | None = None,
    gradients: TaskGradients | None = None,
    statistics: Tensor | None = None,
) -> Observation:
    """The one place where values of the tasks present become vectors over all K.

    Args:
        request: what was asked for, in units of the loss scale; what comes out is without.
        norms: (k,), of the tasks present.
        reached: k, whether each reaches the shared part.
        gramian: (k, k).
        gradients: passed on.
        statistics: (k, m), in the unit of the norms.
    """
    graph, unscaled = request.graph, request.unscaled
    return Observation(
        norms=graph.spread(unscaled(norms)),
        gramian=None if gramian is None else graph.spread_square(unscaled(unscaled(gramian))),
        unreached=tuple(k for k, found in zip(graph.tasks, reached, strict=True) if not found),
        gradients=gradients,
        statistics=None if statistics is None else graph.spread(unscaled(statistics)),
    )


def scaled(gradients: Gradients, scales: Sequence[Tensor] | None) -> Gradients:
    """P ∘ ∇L_k parameter by parameter, or the gradients as they are in the Euclidean metric."""
    if scales is None:
        return gradients
    return [None if g is None else dense(g) * p for g, p in zip(gradients, scales, strict=True)]


def norm(gradients: Gradients, device: torch.device) -> Tensor:
    """The Euclidean norm () of one task's gradient, which is given parameter by parameter."""
    dtype = work_dtype(device)
    parts = [entries(g) for g in gradients if g is not None and g.numel()]
    if not parts:
        return torch.zeros((), dtype=dtype, device=device)
    if device.type == "cpu":  # here a look at the result costs nothing: take the fast kernel first
        fast = _norm_of_norms(parts, torch.float32)
        if _SAFE[0] < float(fast) < _SAFE[1]:
            return fast
    if dtype == torch.float64:
        return _norm_of_norms(parts, dtype)
    largest = torch.stack([g.abs().max().to(dtype) for g in parts]).max()
    scale = torch.where((largest > 0) & largest.isfinite(), largest, torch.ones_like(largest))
    return _norm_of_norms([g / scale for g in parts], dtype) * scale


def _norm_of_norms(parts: list[Tensor], dtype: torch.dtype) -> Tensor:
    kinds = {g.dtype for g in parts}
    if len(kinds) > 1 or any(kind.itemsize < dtype.itemsize for kind in kinds):
        wide = max(dtype, *kinds, key=lambda kind: kind.itemsize)
        lengths = torch.stack(_foreach_norm(parts, 2.0, wide))
    else:
        lengths = torch.stack(_foreach_norm(parts))
    return torch.linalg.vector_norm(lengths.to(work_dtype(lengths.device)))


def gramian_of(
    rows: Sequence[Gradients], norms: Tensor, scales: Sequence[Tensor] | None = None
) -> Tensor:
    """⟨∇L_k, ∇L_l⟩ (k, k), accumulated over the parameters from gradients of unit length.

    With ``scales`` P it is ⟨P∇L_k, P∇L_l⟩, and ``norms`` are those of P∇L_k.
    """
    length = torch.where(norms > 0, norms, torch.ones_like(norms))
    cosines = torch.zeros(len(rows), len(rows), dtype=norms.dtype, device=norms.device)
    for i, column in enumerate(zip(*rows, strict=True)):
        present = [k for k, g in enumerate(column) if g is not None]
        if not present:
            continue
        parts = column if scales is None else scaled(column, [scales[i]] * len(column))
        units = [flat(g, norms.dtype) / length[k] for k, g in enumerate(parts) if g is not None]
        unit, where = torch.stack(units), on_device(present, norms.device)
        cosines[where[:, None], where] += unit @ unit.T
    cosines = (cosines + cosines.T) / 2  # a product of matrices need not be symmetric to the bit
    gramian = cosines * (norms[:, None] * norms)
    gramian.diagonal().copy_(norms.square())
    return gramian
