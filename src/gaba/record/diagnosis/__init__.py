"""What a history says, in plain words, with the figures behind every sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from gaba.record.diagnosis._gradients import conflict, owners, scattered
from gaba.record.diagnosis._multipliers import (
    amplified,
    fixed_would_do,
    limited,
    noisy,
    saturated,
    spared,
    stood_still,
)
from gaba.record.diagnosis._pull import (
    dominated,
    faded,
    imbalance,
    rising,
    shrunk,
    would_dominate,
)
from gaba.record.diagnosis._result import GRADES, Diagnosis, Figure, Finding, Grade
from gaba.record.diagnosis._trouble import (
    dead,
    missing,
    non_finite,
    opposed,
    probe_failed,
    rare,
    shared,
    unmeasured,
    warm_up,
)
from gaba.record.diagnosis._view import View

if TYPE_CHECKING:
    from gaba.record.history import History

__all__ = ["Diagnosis", "Figure", "Finding", "Grade", "diagnose"]


class _Recording(Protocol):
    history: History


_CHECKS = (
    warm_up,
    rising,
    limited,
    non_finite,
    dead,
    dominated,
    imbalance,
    shared,
    rare,
    amplified,
    conflict,
    opposed,
    owners,
    scattered,
    saturated,
    noisy,
    shrunk,
    unmeasured,
    would_dominate,
    faded,
    missing,
    probe_failed,
    stood_still,
    fixed_would_do,
    spared,
)
"""Of two findings with one grade, the verdict tells the one that stands first here."""


def diagnose(history: History | _Recording) -> Diagnosis:
    """Read a history and say whether the tasks are balanced, what to change, and why.

    Each check gives one :class:`Finding` or none, with a grade: ``"fine"``, ``"watch"`` (look at
    it) or ``"act"`` (change something). The verdict tells the first of the worst grade. Medians are
    over measured, finite steps. All thresholds stand in ``_thresholds.py`` with their reasons.

    Args:
        history: the steps of a run, from ``balancer.history`` or ``gaba.History.read(path)``, or
            the Balancer itself.

    Raises:
        ValueError: ``history`` has no steps.

    Example:
        >>> import torch, gaba
        >>> trunk = torch.nn.Linear(3, 2)
        >>> balancer = gaba.Balancer(["loud", "quiet"], trunk, method="inverse")
        >>> for _ in range(60):
        ...     z = trunk(torch.ones(4, 3))
        ...     step = balancer.backward({"loud": 500 * z[:, 0].mean(), "quiet": z[:, 1].mean()})
        >>> print(diagnose(balancer.history))
        Fine: the tasks pull equally hard.
        60 steps of 2 tasks (loud, quiet), pulls in the Euclidean metric.
        - Contributions were equal in every step.
        - Under equal weights 'loud' would have pulled 500 times as hard as 'quiet'.
        - The weights never moved: they were 0.0020/0.9980 (loud/quiet) throughout.
    """
    run: Any = getattr(history, "history", history)  # of a Balancer
    if not hasattr(run, "recorded"):
        raise TypeError(
            f"history must be a gaba.History or a Balancer, found {type(run).__name__}: pass "
            "balancer.history, or gaba.History.read(path)"
        )
    history = cast("History", run)
    if len(history) == 0:
        raise ValueError(
            "history: at least one step is needed, found 0; call balancer.backward(losses) before "
            "diagnosing (in eval() or under no_grad nothing is recorded)"
        )
    view = View.of(history)
    found = [finding for check in _CHECKS if (finding := check(view)) is not None]
    return Diagnosis(
        tasks=view.tasks,
        steps=len(history),
        findings=tuple(sorted(found, key=lambda f: GRADES.index(f.grade), reverse=True)),
        about=dict(history.about),
        recorded=history.recorded,
        engines=tuple(dict.fromkeys(str(engine) for engine in view.engines if engine)),
        measured=int(np.isfinite(view.pulls).any(axis=1).sum()),
    )
