"""Why a record holds no cosines, and which setting records them."""

from __future__ import annotations

from collections.abc import Mapping

from gaba.methods import METHODS

MOST = 16
"""Observing measures the Gramian of so many tasks at most."""

OBSERVE = "gaba.Observer(tasks, shared)"
BALANCE = 'gaba.Balancer(tasks, shared, method="equal-share")'


def on_cosines(about: Mapping[str, str], n_tasks: int) -> tuple[str, str]:
    """Why none were recorded, for a record of ``n_tasks`` tasks; and the line that records them.

    >>> why, line = on_cosines({"method": "gaba"}, 2)
    >>> why.partition(":")[0], line
    ('Nothing was recorded', 'gaba.Observer(tasks, shared)')
    >>> on_cosines({"method": "observe"}, 20)[1]
    'gaba.Balancer(tasks, shared, method="equal-share")'
    """
    method = about.get("method", "")
    entry = METHODS.get(method.partition(":")[0].partition("(")[0])
    if n_tasks < 2:
        return "Nothing was recorded: one task has no other to help.", ""
    if method == "observe" and n_tasks > MOST:
        why = f"Nothing was recorded: observing measures cosines of up to {MOST} tasks, found"
        return f"{why} {n_tasks:,}. Balancing by shares measures them for any number:", BALANCE
    if entry is not None and (method == "observe" or entry.needs == "Gramian"):
        return f"Nothing was recorded so far: {method!r} measures cosines, but no step has any.", ""
    named = f"the method {method!r} needs no" if method else "this method measured no"
    why = f"Nothing was recorded: {named} angles between the gradients."
    return f"{why} Observe the losses to record them; that changes no training:", OBSERVE
