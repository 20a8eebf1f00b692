"""Passes through the graph, each for the gradients of one task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, cast, final

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from gaba.autograd.graph import LossGraph

Gradients: TypeAlias = "Sequence[Tensor | None]"
"""One task's gradients, leaf by leaf; ``None`` where the task does not reach the leaf."""


@final
@dataclass(frozen=True, eq=False)
class TaskGradients:
    """The gradients of each task that a measurement left behind, so that none is computed twice.

    Attributes:
        leaves: n leaf tensors.
        of: a row of n gradients for each task present.
        features: where the passes stopped; empty if they went through to every leaf.
        at_features: a row of gradients with respect to ``features`` for each task present. One
            pass from there, of their weighted sum, gives what lies below.
    """

    leaves: tuple[Tensor, ...]
    of: tuple[Gradients, ...]
    features: tuple[GradientEdge, ...] = ()
    at_features: tuple[Gradients, ...] = ()

    @property
    def by_task(self) -> bool:
        """Whether it shows, or goes without saying, which tasks reach which leaf."""
        return not any(g is None for row in self.at_features for g in row)


def one_pass(
    graph: LossGraph,
    loss: Tensor,
    inputs: Sequence[Tensor | GradientEdge],
    *,
    free: bool = False,
    seed: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """∂loss/∂inputs by a pass that goes no deeper than to the inputs; ``.grad`` stays as it is.

    Args:
        graph: the graph that ``loss`` is part of.
        loss: what to differentiate, a scalar unless there is a ``seed``.
        inputs: leaves, or places in the graph, or both.
        free: free the part of the graph that the pass goes through.
        seed: what to multiply from the left.
    """
    if not inputs:
        return ()
    with explained():
        return torch.autograd.grad(
            loss,
            cast("Sequence[Tensor]", inputs),  # which may be edges, or both
            seed,
            retain_graph=not free or graph.fresh,
            allow_unused=True,
        )


def task_passes(
    graph: LossGraph, inputs: Sequence[Tensor | GradientEdge], *, free: bool
) -> list[tuple[Tensor | None, ...]]:
    """A row ∂L_k/∂inputs for each task present, by one pass a task.

    With ``free`` the last pass frees the part of the graph that it goes through.
    """
    last = len(graph.losses) - 1
    return [
        one_pass(graph, loss, inputs, free=free and k == last)
        for k, loss in enumerate(graph.losses)
    ]


def compile_to_keep(graph: LossGraph) -> None:
    """Have ``torch.compile`` compile what it has yet to, so that later graphs can be kept.

    For a step whose only backward pass is the caller's, which does not keep the graph.
    """
    if graph.fresh:
        with explained():
            torch.autograd.grad(graph.losses, graph.leaves, retain_graph=True, allow_unused=True)


def at_the_end(then: Callable[[], None]) -> None:
    """From within a backward pass: call ``then`` when it is over and ``.grad`` is filled.

    After what others have queued, such as the reduction over ranks: those who queue their work in
    this pass do so after its first hook, so ``then`` goes to the end of the queue once more.
    """
    engine: Any = torch.autograd.Variable._execution_engine
    engine.queue_callback(lambda: engine.queue_callback(then))


@contextmanager
def explained() -> Iterator[None]:
    """While it lasts, what torch says about a pass that cannot be made comes with the remedy.

    Raises:
        RuntimeError: the graph is gone, or is of a kind that allows no pass for one task.
    """
    try:
        yield
    except RuntimeError as error:
        said = str(error)
        for words, remedy in _REMEDIES.items():
            if words in said:
                raise RuntimeError(remedy) from error
        raise


def refuse_reentrant(graph: LossGraph) -> None:
    """Name the reason why a loss reaches no parameter, if it is a reentrant checkpoint.

    Raises:
        RuntimeError: there is one in the graph.
    """
    if any(type(node).__name__.startswith("CheckpointFunction") for node in graph.nodes):
        raise RuntimeError(_REMEDIES["Checkpointing is not compatible"])


_REMEDIES = {
    "cudnn RNN backward can only be called in training mode": (
        "an RNN on CUDA must be in training mode for any backward pass, found one in eval(): call "
        "rnn.train() (with dropout=0.0 it computes the same), or run its forward pass within "
        "torch.backends.cudnn.flags(enabled=False)"
    ),
    "through the graph a second time": (
        "losses must have a graph that is still there, found that an earlier pass has freed it and "
        "this one goes through it a second time: compute the losses again for each step, and call "
        "balancer.backward(losses) in place of loss.backward(), not beside it; call "
        "observer(losses) in front of it. If two passes are meant, give the earlier one "
        "retain_graph=True"
    ),
    "Checkpointing is not compatible": (
        "checkpoint must be called with use_reentrant=False, found that an activation checkpoint "
        "in the model is reentrant, which allows no pass for one task alone: use "
        "checkpoint(..., use_reentrant=False)"
    ),
    "donated buffers": (
        "torch.compile must not reuse the buffers of a graph that several passes go through, found "
        "a compiled part whose first backward pass was a plain one: make that pass by "
        "balancer.backward, or by loss.backward(retain_graph=True)"
    ),
}
