"""What a method is: a name, what is known of it, and how its Balancer is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import gaba

Group: TypeAlias = Literal["own", "control", "published", "relative", "peer"]


@final
@dataclass(frozen=True)
class Method:
    """One way to weight losses.

    Attributes:
        name: what it is called by.
        group: "own" rules of this library; "control" weightings that adapt to nothing or to little;
            "published" methods of the field; "relative": this library's rule as other fields write
            it; "peer": methods of TorchJD.
        formula: one line; λ_k are weights of any sum, g_k norms, L_k losses, G the Gramian.
        source: who proposed it.
        needs: what must be seen of a step: "losses", "norms", "Gramian", ...
        cost: what that costs in a step, beyond one backward pass.
        make: ``make(tasks, shared, **settings)``, its Balancer. Where ``argument`` is not empty,
            also ``argument=``, what follows the colon in a name such as ``fixed:.05,.95``.
        argument: what that argument is; empty if the method has none.

    Example:
        >>> from gaba.methods import METHODS
        >>> METHODS["equal-share"].needs
        'Gramian'
    """

    name: str
    group: Group
    formula: str
    source: str
    needs: str
    cost: str
    make: Callable[..., gaba.Balancer]
    argument: str = ""
