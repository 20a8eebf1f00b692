"""What a diagnosis is made of, and how its figures are written."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

Figure: TypeAlias = float | str | list[float] | list[str]

LISTED_TASKS = 4  # more weights than these do not fit into a sentence; the figures have them all


@final
@dataclass(frozen=True)
class Finding:
    """One thing that a history says.

    Attributes:
        kind: A fixed name to look for, such as ``"saturated"``.
        text: One or two sentences for a person.
        figures: The numbers behind the text; a list has one entry a task, in task order.

    Examples:
        >>> Finding("dead", "'b' pulled nothing for 40 steps.", {"tasks": ["b"]}).kind
        'dead'
    """

    kind: str
    text: str
    figures: dict[str, Figure]


@final
@dataclass(frozen=True)
class Diagnosis:
    """All findings of one history; ``str()`` gives a text to read.

    Attributes:
        tasks: The K task names.
        steps: How many steps the history has.
        findings: Trouble first, then the pulls, the weights and the size of the update.
        about: What the record says of all its steps: the metric, the measurement, and why that.

    Examples:
        >>> diagnosis = Diagnosis(("a", "b"), 9, (Finding("missing", "'b' was away.", {}),))
        >>> print(diagnosis)
        9 steps of 2 tasks (a, b).
        - 'b' was away.
        >>> diagnosis.kinds
        ('missing',)
    """

    tasks: tuple[str, ...]
    steps: int
    findings: tuple[Finding, ...]
    about: Mapping[str, str] = field(default_factory=dict)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the findings, in order."""
        return tuple(finding.kind for finding in self.findings)

    def find(self, kind: str) -> Finding | None:
        """The finding of this kind, or None.

        Examples:
            >>> Diagnosis(("a", "b"), 9, ()).find("saturated") is None
            True
        """
        return next((finding for finding in self.findings if finding.kind == kind), None)

    def asdict(self) -> dict[str, Any]:
        """Plain values for JSON: a figure that is infinite or not a number becomes None.

        Examples:
            >>> finding = Finding("imbalance", "Infinite.", {"median": float("inf")})
            >>> Diagnosis(("a", "b"), 9, (finding,)).asdict()["findings"]
            [{'kind': 'imbalance', 'text': 'Infinite.', 'figures': {'median': None}}]
        """
        return {
            "tasks": list(self.tasks),
            "steps": self.steps,
            "about": dict(self.about),
            "findings": [
                {
                    "kind": finding.kind,
                    "text": finding.text,
                    "figures": {name: _plain(value) for name, value in finding.figures.items()},
                }
                for finding in self.findings
            ],
        }

    def __str__(self) -> str:
        """The findings as a list of sentences, wrapped to 100 columns."""
        head = f"{self.steps:,} step{'s' * (self.steps != 1)} of {len(self.tasks)} tasks"
        metric = {"euclidean": "the Euclidean metric", "optimizer": "the optimizer's metric"}
        known = metric.get(self.about.get("metric", ""))
        said = f", pulls in {known}" if known else ""
        lines = [f"{head} ({', '.join(self.tasks)}){said}."]
        if reason := self.about.get("reason"):
            lines.append(f"Measured by {self.about.get('measurement')}: {reason}.")
        for finding in self.findings:
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
    """Weights as ``.048/.952 (rul/health)``; the smallest decides the digits, up to six."""
    if len(tasks) > LISTED_TASKS:
        low, high = min(weights), max(weights)
        return f"{len(tasks)} weights from {low:.3g} to {high:.3g}"
    positive = [weight for weight in weights if weight > 0]
    digits = min(6, max(3, 1 - math.floor(math.log10(min(positive)))))
    numbers = [f"{weight:.{digits}f}".removeprefix("0") for weight in weights]
    return f"{'/'.join(numbers)} ({'/'.join(tasks)})"


def named(tasks: Sequence[str]) -> str:
    """Task names in quotes, joined for a sentence.

    >>> named(["a"]), named(["a", "b", "c"])
    ("'a'", "'a', 'b' and 'c'")
    """
    quoted = [f"'{task}'" for task in tasks]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
