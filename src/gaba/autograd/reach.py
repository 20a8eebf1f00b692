"""Which losses reach which shared parameters: whether what is called shared is."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from gaba.autograd.graph import LossGraph
from gaba.autograd.sharding import sharded
from gaba.autograd.shared import SharedModule
from gaba.autograd.walk import reachable_leaves

NOTHING_SHARED = (
    "shared must hold parameters that two tasks reach, found none that is trainable: unfreeze the "
    "backbone (requires_grad_(True)), or pass what the losses do train together. If it is to stay "
    "frozen, nothing is shared and sum(losses.values()).backward() is all you need"
)
"""What to say where all that is shared is frozen."""
LISTED = 3
"""More names than these do not fit into a sentence."""


def misplaced(graph: LossGraph, names: Sequence[str]) -> str:
    """What one loss alone reaches of the shared part, in a sentence; empty if there is nothing.

    What no loss reaches is named beside it: it disturbs nothing.

    Args:
        graph: the losses of a step that has them all.
        names: of the terms, in the order of their positions.

    Example:
        >>> import torch
        >>> from gaba.autograd.shared import as_shared
        >>> trunk, head = torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)
        >>> z = trunk(torch.ones(1, 2))
        >>> losses = [head(z).sum(), z.square().sum()]
        >>> misplaced(LossGraph(losses, as_shared(torch.nn.Sequential(trunk, head))), ["a", "b"])
        "'a' alone reaches 2 of 4 shared parameters (4 numbers): 1.weight, 1.bias"
    """
    theta = graph.theta
    if sharded(theta):
        return ""
    ids = {id(p): i for i, p in enumerate(theta)}
    by: list[list[str]] = [[] for _ in theta]
    for k, loss in zip(graph.tasks, graph.losses, strict=True):
        for leaf in reachable_leaves([loss]):
            if id(leaf) in ids:
                by[ids[id(leaf)]].append(names[k])
    called = _names(graph, theta)
    clauses = []
    for owner in dict.fromkeys(tasks[0] for tasks in by if len(tasks) == 1):
        at = [i for i, tasks in enumerate(by) if tasks == [owner]]
        clauses.append(f"'{owner}' alone reaches {_counted(at, theta, called)}")
    nobody = [i for i, tasks in enumerate(by) if not tasks]
    if clauses and nobody:
        clauses.append(f"no loss reaches {_counted(nobody, theta, called)}")
    return "; ".join(clauses)


def out_of_reach(
    graph: LossGraph, names: Sequence[str], unreached: Sequence[int], says: str = ""
) -> str:
    """What is wrong if some of the losses that were measured reach no shared parameter.

    Args:
        graph: the losses that were measured.
        names: of the terms, in the order of their positions.
        unreached: the positions of the losses that reach nothing, at least one.
        says: what the measurement has to say, if it measures elsewhere.

    Example:
        >>> import torch
        >>> from gaba.autograd.shared import as_shared
        >>> trunk = torch.nn.Linear(2, 3).requires_grad_(False)
        >>> loss = torch.ones((), requires_grad=True) * 1
        >>> out_of_reach(LossGraph([loss, loss], as_shared(trunk)), ["a", "b"], [0, 1])[:55]
        'shared must hold parameters that two tasks reach, found'
    """
    first = f"losses[{names[unreached[0]]!r}]"
    if says:
        return f"{first} {says}"
    if not graph.theta:
        return NOTHING_SHARED
    found = f"{first} reaches no shared parameter"
    reaching = [names[k] for k in graph.tasks if k not in unreached]
    if reaching:
        return (
            f"{found}, but {', '.join(map(repr, reaching))} does: shared must be what all losses "
            "pass through, shared=model.backbone and not a head, and each loss must be computed "
            "from its output"
        )
    if len(graph.tasks) == 1:
        return (
            f"{found}: check that it is computed from the output of what was passed as shared, and "
            "not detached on the way"
        )
    return (
        f"{found}, and no other loss does: shared must be part of the model that computes the "
        "losses, found parameters of another one (a copy, or one created again?) or an output that "
        "is detached on the way"
    )


def _names(graph: LossGraph, theta: Sequence[nn.Parameter]) -> list[str]:
    shared = graph.shared
    known: dict[int, str] = {}
    if isinstance(shared, SharedModule):
        known = {id(p): name for name, p in shared.module.named_parameters()}
    return [known.get(id(p), f"number {i}") for i, p in enumerate(theta)]


def _counted(at: Sequence[int], theta: Sequence[nn.Parameter], called: Sequence[str]) -> str:
    numbers = sum(theta[i].numel() for i in at)
    listed = ", ".join([*(called[i] for i in at[:LISTED]), *(["…"] if len(at) > LISTED else [])])
    return f"{len(at)} of {len(theta)} shared parameters ({numbers:,} numbers): {listed}"
