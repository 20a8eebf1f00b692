"""Weights and losses → ``.grad``: how the combined gradient reaches the optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, _foreach_add_, _foreach_mul  # pyright: ignore[reportPrivateImportUsage]
from torch.autograd.graph import GradientEdge

from gaba.ranks.wrappers import local_part


def someone_listens(leaves: Iterable[Tensor]) -> bool:
    """Whether a real backward pass is needed, because something acts on it as it runs.

    True in a distributed run (DDP and FSDP reduce gradients from hooks), and where a leaf has a
    tensor hook or a post-accumulate hook (optimizers that step inside the backward pass). Hooks on
    tensors inside the graph run in every per-task pass and cannot be seen from here.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return True
    return any(
        getattr(leaf, "_backward_hooks", None) or getattr(leaf, "_post_accumulate_grad_hooks", None)
        for leaf in leaves
    )


def overflown(leaves: Iterable[Tensor]) -> Tensor:
    """Whether some ``.grad`` holds a number that is not finite: (), bool; nobody waits for it."""
    found = [leaf.grad for leaf in {id(leaf): leaf for leaf in leaves}.values()]
    parts = [local_part(gradient).detach() for gradient in found if gradient is not None]
    if not parts:
        return torch.zeros((), dtype=torch.bool)
    sound = [(p.coalesce().values() if p.is_sparse else p).isfinite().all() for p in parts]
    return ~torch.stack([flag.to(sound[0].device) for flag in sound]).all()


def by_backward(losses: Sequence[Tensor], coefficients: Tensor) -> None:
    """One backward pass of Σ_k c_k L_k; ``coefficients`` c is (K,)."""
    torch.autograd.backward(
        losses,
        [
            _bounded(c, loss.dtype).to(loss.dtype).expand_as(loss)
            for c, loss in zip(coefficients, losses, strict=True)
        ],
    )


def by_hand(
    leaves: Sequence[Tensor],
    gradients: Sequence[Sequence[Tensor | None]],
    coefficients: Tensor,
    *,
    plain_heads: bool = False,
    shared: Iterable[Tensor] = (),
) -> None:
    """Add Σ_k c_k ∂L_k/∂leaf to ``.grad`` of each leaf, from gradients that are already there.

    Args:
        leaves: the leaves, n of them.
        gradients: K rows of n gradients, ``None`` where a task does not reach a leaf.
        coefficients: (K,), c.
        plain_heads: leave c out (1 instead) for a leaf that one task alone reaches.
        shared: leaves that get c all the same, as where the other tasks are missing.
    """
    theta = {id(leaf) for leaf in shared}
    groups: dict[tuple[tuple[int, ...], torch.dtype, bool, bool], list[int]] = {}
    for i, column in enumerate(zip(*gradients, strict=True)):
        found = [g for g in column if g is not None]
        if found:
            tasks = tuple(k for k, g in enumerate(column) if g is not None)
            some_sparse = any(g.is_sparse for g in found)
            plain = plain_heads and len(tasks) == 1 and id(leaves[i]) not in theta
            groups.setdefault((tasks, found[0].dtype, some_sparse, plain), []).append(i)
    for (tasks, dtype, sparse, plain), members in groups.items():
        total: list[Tensor] | None = None
        for k in tasks:
            row = [g for i in members if (g := gradients[k][i]) is not None]
            c = torch.ones_like(coefficients[k]) if plain else _bounded(coefficients[k], dtype)
            scaled = _foreach_mul(row, c)
            if total is None:
                total = list(scaled)
            elif sparse:
                total = [_plus(a, b) for a, b in zip(total, scaled, strict=True)]
            else:
                _foreach_add_(total, scaled)  # made above, so nobody else holds it
        for i, gradient in zip(members, total or (), strict=True):
            _accumulate(leaves[i], gradient)


def add(leaves: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Add one gradient a leaf to ``.grad``, as it is; ``None`` adds nothing."""
    for leaf, gradient in zip(leaves, gradients, strict=True):
        if gradient is not None:
            _accumulate(leaf, gradient)


def by_features(
    features: Sequence[GradientEdge],
    gradients: Sequence[Sequence[Tensor | None]],
    coefficients: Tensor,
) -> None:
    """One backward pass from the features z on, of Σ_k c_k ∂L_k/∂z.

    Args:
        features: n places in the graph.
        gradients: K rows of n gradients, ``None`` where a task does not use a feature.
        coefficients: (K,), c.
    """
    edges, sums = [], []
    for edge, column in zip(features, zip(*gradients, strict=True), strict=True):
        found = [(g, c) for g, c in zip(column, coefficients, strict=True) if g is not None]
        if found:
            dtype = found[0][0].dtype
            wide = torch.promote_types(dtype, torch.float32)  # c may be too large for float16
            parts = [g.to(wide) * _bounded(c, wide).to(wide) for g, c in found]
            edges.append(edge)
            sums.append(
                torch.stack(parts).sum(0).to(dtype) if len(parts) > 1 else parts[0].to(dtype)
            )
    torch.autograd.backward(edges, sums)


def _accumulate(leaf: Tensor, gradient: Tensor) -> None:
    """Add to ``.grad`` as a backward pass would: in place where there is something to add to."""
    if leaf.grad is None:
        leaf.grad = gradient.detach()
    elif leaf.grad.is_sparse or gradient.is_sparse:
        leaf.grad = _plus(leaf.grad, gradient)
    else:
        leaf.grad.add_(gradient)


def _plus(a: Tensor, b: Tensor) -> Tensor:
    """The sum of a and b, of which torch wants the dense one in front."""
    return b + a if a.is_sparse and not b.is_sparse else a + b


def _bounded(coefficient: Tensor, dtype: torch.dtype) -> Tensor:
    """``coefficient``, kept finite when it is brought to ``dtype``."""
    return coefficient.clamp(max=min(torch.finfo(dtype).max, torch.finfo(coefficient.dtype).max))
