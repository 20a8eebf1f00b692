"""What each entry of a loss dictionary is for: balanced, fixed, or observed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from gaba.autograd.losses import checked_tasks


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
        if isinstance(observed, str):
            raise TypeError(f"observed must hold names, found {observed!r}: pass [{observed!r}]")
        coefficients = {name: float(value) for name, value in (fixed or {}).items()}
        for name, value in coefficients.items():
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(
                    f"fixed[{name!r}] must be a positive number, found {value!r}: use "
                    f"observed=[{name!r}] to record a loss without adding it"
                )
        seen = tuple(observed)
        every = (*names, *coefficients, *seen)
        twice = sorted({name for name in every if every.count(name) > 1})
        if twice:
            raise ValueError(
                f"each loss must have one role, found several for {', '.join(map(repr, twice))}: "
                "name it in tasks, in fixed or in observed"
            )
        return Roles(names, coefficients, seen)

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
