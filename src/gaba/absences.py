"""Tasks that are missing although their loss is given: it is a constant, or reaches nothing."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

from gaba.autograd.losses import Batch

LONG = 100
"""After so many steps in a row without a gradient, one warning."""
NEVER = 10**18
"""The step that stands for one warning given."""


@final
@dataclass(frozen=True)
class Absences:
    """Which losses have had a gradient, and for how long others have had none.

    A batch without positives, or without labels of one kind, makes a loss a constant. That is no
    mistake, so the task is missing in that step. If it stays so, it is one.

    Attributes:
        met: the positions of the tasks that have had a graph.
        reached: the positions of the tasks whose loss was seen to reach a shared parameter.
        since: in how many steps in a row each task had a loss without a gradient.
        lost: for a loss that no longer reaches anything shared, the step that showed it first.
    """

    met: frozenset[int] = frozenset()
    reached: frozenset[int] = frozenset()
    since: Mapping[int, int] = field(default_factory=dict)
    lost: Mapping[int, int] = field(default_factory=dict)

    def after(self, batch: Batch) -> Absences:
        """After the losses of one step; warns where a loss has been a constant for long."""
        if not batch.constant:
            if self.met.issuperset(batch.present) and not self.since:
                return self
            since = {k: n for k, n in self.since.items() if k not in batch.present}
            return replace(self, met=self.met.union(batch.present), since=since)
        since = {k: self.since.get(k, 0) + 1 for k in batch.constant}
        for k, n in since.items():
            if n == LONG:
                _warn(batch.tasks[k], f"has been a constant without a graph for {LONG} steps")
        return replace(self, met=self.met.union(batch.present), since=since)

    def measured(
        self, asked: Sequence[int], unreached: Sequence[int], step: int, tasks: Sequence[str]
    ) -> Absences:
        """After a measurement that found which of the tasks ``asked`` reach something shared.

        Warns where one has reached nothing in all measurements of many steps.
        """
        found = set(asked) - set(unreached)
        lost = {k: first for k, first in self.lost.items() if k not in found}
        for k in unreached:
            first = lost.setdefault(k, step)
            if step - first >= LONG:
                _warn(tasks[k], f"has reached no shared parameter since step {first:,}")
                lost[k] = NEVER
        reached = self.reached.union(found)
        if reached == self.reached and lost == self.lost:
            return self
        return replace(self, reached=reached, lost=lost)

    def about(self, tasks: Sequence[str]) -> dict[str, str]:
        """For the record: which losses are without a gradient now."""
        names = [tasks[k] for k in sorted(self.since) if k < len(tasks)]
        lost = [tasks[k] for k in sorted(self.lost) if k < len(tasks)]
        return {
            **({"constant": ", ".join(names)} if names else {}),
            **({"unreached": ", ".join(lost)} if lost else {}),
        }


def _warn(task: str, what: str) -> None:
    warnings.warn(
        f"losses[{task!r}] {what}, so nothing is learnt from it: check that it is "
        "computed from the output of the model and not detached. If it is meant to be so, leave it "
        "out of the mapping or pass None.",
        stacklevel=6,
    )
