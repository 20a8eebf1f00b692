"""Walks along the autograd graph: no tensor is computed, and nothing is kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor
from torch.autograd.graph import Node


def nodes_below(roots: Iterable[Node]) -> dict[Node, None]:
    """``roots`` and every node below them."""
    seen = dict.fromkeys(roots)
    stack = list(seen)
    while stack:
        for child, _ in stack.pop().next_functions:
            if child is not None and child not in seen:
                seen[child] = None
                stack.append(child)
    return seen


def leaves_of(nodes: Iterable[Node]) -> tuple[Tensor, ...]:
    """The leaf tensors that stand behind ``nodes``."""
    leaves = (getattr(node, "variable", None) for node in nodes)
    return tuple({id(leaf): leaf for leaf in leaves if leaf is not None}.values())


def reachable_leaves(losses: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The leaf tensors whose ``.grad`` a backward pass from ``losses`` would fill."""
    return leaves_of(nodes_below([loss.grad_fn for loss in losses if loss.grad_fn is not None]))


def common_leaves(losses: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The leaf tensors that two or more of ``losses`` reach; no node is looked at three times."""
    first: dict[Node, int] = {}
    common: dict[Node, None] = {}
    for k, loss in enumerate(losses):
        stack = [] if loss.grad_fn is None else [loss.grad_fn]
        while stack:
            node = stack.pop()
            if node in common or first.get(node) == k:
                continue
            if node in first:
                common[node] = None
            else:
                first[node] = k
            stack += [child for child, _ in node.next_functions if child is not None]
    return leaves_of(common)
