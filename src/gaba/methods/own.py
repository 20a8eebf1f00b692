"""How this library's own methods are built, and the controls that any comparison needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gaba import rules
from gaba.measurement import HalfBatch, Tracked, Watched
from gaba.methods.building import Build, building, with_slots
from gaba.methods.method import Method
from gaba.record import History, read
from gaba.rules import Rule
from gaba.spelling import is_regularizer
from gaba.stabilisers import EMA, Belief, Chain, Floor, Identity, Warmup

PLAIN: dict[str, Any] = {"believe": Identity(), "scale": "rule"}
"""Norms as they are, multipliers as the rule gives them."""


def _gaba(
    tasks: Sequence[str],
    shared: object,
    rule: Callable[..., Rule] = rules.InverseNorm,
    **settings: Any,
) -> Method:
    """The default; a loss whose name is that of a regularizer is never amplified."""
    slots = {
        "measure": Tracked(),
        "believe": Belief(),
        "recovery": 8.0,
        "rise": 1.2,
        "limit": 64.0,
        "spared": tuple(k for k, task in enumerate(tasks) if is_regularizer(task)),
        "excuse_rare": True,
    }
    return building(rule, **slots)(tasks, shared, **settings)


def _gaba_with(rule: Callable[..., Rule] = rules.InverseNorm, **changed: Any) -> Build:
    """The default with another rule or other slots."""

    def build(tasks: Sequence[str], shared: object, **settings: Any) -> Method:
        return _gaba(tasks, shared, rule, **{**changed, **settings})

    return build


def _fixed(tasks: Sequence[str], shared: object, *, argument: str, **settings: Any) -> Method:
    try:
        multipliers = [float(word) for word in argument.split(",")]
    except ValueError:
        multipliers = []
    if len(multipliers) != len(tasks):
        raise ValueError(
            f"method 'fixed:' needs one number for each of the tasks {list(tasks)}, as in fixed:"
            f"{','.join('1' for _ in tasks)}; found {argument!r}"
        )
    return with_slots(rules.Fixed(multipliers), PLAIN, settings)


def _single(tasks: Sequence[str], shared: object, *, argument: str, **settings: Any) -> Method:
    if argument not in tasks:
        raise ValueError(
            f"method 'single:' needs one of the tasks {list(tasks)}; found {argument!r}"
        )
    return with_slots(rules.Fixed([float(task == argument) for task in tasks]), PLAIN, settings)


def _from_run(tasks: Sequence[str], shared: object, *, argument: str, **settings: Any) -> Method:
    path = Path(argument)
    found = settled(read(path / "history.jsonl" if path.is_dir() else path))
    if set(found) != set(tasks):
        raise ValueError(
            f"method 'from-run:' needs a run of the tasks {list(tasks)}, found {list(found)} in "
            f"{argument}"
        )
    return with_slots(rules.Fixed([found[task] for task in tasks]), PLAIN, settings)


def settled(history: History) -> dict[str, float]:
    """The multipliers that a run came to: each task's mean over the second half.

    They are means over the finite steps in which no task was missing. A run with these multipliers
    fixed asks: does adapting matter, or only where it ends?

    Raises:
        ValueError: there is no such step.

    Example:
        >>> import torch, gaba
        >>> w = torch.nn.Parameter(torch.ones(1))
        >>> balancer = gaba.Balancer(["a", "b"], [w], method="paper")
        >>> for _ in range(4):
        ...     _ = balancer.backward({"a": 3 * w.sum(), "b": w.sum()})
        >>> gaba.methods.settled(balancer.history)
        {'a': 0.5, 'b': 0.5}
    """
    late = history[len(history) // 2 :]
    multipliers = late.multipliers
    whole = late.finite & (multipliers == multipliers).all(-1)
    if not whole.any():
        raise ValueError(
            f"history must hold a finite step with all tasks in its second half, found none in "
            f"{len(history)} steps: take a longer run"
        )
    return dict(zip(history.tasks, multipliers[whole].mean(0).tolist(), strict=True))


BUILDS: Mapping[str, Build] = MappingProxyType(
    {
        "gaba": _gaba,
        "gaba-optimizer": _gaba_with(metric="optimizer"),
        "gaba-half": _gaba_with(measure=HalfBatch()),
        "gaba-initial": _gaba_with(rules.InitialTargets),
        "paper": building(
            rules.Gaba,
            believe=Identity(),
            smooth=Chain((Warmup(100), EMA(0.99), Floor(0.05))),
            scale="simplex",
        ),
        "inverse-optimizer": building(rules.InverseNorm, metric="optimizer"),
        "inverse-half": building(rules.InverseNorm, measure=HalfBatch()),
        "sqrt-inverse": building(lambda power=0.5: rules.InverseNorm(power), ["power"]),
        "observe": building(
            rules.Uniform, believe=Identity(), scale="rule", measure=Watched(), observes=True
        ),
        "uniform": building(rules.Uniform, **PLAIN),
        "fixed": _fixed,
        "single": _single,
        "from-run": _from_run,
        "inverse-initial": building(rules.InverseInitial, **PLAIN),
    }
)
"""How each is built, by its name in the catalogue."""
