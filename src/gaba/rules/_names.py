"""The rules that have a name of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaba.rules._dwa import DWA
from gaba.rules._equal_projection import EqualProjection
from gaba.rules._equal_share import EqualShare
from gaba.rules._famo import FAMO
from gaba.rules._gaba import Gaba
from gaba.rules._geometric_mean import GeometricMean
from gaba.rules._gradnorm import GradNorm
from gaba.rules._inverse_initial import InverseInitial
from gaba.rules._inverse_norm import InverseNorm
from gaba.rules._log_inverse import LogInverse
from gaba.rules._rank_inverse import RankInverse
from gaba.rules._rlw import RLW
from gaba.rules._scale_invariant import ScaleInvariant
from gaba.rules._smooth_tchebycheff import SmoothTchebycheff
from gaba.rules._uncertainty import Uncertainty
from gaba.rules._uniform import Uniform

if TYPE_CHECKING:
    from gaba.rules._base import AnyWeighting

NAMED: dict[str, AnyWeighting] = {
    "uniform": Uniform(),
    "gaba": Gaba(),
    "inverse": InverseNorm(),
    "sqrt-inverse": InverseNorm(power=0.5),
    "log-inverse": LogInverse(),
    "rank-inverse": RankInverse(),
    "equal-share": EqualShare(),
    "equal-projection": EqualProjection(),
    "scale-invariant": ScaleInvariant(),
    "geometric-mean": GeometricMean(),
    "gradnorm": GradNorm(),
    "uncertainty": Uncertainty(),
    "dwa": DWA(),
    "rlw": RLW(),
    "famo": FAMO(),
    "smooth-tchebycheff": SmoothTchebycheff(),
    "inverse-initial": InverseInitial(),
}


def by_name(name: str) -> AnyWeighting:
    """The rule called ``name``, with its default settings.

    Args:
        name: "uniform", "gaba", "inverse", "sqrt-inverse" (`InverseNorm` at power ½),
            "log-inverse", "rank-inverse", "equal-share", "equal-projection", "scale-invariant",
            "geometric-mean"; or, with a memory, "gradnorm", "uncertainty", "dwa", "rlw", "famo",
            "smooth-tchebycheff" or "inverse-initial".

    Raises:
        ValueError: There is no such rule; the message lists the names.

    Example:
        >>> by_name("sqrt-inverse")
        InverseNorm(power=0.5)
    """
    if name not in NAMED:
        raise ValueError(f"weighting: no rule is called {name!r}; use one of {', '.join(NAMED)}")
    return NAMED[name]
