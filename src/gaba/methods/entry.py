"""A row of the catalogue: what is known of a method, and how it is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, final

from gaba.methods.method import Method
from gaba.methods.settings import OF_MEASURE, SLOTS, meant
from gaba.rules import Rule

Group: TypeAlias = Literal["own", "control", "published", "relative", "peer"]

GROUPS: Mapping[Group, str] = MappingProxyType(
    {
        "own": "methods of this library",
        "control": "controls, which adapt to little or nothing",
        "published": "published methods",
        "relative": "the same rule as other fields write it",
        "peer": "methods of TorchJD",
    }
)
"""What each group holds, in the order in which they are listed."""

FREE = "nothing"
PASSES = "K − 1 backward passes (shared with the update)"


@final
@dataclass(frozen=True)
class Entry:
    """One method of the catalogue.

    Attributes:
        name: what it is called by, everywhere.
        group: ``"own"`` methods of this library; ``"control"``, which adapt to little or nothing;
            ``"published"`` methods of the field; ``"relative"``, this library's rule as other
            fields write it; ``"peer"``, methods of TorchJD.
        formula: one line; m_k multipliers of any sum, g_k norms, L_k losses, G the Gramian.
        source: who proposed it.
        needs: what must be seen of a step: "losses", "norms", "Gramian", ...
        cost: what that costs in a step, beyond one backward pass.
        build: ``build(tasks, shared, **settings)``, the :class:`gaba.Method`. A method with an
            ``argument`` takes ``argument=`` as well.
        argument: what stands after the colon in a name such as ``fixed:1,20``; empty if nothing.

    Example:
        >>> import gaba
        >>> gaba.methods.METHODS["equal-share"].needs
        'Gramian'
    """

    name: str
    group: Group
    formula: str
    source: str
    needs: str
    cost: str
    build: Callable[..., Method]
    argument: str = ""


def building(
    rule: Callable[..., Rule], rule_settings: Sequence[str] | None = None, **slots: Any
) -> Callable[..., Method]:
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
