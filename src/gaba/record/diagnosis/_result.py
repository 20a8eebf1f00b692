"""What a diagnosis is made of, and how its figures are written."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

Figure: TypeAlias = float | str | list[float] | list[str]

LISTED_TASKS = 4  # more weights than these do not fit into a sentence; the figures have them all

METRICS = {
    "euclidean": "pulls in the Euclidean metric",
    "optimizer": "pulls in the optimizer's metric",
}
EFFECTIVE = "pulls by effective norms, from the update"
VERDICTS = {
    "rising": "Not settled.",
    "limited": "Not balanced.",
    "imbalance": "Not balanced.",
    "balanced": "Balanced.",
    "unmeasured": "Not known.",
}
NOTHING = "There was nothing to balance: no step had two tasks that pull."
UNLEARNT = "Nothing was learnt: no step was finite."


@final
@dataclass(frozen=True)
class Finding:
    """One thing that a history says.

    Attributes:
        kind: a fixed name to look for, such as ``"saturated"``.
        text: one or two sentences for a person.
        figures: the numbers behind the text; a list has one entry a task, in task order.
        code: the line of code that changes it; empty if there is none.

    Example:
        >>> Finding("dead", "'b' pulled nothing for 40 steps.", {"tasks": ["b"]}).kind
        'dead'
    """

    kind: str
    text: str
    figures: dict[str, Figure]
    code: str = ""


@final
@dataclass(frozen=True)
class Diagnosis:
    """All findings of one history. ``str()`` gives the verdict, the line to use, the evidence.

    Attributes:
        tasks: the K task names.
        steps: how many steps of the history were read.
        findings: trouble first, then the pulls, the weights and the size of the update.
        about: what the record says of all its steps: the metric, the measurement, and why that.
        recorded: how many steps there were, where old ones are thinned out.
        engines: what was measured, as in :attr:`gaba.Step.engine`, each once.

    Example:
        >>> equal = Finding("balanced", "Contributions were equal in every step.", {})
        >>> diagnosis = Diagnosis(("a", "b"), 9, (Finding("missing", "'b' was away.", {}), equal))
        >>> print(diagnosis)
        Balanced. Contributions were equal in every step.
        9 steps of 2 tasks (a, b).
        - 'b' was away.
        >>> diagnosis.kinds
        ('missing', 'balanced')
    """

    tasks: tuple[str, ...]
    steps: int
    findings: tuple[Finding, ...]
    about: Mapping[str, str] = field(default_factory=dict)
    recorded: int = 0
    engines: tuple[str, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the findings, in order."""
        return tuple(finding.kind for finding in self.findings)

    @property
    def verdict(self) -> str:
        """Whether the tasks were balanced, in a sentence or two."""
        found = self._decisive
        if found is not None:
            return f"{VERDICTS[found.kind]} {found.text}"
        lost = [f for f in self.findings if f.kind == "non-finite" and f.figures["share"] == 1]
        return UNLEARNT if lost else NOTHING

    @property
    def code(self) -> str:
        """The line of code to use, from the first finding that has one; empty if none has."""
        return next((finding.code for finding in self.findings if finding.code), "")

    @property
    def evidence(self) -> tuple[Finding, ...]:
        """The findings that :attr:`verdict` does not tell already."""
        return tuple(finding for finding in self.findings if finding is not self._decisive)

    @property
    def _decisive(self) -> Finding | None:
        return next((finding for finding in self.findings if finding.kind in VERDICTS), None)

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
            >>> finding = Finding("imbalance", "Infinite.", {"median": float("inf")})
            >>> Diagnosis(("a", "b"), 9, (finding,)).asdict()["findings"]
            [{'kind': 'imbalance', 'text': 'Infinite.', 'figures': {'median': None}, 'code': ''}]
        """
        return {
            "tasks": list(self.tasks),
            "steps": self.steps,
            "about": dict(self.about),
            "engines": list(self.engines),
            "verdict": self.verdict,
            "code": self.code,
            "findings": [
                {
                    "kind": finding.kind,
                    "text": finding.text,
                    "figures": {name: _plain(value) for name, value in finding.figures.items()},
                    "code": finding.code,
                }
                for finding in self.findings
            ],
        }

    def __str__(self) -> str:
        """The verdict, the line of code, and the other findings, wrapped to 100 columns."""
        of = f" of {self.recorded:,}" if self.recorded > self.steps else ""
        head = f"{self.steps:,}{of} step{'s' * (self.steps != 1)} of {len(self.tasks)} tasks"
        known = METRICS.get(self.about.get("metric", ""))
        known = EFFECTIVE if {"products", "probe"} & set(self.engines) else known
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


def times(ratio: float) -> str:
    """A ratio with three digits that mean something: 1.08, 25.4, 500, 12,300, 3e+12, infinitely."""
    if not math.isfinite(ratio):
        return "infinitely many"
    if ratio >= 1e6:
        return f"{ratio:.0e}"
    if ratio >= 1000:
        return f"{round(ratio, 2 - math.floor(math.log10(ratio))):,.0f}"
    return f"{ratio:.{2 if ratio < 10 else 1 if ratio < 100 else 0}f}"


def percent(share: float) -> str:
    """A share as a percentage that shows 0 and 100 only when they are exact.

    Example:
        >>> percent(0.668), percent(0.25), percent(0.9996), percent(1.0), percent(0.0001)
        ('66.8 %', '25.0 %', 'over 99.9 %', '100 %', 'under 0.1 %')
    """
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    if share < 0.001:
        return "under 0.1 %"
    if share > 0.999:
        return "over 99.9 %"
    return f"{100 * share:.1f} %"


def weights_text(weights: Sequence[float], tasks: Sequence[str]) -> str:
    """Weights as ``0.048/0.952 (rul/health)``; the smallest decides the digits, up to six."""
    if len(tasks) > LISTED_TASKS:
        return f"{len(tasks)} weights from {min(weights):.3g} to {max(weights):.3g}"
    positive = [weight for weight in weights if weight > 0]
    digits = min(6, max(3, 1 - math.floor(math.log10(min(positive))))) if positive else 3
    return f"{'/'.join(f'{weight:.{digits}f}' for weight in weights)} ({'/'.join(tasks)})"


def named(tasks: Sequence[str], last: str = "and") -> str:
    """Task names in quotes, joined for a sentence.

    Example:
        >>> named(["a"]), named(["a", "b", "c"])
        ("'a'", "'a', 'b' and 'c'")
    """
    quoted = [f"'{task}'" for task in tasks]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} {last} {quoted[-1]}"
