"""What a run is doing, in one word, and what to do about it; the clock is the caller's."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, final

Word = Literal["waiting", "running", "finished", "stalled", "failed", "unreadable"]

SILENT = 60.0
"""Seconds without a new line after which a run that is not finished is stalled."""

MEND = "Fix the loss or lower the learning rate, then"

SLOWEST = 7 * 86_400.0
"""No time that is left is told beyond this."""


@final
@dataclass(frozen=True)
class Facts:
    """What a record and its folder say of a run.

    Attributes:
        error: why the record cannot be read further; empty if it can.
        meta: the configuration, from the first line.
        about: what the record says of its last steps; ``"end"`` and ``"error"`` of how it ended.
        steps: how many steps were made, from the number of the last one.
        lost: how many steps in a row were not finite, up to the last one.
        heard: when the record was written last, in seconds since 1970; NaN if that is not known.
        pace: seconds a step; NaN if that is not known.
        evaluated: whether a finished evaluation of these steps lies beside the record.
    """

    error: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    steps: int = 0
    lost: int = 0
    heard: float = math.nan
    pace: float = math.nan
    evaluated: bool = False


@final
@dataclass(frozen=True)
class Doing:
    """The state of a run.

    Attributes:
        word: which.
        said: what is known, in a sentence.
        advice: what to do; empty if nothing.
        code: the command for it; empty if there is none.
        since: when the record was written last, in seconds since 1970, where that matters.
    """

    word: Word
    said: str
    advice: str = ""
    code: str = ""
    since: float | None = None


def doing(facts: Facts, now: float) -> Doing:
    """What a run of these facts is doing at ``now``, in seconds since 1970.

    A run is finished if its record says so, if its evaluation lies beside it, or if it made the
    ``steps`` of its configuration. It failed if its record says so, or if it went silent while its
    steps were not finite. A process that was killed writes nothing: its run is stalled.

    >>> doing(Facts(steps=30, meta={"steps": 30}, heard=0.0), now=1e9).word
    'finished'
    >>> doing(Facts(steps=29, meta={"steps": 30}, heard=0.0), now=59.0).word
    'running'
    >>> doing(Facts(steps=29, meta={"steps": 30}, heard=0.0), now=60.0).word
    'stalled'
    """
    if facts.error:
        return Doing("unreadable", facts.error)
    return _ended(facts, now) or _silent(facts, now) or _going(facts)


def _ended(facts: Facts, now: float) -> Doing | None:
    end, planned = facts.about.get("end"), _whole(facts.meta.get("steps"))
    made = f"{facts.steps:,} steps"
    patience = _whole(facts.meta.get("nonfinite_patience"))
    if end == "failed":
        why = facts.about.get("error") or "an error"
        if why.startswith("KeyboardInterrupt"):
            return Doing("failed", f"Interrupted after {made}.", *_again(facts, "To go on,"))
        return Doing("failed", f"It ended after {made}: {why}.", *_again(facts, "Fix that, then"))
    if end != "finished" and 0 < patience <= facts.lost:
        said = f"The last {facts.lost:,} steps were not finite, and training gave up."
        return Doing("failed", said, *_again(facts, MEND))
    if end == "finished" or facts.evaluated or 0 < planned <= facts.steps:
        advice = "Read the verdict, or write a page to send."
        return Doing("finished", f"All is done: {made}.", advice, _report(facts))
    if facts.lost and now - facts.heard >= SILENT:
        last = "The last step was" if facts.lost == 1 else f"The last {facts.lost:,} steps were"
        said = f"{last} not finite, and none followed."
        return Doing("failed", said, *_again(facts, MEND), since=facts.heard)
    return None


def _silent(facts: Facts, now: float) -> Doing | None:
    if not now - facts.heard >= SILENT:
        return None
    so_far = f"{facts.steps:,} steps so far" if facts.steps else "no step so far"
    said = f"No new step for more than {SILENT:.0f} s, and {so_far}."
    look = "See whether the process still runs: a validation writes no steps. If it is gone,"
    return Doing("stalled", said, *_again(facts, look), since=facts.heard)


def _going(facts: Facts) -> Doing:
    if not facts.steps:
        return Doing("waiting", "There is no step yet. The page shows the first as it is written.")
    planned = _whole(facts.meta.get("steps"))
    if not planned:
        return Doing("running", f"{facts.steps:,} steps so far. The page follows by itself.")
    left = (planned - facts.steps) * facts.pace
    time = f", about {_duration(left)} left" if 0 <= left < SLOWEST else ""
    return Doing("running", f"Step {facts.steps:,} of at most {planned:,}{time}.")


def _again(facts: Facts, first: str) -> tuple[str, str]:
    """What to do to go on, and the command for it where it is known."""
    folder = facts.meta.get("run_dir")
    if isinstance(folder, str) and "subset" in facts.meta:
        return f"{first} resume the run:", f"gaba train turbofan --resume {shlex.quote(folder)}"
    return f"{first} start it again, from your last checkpoint.", ""


def _report(facts: Facts) -> str:
    folder = facts.meta.get("run_dir")
    run = shlex.quote(folder) if isinstance(folder, str) and folder else "RUN"
    return f"gaba report {run} -o report.html"


def _whole(value: Any) -> int:
    """``value`` if it is a whole number above 0, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _duration(seconds: float) -> str:
    """``seconds`` for a person.

    >>> _duration(40.0), _duration(200.0), _duration(8000.0)
    ('40 s', '3 min', '2.2 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
