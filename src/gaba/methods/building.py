"""From a rule, slots and settings to a method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from gaba.methods.method import Method
from gaba.methods.settings import OF_MEASURE, SLOTS, meant
from gaba.rules import Rule

Build: TypeAlias = Callable[..., Method]
"""``build(tasks, shared, **settings)``; a method with an argument takes ``argument=`` as well."""


def building(
    rule: Callable[..., Rule], rule_settings: Sequence[str] | None = None, **slots: Any
) -> Build:
    """A ``build`` for a rule with these slots. Settings of the rule may stand among the others.

    Args:
        rule: a class of :mod:`gaba.rules`, or what makes the rule of its settings.
        rule_settings: which settings are the rule's; by default the fields of the class.
        **slots: of :class:`gaba.Method`, unless settings say otherwise.
    """

    def build(tasks: Sequence[str], shared: object, **settings: Any) -> Method:
        own: Any = rule
        names = rule_settings
        if names is None:
            names = [field.name for field in dataclasses.fields(own)]
        mine = {name: settings.pop(name) for name in names if name in settings}
        return with_slots(rule(**mine), slots, settings)

    return build


def with_slots(rule: Rule, slots: dict[str, Any], settings: dict[str, Any]) -> Method:
    """The method of ``rule`` with ``slots``, changed by ``settings``.

    Raises:
        TypeError: a setting is neither of the rule nor of :class:`gaba.Method`.
    """
    theirs: Any = rule
    own = [field.name for field in dataclasses.fields(theirs)]
    for name in settings:
        if name not in SLOTS | OF_MEASURE:
            known = sorted(SLOTS | OF_MEASURE)
            raise TypeError(
                f"no setting is called {name!r}{meant(name, [*own, *known])}; "
                f"{type(rule).__name__} takes {', '.join(own) or 'none'}, a method "
                f"{', '.join(known)}"
            )
    return Method(rule, **slots).replace(**settings)
