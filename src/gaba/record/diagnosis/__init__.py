"""What a history says, in plain words, with the figures behind every sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaba.record.diagnosis._pull import balance, dominated, shrunk, would_dominate
from gaba.record.diagnosis._result import Diagnosis, Figure, Finding
from gaba.record.diagnosis._trouble import dead, missing, non_finite, unmeasured
from gaba.record.diagnosis._view import View
from gaba.record.diagnosis._weights import fixed_would_do, noisy, saturated, stood_still

if TYPE_CHECKING:
    from gaba.record.history import History

__all__ = ["Diagnosis", "Figure", "Finding", "diagnose"]

_CHECKS = (
    non_finite,
    dead,
    missing,
    unmeasured,
    would_dominate,
    dominated,
    balance,
    saturated,
    stood_still,
    fixed_would_do,
    noisy,
    shrunk,
)


def diagnose(history: History) -> Diagnosis:
    """Read a history and say what the balancer did, what it could not do, and what to change.

    Each check gives one ``Finding`` or none. With the norms g (N, K), weights λ (N, K) on the
    simplex and gain a (N,) of N steps and K tasks, all medians over the measured, finite steps:

    - ``non-finite``: steps whose losses or norms were not finite (the smoothers skipped them).
    - ``dead``: a norm of exactly 0 in many steps on end.
    - ``missing``: tasks that some steps did not have.
    - ``unmeasured``: no norm was measured, so that nothing can be said of the pulls.
    - ``would-dominate``: g_k / Σ_l g_l, what would have happened under equal weights.
    - ``dominated``: λ_k g_k / Σ_l λ_l g_l, what did happen.
    - ``imbalance`` or ``balanced``: max λg / min λg, median and worst.
    - ``saturated``: weights that sat on their floor.
    - ``still``: weights that have not moved since some step.
    - ``fixed-would-do``: the judgement that the second half needed no adaptive weights.
    - ``noisy``: weights that jump from step to step without getting anywhere.
    - ``shrunk``: (Σ_k g_k / K) / (a Σ_k λ_k g_k), how much shorter the update was than under
      uniform weights: plain SGD slows down, Adam divides a steady factor out.

    The thresholds are the named constants of ``gaba.record.diagnosis._trouble``, ``_pull`` and
    ``_weights``, each with its reason. Figures that belong to tasks are lists in task order.

    Args:
        history: The steps of a run, from ``balancer.history`` or ``gaba.History.read(path)``.

    Raises:
        ValueError: If ``history`` has no steps.

    Examples:
        >>> import torch
        >>> import gaba
        >>> trunk = torch.nn.Linear(3, 2)
        >>> balancer = gaba.Balancer(["loud", "quiet"], trunk, norm_stabiliser=None)
        >>> for _ in range(60):
        ...     z = trunk(torch.ones(4, 3))
        ...     step = balancer.backward({"loud": 500 * z[:, 0].mean(), "quiet": z[:, 1].mean()})
        >>> print(diagnose(balancer.history))
        60 steps of 2 tasks (loud, quiet), pulls in the Euclidean metric.
        - Under equal weights 'loud' would have pulled 500 times as hard as 'quiet'.
        - Contributions were equal in every step.
        - The weights never moved: they were .0020/.9980 (loud/quiet) throughout.
    """
    if len(history) == 0:
        raise ValueError("history: at least one step is needed, found 0; train before diagnosing")
    view = View.of(history)
    found = (check(view) for check in _CHECKS)
    return Diagnosis(
        tasks=view.tasks,
        steps=len(history),
        findings=tuple(finding for finding in found if finding is not None),
        about=history.about,
    )
