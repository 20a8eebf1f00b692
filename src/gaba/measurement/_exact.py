"""Exact norms: one backward pass a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import (
    Tensor,
    _foreach_norm,  # pyright: ignore[reportPrivateImportUsage]
)

from gaba._array import work_dtype
from gaba.graph import LossGraph
from gaba.measurement._base import Gradients, Measurement, Observation, TaskGradients

_SAFE = (1e-12, 1e18)  # norms whose squares, and those of their parts, float32 sums without loss


@final
@dataclass(frozen=True)
class ExactNorms(Measurement):
    """The norms g_k = ‖∇_θ L_k‖₂ from the K per-task gradients themselves.

    One ``torch.autograd.grad`` a task, through its head and the shared part at once. The gradients
    of the heads come out of the same pass, so that the combined gradient needs no further one:
    K passes in all, where K probes and a backward pass are K + 1. Held at the same time: K
    gradients of the parameters.

    Norms are accumulated in float32 at least and in float64 where float32 would lose them: 1e-23
    and 1e20 neither vanish nor overflow. The Gramian has the squared norms on its diagonal; off it
    are the inner products of the gradients divided by their norms, times the two norms.

    Source: Chen et al., GradNorm, ICML 2018, section 3.1 (norm of the gradient of the weighted
    single-task loss), here over all shared parameters and at weight 1.

    Example:
        >>> import torch
        >>> from gaba.graph import LossGraph
        >>> from gaba.shared import as_shared
        >>> w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> seen = ExactNorms()(LossGraph([w @ w, 2 * w.sum()], as_shared([w])), gramian=True)
        >>> [round(g, 4) for g in seen.norms.tolist()]
        [10.0, 2.8284]
        >>> [[round(x, 4) for x in row] for row in seen.gramian.tolist()]
        [[100.0, 28.0], [28.0, 8.0]]
    """

    def __call__(
        self, graph: LossGraph, state: Any = (), *, gramian: bool = False, gradients: bool = False
    ) -> Observation:
        """Observe the K losses of ``graph``; see :class:`Measurement`."""
        losses, shared = graph.losses, graph.shared
        leaves = (not gradients and shared.parameters()) or graph.leaves
        of = [
            torch.autograd.grad(
                loss,
                leaves,
                retain_graph=not gradients or k < len(losses) - 1,
                allow_unused=True,
            )
            for k, loss in enumerate(losses)
        ]
        shared.learn(leaves, [[g is not None for g in grads] for grads in of])
        theta = {id(p) for p in shared.parameters()}
        own = [[g for p, g in zip(leaves, grads, strict=True) if id(p) in theta] for grads in of]
        norms = torch.stack([norm(grads, losses[0].device) for grads in own])
        return Observation(
            norms=norms,
            gramian=_gramian(own, norms) if gramian else None,
            unreached=tuple(k for k, grads in enumerate(own) if all(g is None for g in grads)),
            gradients=TaskGradients(tuple(leaves), tuple(of)) if gradients else None,
        )


def norm(gradients: Gradients, device: torch.device) -> Tensor:
    """The Euclidean norm (a scalar tensor) of one task's gradient, given parameter by parameter."""
    dtype = work_dtype(device)
    dense = [_dense(g) for g in gradients if g is not None and g.numel()]
    if not dense:
        return torch.zeros((), dtype=dtype, device=device)
    if device.type == "cpu":  # here a look at the result costs nothing: take the fast kernel first
        fast = _norm_of_norms(dense, torch.float32)
        if _SAFE[0] < float(fast) < _SAFE[1]:
            return fast
    if dtype == torch.float64:
        return _norm_of_norms(dense, dtype)
    largest = torch.stack([g.abs().max().to(dtype) for g in dense]).max()
    scale = torch.where((largest > 0) & largest.isfinite(), largest, torch.ones_like(largest))
    return _norm_of_norms([g / scale for g in dense], dtype) * scale


def _norm_of_norms(dense: list[Tensor], dtype: torch.dtype) -> Tensor:
    wide = [g if g.dtype.itemsize >= dtype.itemsize else None for g in dense]
    parts = _foreach_norm(dense) if None not in wide else _foreach_norm(dense, 2.0, dtype)
    return torch.linalg.vector_norm(torch.stack([p.to(work_dtype(p.device)) for p in parts]))


def _dense(gradient: Tensor) -> Tensor:
    gradient = gradient.detach()
    if gradient.is_sparse:
        gradient = gradient.coalesce().values()
    return torch.view_as_real(gradient) if gradient.is_complex() else gradient


def _gramian(of: Sequence[Gradients], norms: Tensor) -> Tensor:
    """⟨∇L_k, ∇L_l⟩ (K, K), accumulated over the parameters from gradients of unit length."""
    length = torch.where(norms > 0, norms, torch.ones_like(norms))
    cosines = torch.zeros(len(of), len(of), dtype=norms.dtype, device=norms.device)
    for parts in zip(*of, strict=True):
        present = [k for k, g in enumerate(parts) if g is not None]
        if not present:
            continue
        unit = torch.stack([_unit(parts[k], length[k]) for k in present])
        rows = torch.tensor(present, device=norms.device)
        cosines[rows[:, None], rows] += (unit @ unit.T).to(cosines.dtype)
    cosines = (cosines + cosines.T) / 2  # a product of matrices need not be symmetric to the bit
    gramian = cosines * (norms[:, None] * norms)
    gramian.diagonal().copy_(norms.square())
    return gramian


def _unit(gradient: Tensor | None, length: Tensor) -> Tensor:
    assert gradient is not None
    dense = gradient.to_dense() if gradient.is_sparse else gradient
    dense = torch.view_as_real(dense) if dense.is_complex() else dense
    return (dense.detach().to(length.dtype) / length).flatten()
