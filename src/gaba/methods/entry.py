"""A row of the catalogue: what is known of a method, and where to find how it is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias, final

if TYPE_CHECKING:
    from gaba.methods.building import Build

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

_BUILT_IN: Mapping[Group, str] = MappingProxyType(
    {
        "own": "gaba.methods.own",
        "control": "gaba.methods.own",
        "published": "gaba.methods.published",
        "relative": "gaba.methods.relatives",
        "peer": "gaba.methods.peers",
    }
)
"""Where ``BUILDS`` of each group stands."""


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
        argument: what stands after the colon in a name such as ``fixed:1,20``; empty if nothing.
        rule: the class of :mod:`gaba.rules`, where the method is that rule and nothing else; empty
            where ``BUILDS`` in the group's file has a line for it.

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
    argument: str = ""
    rule: str = ""

    @property
    def build(self) -> Build:
        """``build(tasks, shared, **settings)``: the :class:`gaba.Method`."""
        if self.rule:
            building = import_module("gaba.methods.building").building
            return building(getattr(import_module("gaba.rules"), self.rule))
        return import_module(_BUILT_IN[self.group]).BUILDS[self.name]
