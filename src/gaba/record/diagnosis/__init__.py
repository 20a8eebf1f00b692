"""What a history says, in plain words, with the figures behind every sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaba.record.diagnosis._pull import balance, dominated, shrunk, would_dominate
from gaba.record.diagnosis._result import Diagnosis, Figure, Finding
from gaba.record.diagnosis._trouble import (
    dead,
    missing,
    non_finite,
    opposed,
    probe_failed,
    unmeasured,
)
from gaba.record.diagnosis._view import View
from gaba.record.diagnosis._weights import (
    fixed_would_do,
    limited,
    noisy,
    rising,
    saturated,
    stood_still,
)

if TYPE_CHECKING:
    from gaba.record.history import History

__all__ = ["Diagnosis", "Figure", "Finding", "diagnose"]

_CHECKS = (
    rising,
    limited,
    non_finite,
    dead,
    opposed,
    missing,
    unmeasured,
    probe_failed,
    would_dominate,
    dominated,
    saturated,
    balance,
    stood_still,
    fixed_would_do,
    noisy,
    shrunk,
)


def diagnose(history: History) -> Diagnosis:
    """Read a history and say whether the tasks were balanced, what to change, and why.

    Each check gives one :class:`Finding` or none: multipliers that are still ``rising``, tasks that
    a limit leaves apart (``limited``), ``non-finite`` steps, ``dead``, ``opposed`` and ``missing``
    tasks, ``unmeasured`` norms, a ``probe`` that failed, the task that ``would-dominate`` under
    equal weights or ``dominated`` under those used, ``saturated`` multipliers, ``imbalance`` or
    ``balanced``, weights that stand ``still``, a ``fixed-would-do``, ``noisy`` weights, a
    ``shrunk`` update.
    Medians are over measured, finite steps. The thresholds are named constants beside the checks.

    Args:
        history: the steps of a run, from ``balancer.history`` or ``gaba.History.read(path)``.

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
        Balanced. Contributions were equal in every step.
        60 steps of 2 tasks (loud, quiet), pulls in the Euclidean metric.
        - Under equal weights 'loud' would have pulled 500 times as hard as 'quiet'.
        - The weights never moved: they were 0.0020/0.9980 (loud/quiet) throughout.
    """
    if len(history) == 0:
        raise ValueError("history: at least one step is needed, found 0; train before diagnosing")
    view = View.of(history)
    found = (check(view) for check in _CHECKS)
    return Diagnosis(
        tasks=view.tasks,
        steps=len(history),
        findings=tuple(finding for finding in found if finding is not None),
        about=dict(history.about),
        recorded=history.recorded,
        engines=tuple(dict.fromkeys(str(engine) for engine in view.engines if engine)),
    )
