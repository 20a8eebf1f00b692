"""Multipliers and losses → ``.grad``: how the combined gradient reaches the optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Literal, TypeAlias

import torch
from torch import Tensor, _foreach_add_, _foreach_mul  # pyright: ignore[reportPrivateImportUsage]

from gaba.autograd.graph import LossGraph
from gaba.autograd.passes import Gradients, TaskGradients, explained, task_passes
from gaba.autograd.sharding import local_part

Combined: TypeAlias = Literal["by-hand", "backward"]
Heads: TypeAlias = Literal["weighted", "plain"]


def combine(
    graph: LossGraph,
    gradients: TaskGradients | None,
    multipliers: Tensor,
    *,
    heads: Heads = "weighted",
    retain_graph: bool = False,
) -> Combined:
    """Add Σ_k m_k ∇L_k to ``.grad`` of every leaf.

    Everything is computed before the first ``.grad`` is written, but in a backward pass of
    autograd's own, which writes as it goes.

    Args:
        graph: the losses of the tasks present.
        gradients: what the measurement left behind, to add up by hand; ``None`` for one backward
            pass of the weighted losses.
        multipliers: (k,), m of the tasks present, as :func:`usable` gives them.
        heads: with ``"plain"`` a parameter that is not shared and that one task alone reaches gets
            that task's gradient as it is.
        retain_graph: keep the graph for the caller.

    Returns:
        How it was done.

    Raises:
        ValueError: ``heads="plain"``, and the gradients of each task cannot be had.
        RuntimeError: the graph has been freed.
    """
    if heads == "plain":
        gradients = _by_task(graph, gradients, retain_graph)
    keep = retain_graph or graph.fresh
    if gradients is None:
        seeds = _seeds(multipliers, graph.losses)
        with explained():
            torch.autograd.backward(graph.losses, seeds, retain_graph=keep)
        return "backward"
    plain = {id(leaf) for leaf in gradients.leaves} if heads == "plain" else set[int]()
    plain -= {id(p) for p in graph.theta}
    totals = _sums(gradients.leaves, gradients.of, multipliers, plain)
    leaves = list(gradients.leaves)
    if gradients.features:
        leaves += graph.below
        totals += _below(graph, gradients, multipliers, keep)
    for leaf, total in zip(leaves, totals, strict=True):
        if total is not None:
            _accumulate(leaf, total)
    return "by-hand"


def plain_backward(
    graph: LossGraph,
    losses: Sequence[Tensor],
    scaler: torch.amp.GradScaler | None = None,
    *,
    retain_graph: bool = False,
) -> Combined:
    """The backward pass of ``sum(losses)``, as somebody without this library would write it."""
    total = plain_sum(losses)
    with explained():
        (total if scaler is None else scaler.scale(total)).backward(
            retain_graph=retain_graph or graph.fresh
        )
    return "backward"


def plain_sum(losses: Sequence[Tensor]) -> Tensor:
    """``sum(losses)`` ()."""
    with torch.enable_grad():
        return reduce(torch.add, losses)


def _seeds(multipliers: Tensor, losses: Sequence[Tensor]) -> Sequence[Tensor]:
    """The multipliers, each in the shape, dtype and device of its loss."""
    kinds = {(loss.device, loss.dtype, loss.shape) for loss in losses}
    if len(kinds) == 1:
        device, dtype, shape = kinds.pop()
        return bounded(multipliers, dtype).to(device, dtype).view(-1, *shape).unbind()
    return [
        bounded(m, loss.dtype).to(loss.device, loss.dtype).expand_as(loss)
        for m, loss in zip(multipliers, losses, strict=True)
    ]


def as_scalar(losses: Sequence[Tensor], multipliers: Tensor) -> Tensor:
    """Σ_k m_k L_k (), in float32 at least, whose backward pass gives what :func:`combine` adds.

    Args:
        losses: k scalars.
        multipliers: (k,), as :func:`usable` gives them.
    """
    device, kinds = losses[0].device, {loss.dtype for loss in losses}
    dtype = max(torch.float32, *kinds, key=lambda kind: kind.itemsize)
    parts = [
        m.to(device, dtype) * loss.to(device, dtype)
        for m, loss in zip(multipliers, losses, strict=True)
    ]
    return torch.stack(parts).sum()


def usable(multipliers: Tensor, losses: Sequence[Tensor]) -> Tensor:
    """The multipliers that can be used and recorded: none too large for the dtype of its loss.

    Args:
        multipliers: (k,), of the tasks present.
        losses: their losses.
    """
    kinds = {loss.dtype for loss in losses}
    if len(kinds) == 1:
        return bounded(multipliers, kinds.pop())
    pairs = zip(multipliers, losses, strict=True)
    return torch.stack([bounded(m, loss.dtype) for m, loss in pairs])


def bounded(multipliers: Tensor, dtype: torch.dtype) -> Tensor:
    """``multipliers``, such that they stay finite when they are brought to ``dtype``."""
    most = min(torch.finfo(dtype).max, torch.finfo(multipliers.dtype).max)
    return multipliers.clamp(min=-most, max=most)


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


def steps_at_once(leaves: Iterable[Tensor]) -> bool:
    """Whether an optimizer steps inside the backward pass, as soon as a gradient is there."""
    return any(getattr(leaf, "_post_accumulate_grad_hooks", None) for leaf in leaves)


def overflown(leaves: Iterable[Tensor]) -> Tensor:
    """Whether some ``.grad`` holds a number that is not finite: (), bool; nobody waits for it."""
    found = [leaf.grad for leaf in {id(leaf): leaf for leaf in leaves}.values()]
    parts = [local_part(gradient).detach() for gradient in found if gradient is not None]
    if not parts:
        return torch.zeros((), dtype=torch.bool)
    sound = [(p.coalesce().values() if p.is_sparse else p).isfinite().all() for p in parts]
    return ~torch.stack([flag.to(sound[0].device) for flag in sound]).all()


def _by_task(graph: LossGraph, found: TaskGradients | None, retain_graph: bool) -> TaskGradients:
    """The gradients of each task for ``heads="plain"``; a pass a task where nobody has them yet."""
    problem = ""
    if found is not None and not found.by_task:
        problem = "a measurement that does not show which task reaches which parameter"
    elif found is None and someone_listens(graph.leaves):
        problem = "that something acts on the backward pass (a distributed run, or hooks)"
    if problem:
        raise ValueError(
            f"heads='plain' needs the gradients of each task, found {problem}: use "
            "heads='weighted', or measure='exact' in one process"
        )
    if found is not None:
        return found
    return TaskGradients(
        graph.leaves, tuple(task_passes(graph, graph.leaves, free=not retain_graph))
    )


def _sums(
    places: Sequence[object], rows: Sequence[Gradients], multipliers: Tensor, plain: set[int]
) -> list[Tensor | None]:
    """Σ_k m_k ∂L_k/∂place for each place, without m for one among ``plain`` with a single task.

    Added up in float32 at least, so that a multiplier need not fit the dtype of a parameter.
    """
    groups: dict[tuple[tuple[int, ...], torch.dtype, torch.device, bool, bool], list[int]] = {}
    for i, column in enumerate(zip(*rows, strict=True)):
        found = [g for g in column if g is not None]
        if found:
            tasks = tuple(k for k, g in enumerate(column) if g is not None)
            sparse = any(g.is_sparse for g in found)
            as_it_is = len(tasks) == 1 and id(places[i]) in plain
            kind = (tasks, found[0].dtype, found[0].device, sparse, as_it_is)
            groups.setdefault(kind, []).append(i)
    totals: list[Tensor | None] = [None] * len(places)
    for (tasks, dtype, device, sparse, as_it_is), members in groups.items():
        wide = torch.promote_types(dtype, torch.float32)
        real = wide.to_real()
        total: list[Tensor] = []
        for k in tasks:
            row = [g.to(wide) for i in members if (g := rows[k][i]) is not None]
            m = bounded(multipliers[k], real).to(device, real)
            scaled = _foreach_mul(row, torch.ones_like(m) if as_it_is else m)
            if not total:
                total = list(scaled)
            elif sparse:
                total = [_plus(a, b) for a, b in zip(total, scaled, strict=True)]
            else:
                _foreach_add_(total, scaled)  # made above, so nobody else holds it
        for i, whole in zip(members, total, strict=True):
            totals[i] = whole.to(dtype)
    return totals


def _below(
    graph: LossGraph, gradients: TaskGradients, multipliers: Tensor, keep: bool
) -> Sequence[Tensor | None]:
    """Σ_k m_k ∂L_k/∂leaf for what lies below the features, by one pass from there."""
    edges = gradients.features
    totals = _sums(edges, gradients.at_features, multipliers, set())
    used = [i for i, total in enumerate(totals) if total is not None]
    with explained():
        return torch.autograd.grad(
            [edges[i] for i in used],
            graph.below,
            [total for total in totals if total is not None],
            retain_graph=keep,
            allow_unused=True,
        )


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
