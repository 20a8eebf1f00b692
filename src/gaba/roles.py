"""What each entry of a loss dictionary is for: balanced, fixed, or observed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import final

import torch
from torch import Tensor

from gaba.autograd.losses import checked_tasks
from gaba.spelling import did_you_mean


@final
@dataclass(frozen=True)
class Roles:
    """Which entries of a loss dictionary are tasks, and what the others are.

    Args:
        tasks: the names of the K losses to balance.
        fixed: coefficients by name of what is added as it is, such as ``{"kl": 0.1}``.
        observed: the names of what is recorded and never added.

    Raises:
        ValueError, TypeError: a name has two roles, or a coefficient is no positive number.

    Example:
        >>> roles = Roles.of(["rul", "health"], {"kl": 0.1})
        >>> roles.terms
        ('rul', 'health', 'kl')
        >>> terms, _ = roles.split({"rul": torch.ones(()), "kl": torch.tensor(5.0), "mae": 3})
        >>> {name: float(value) for name, value in terms.items()}
        {'rul': 1.0, 'kl': 0.5, 'mae': 3.0}
    """

    tasks: tuple[str, ...]
    fixed: Mapping[str, float] = field(default_factory=dict)
    observed: tuple[str, ...] = ()

    @staticmethod
    def of(
        tasks: Sequence[str],
        fixed: Mapping[str, float] | None = None,
        observed: Iterable[str] = (),
    ) -> Roles:
        """The roles, checked."""
        names = checked_tasks(tasks)
        if fixed is not None and not isinstance(fixed, Mapping):
            raise TypeError(
                f"fixed must map names to coefficients, found {fixed!r}: pass {{'kl': 0.1}}"
            )
        if isinstance(observed, str) or not isinstance(observed, Iterable):
            raise TypeError(f"observed must hold names, found {observed!r}: pass [{observed!r}]")
        coefficients = {n: _coefficient(n, value) for n, value in (fixed or {}).items()}
        seen = tuple(observed)
        every = (*names, *coefficients, *seen)
        twice = sorted({name for name in every if every.count(name) > 1})
        if twice:
            raise ValueError(
                f"each loss must have one role, found several for {', '.join(map(repr, twice))}: "
                "name it in tasks, in fixed or in observed"
            )
        return Roles(names, coefficients, seen)

    def proportions(self, targets: Mapping[str, float]) -> list[float]:
        """``share_targets`` by task, checked: in which proportions the tasks share the update.

        Raises:
            ValueError, TypeError: a task lacks a number, or a number is not positive.

        Example:
            >>> Roles.of(["rul", "health"]).proportions({"health": 1, "rul": 3})
            [3.0, 1.0]
        """
        each = f"a number for each of the tasks {', '.join(self.tasks)}"
        if not isinstance(targets, Mapping):
            form = ", ".join(f"{task!r}: 1" for task in self.tasks)
            raise TypeError(
                f"share_targets must give {each} by name, found {targets!r}: pass {{{form}}}"
            )
        for name in targets:
            if name not in self.tasks:
                raise ValueError(
                    f"share_targets must give {each}, found one for {name!r}"
                    f"{did_you_mean(name, self.tasks)}, which is no task: leave it out"
                )
        if lacking := [task for task in self.tasks if task not in targets]:
            raise ValueError(
                f"share_targets must give {each}, found none for "
                f"{', '.join(map(repr, lacking))}: only proportions matter, 1 is as good as any"
            )
        for name, value in targets.items():
            if not 0 < _number(value) < math.inf:
                raise ValueError(
                    f"share_targets[{name!r}] must be a positive number, found {value!r}: use "
                    f"observed=[{name!r}] for a loss that is not to be trained"
                )
        return [float(targets[task]) for task in self.tasks]

    @property
    def terms(self) -> tuple[str, ...]:
        """The names of all that is added up: the tasks, then what is fixed."""
        return (*self.tasks, *self.fixed)

    def split(self, losses: Mapping[str, object]) -> tuple[dict[str, object], dict[str, Tensor]]:
        """The entries of ``losses`` that may be added up, and the values of those recorded beside.

        What is fixed comes with its coefficient; its value is recorded as the user wrote it.
        """
        terms: dict[str, object] = {}
        values: dict[str, Tensor] = {}
        for name, loss in losses.items():
            coefficient = self.fixed.get(name)
            if name in self.observed or (coefficient is not None and isinstance(loss, Tensor)):
                value = torch.as_tensor(loss if loss is not None else math.nan).detach()
                values[name] = value.double().mean() if value.device.type != "mps" else value.mean()
            if name in self.observed:
                continue
            if coefficient is not None and isinstance(loss, Tensor):
                with torch.enable_grad():
                    terms[name] = loss if coefficient == 1 else coefficient * loss
            else:
                terms[name] = loss
        return terms, values


def _coefficient(name: str, value: object) -> float:
    number = _number(value)
    if math.isnan(number):
        raise TypeError(
            f"fixed[{name!r}] must be a positive number, found {value!r}: a coefficient that "
            f"changes goes into the loss, losses[{name!r}] = beta * loss with "
            f"fixed={{{name!r}: 1.0}}"
        )
    if not 0 < number < math.inf:
        raise ValueError(
            f"fixed[{name!r}] must be a positive number, found {value!r}: use "
            f"observed=[{name!r}] to record a loss without adding it, or put the sign into the loss"
        )
    return number


def _number(value: object) -> float:
    """``value`` as a number; NaN if it is none."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
