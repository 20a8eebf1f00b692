"""What a diagnosis is made of, and how it is printed."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, final

from gaba.record.diagnosis._thresholds import FEW_MEASURED, FEW_STEPS

Figure: TypeAlias = float | str | list[float] | list[str]
Grade: TypeAlias = Literal["fine", "watch", "act"]

GRADES: tuple[Grade, ...] = ("fine", "watch", "act")
METRICS = {
    "euclidean": "pulls in the Euclidean metric",
    "optimizer": "pulls in the optimizer's metric",
}
EFFECTIVE = "pulls by effective norms, from the update"
NOTHING = "no step had two tasks that pull, so there was nothing to balance."


@final
@dataclass(frozen=True)
class Finding:
    """One thing that a history says.

    Attributes:
        kind: a fixed name to look for, such as ``"saturated"``.
        text: one or two sentences for a person.
        figures: the numbers behind the text; a list has one entry a task, in task order.
        code: the line of code that changes it; empty if there is none.
        grade: ``"fine"``, ``"watch"`` (look at it) or ``"act"`` (change something).
        headline: how the verdict puts it in one line; empty if it says nothing of the whole run.

    Example:
        >>> Finding("dead", "'b' pulled nothing for 40 steps.", {"tasks": ["b"]}, grade="act").kind
        'dead'
    """

    kind: str
    text: str
    figures: Mapping[str, Figure]
    code: str = ""
    grade: Grade = "fine"
    headline: str = ""


@final
@dataclass(frozen=True)
class Diagnosis:
    """All findings of one history. ``str()`` gives the verdict, the line to use, the evidence.

    Attributes:
        tasks: the K task names.
        steps: how many steps of the history were read.
        findings: those to act on first, then those to watch, then what is fine.
        about: what the record says of all its steps: the metric, the measurement, and why that.
        recorded: how many steps there were, where old ones are thinned out.
        engines: what was measured, as in :attr:`gaba.Step.engine`, each once.
        measured: in how many steps; None if that is not known.

    Example:
        >>> away = Finding("rare", "'b' is in 2 % of the steps.", {}, "", "watch", "'b' is rare.")
        >>> print(Diagnosis(("a", "b"), 90, (away,)))
        Watch: 'b' is rare.
        90 steps of 2 tasks (a, b).
        - 'b' is in 2 % of the steps.
    """

    tasks: tuple[str, ...]
    steps: int
    findings: tuple[Finding, ...]
    about: Mapping[str, str] = field(default_factory=dict)
    recorded: int = 0
    engines: tuple[str, ...] = ()
    measured: int | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the findings, in order."""
        return tuple(finding.kind for finding in self.findings)

    @property
    def grade(self) -> Grade:
        """``"act"``, ``"watch"`` or ``"fine"``: that of the finding which :attr:`verdict` tells."""
        found = self._decisive
        return "watch" if found is None else found.grade

    @property
    def verdict(self) -> str:
        """The grade and what matters most, in one line; with few steps it says how few."""
        said = NOTHING if self._decisive is None else self._decisive.headline
        few = ""
        if self.steps < FEW_STEPS:
            few = f"Only {self.steps} step{'s' * (self.steps != 1)}"
        elif self.measured is not None and 0 < self.measured < FEW_MEASURED:
            few = f"Only {self.measured} measured step{'s' * (self.measured != 1)}"
        grade = self.grade.capitalize()
        return f"{grade}. {few}: {said}" if few else f"{grade}: {said}"

    @property
    def code(self) -> str:
        """The line of code to use: that of the verdict, or of another finding of its grade.

        Empty if nothing has to change.
        """
        if self.grade == "fine" or self._decisive is None:
            return ""
        alike = (f.code for f in self.findings if f.grade == self.grade and f.code)
        return self._decisive.code or next(alike, "")

    @property
    def evidence(self) -> tuple[Finding, ...]:
        """The findings whose text :attr:`verdict` does not tell already."""
        return tuple(finding for finding in self.findings if finding.text not in self.verdict)

    @property
    def _decisive(self) -> Finding | None:
        """The first finding of the worst grade that says something of the whole run."""
        told = [finding for finding in self.findings if finding.headline]
        return max(told, key=lambda finding: GRADES.index(finding.grade), default=None)

    def find(self, kind: str) -> Finding | None:
        """The finding of this kind, or None.

        Example:
            >>> Diagnosis(("a", "b"), 9, ()).find("saturated") is None
            True
        """
        return next((finding for finding in self.findings if finding.kind == kind), None)

    def asdict(self) -> dict[str, Any]:
        """Plain values for JSON: a figure that is infinite or not a number becomes None.

        Example:
            >>> finding = Finding("imbalance", "Infinite.", {"median": float("inf")}, grade="act")
            >>> Diagnosis(("a", "b"), 9, (finding,)).asdict()["findings"][0]["figures"]
            {'median': None}
        """
        return {
            "tasks": list(self.tasks),
            "steps": self.steps,
            "about": dict(self.about),
            "engines": list(self.engines),
            "grade": self.grade,
            "verdict": self.verdict,
            "code": self.code,
            "findings": [
                {
                    "kind": finding.kind,
                    "grade": finding.grade,
                    "headline": finding.headline,
                    "text": finding.text,
                    "figures": {name: _plain(value) for name, value in finding.figures.items()},
                    "code": finding.code,
                }
                for finding in self.findings
            ],
        }

    def __str__(self) -> str:
        """The verdict, the line of code, and the evidence, wrapped to 100 columns."""
        of = f" of {self.recorded:,}" if self.recorded > self.steps else ""
        head = f"{self.steps:,}{of} step{'s' * (self.steps != 1)} of {len(self.tasks)} tasks"
        known = METRICS.get(self.about.get("metric", ""))
        along = self.about.get("method") != "observe" and {"products", "probe"} & set(self.engines)
        known = EFFECTIVE if along else known
        said = f", {known}" if known else ""
        lines = textwrap.wrap(self.verdict, 100)
        if self.code:
            lines.append(f"Use: {self.code}")
        lines += textwrap.wrap(f"{head} ({', '.join(self.tasks)}){said}.", 100)
        if reason := self.about.get("reason"):
            lines += textwrap.wrap(f"Measured by {self.about.get('measurement')}: {reason}.", 100)
        for finding in self.evidence:
            lines += textwrap.wrap(finding.text, 100, initial_indent="- ", subsequent_indent="  ")
        return "\n".join(lines)


def _plain(value: object) -> object:
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
