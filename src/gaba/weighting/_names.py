"""The rules that have a name of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaba.weighting._dwa import DWA
from gaba.weighting._equal_projection import EqualProjection
from gaba.weighting._equal_share import EqualShare
from gaba.weighting._famo import FAMO
from gaba.weighting._gaba import Gaba
from gaba.weighting._geometric_mean import GeometricMean
from gaba.weighting._gradnorm import GradNorm
from gaba.weighting._inverse_initial import InverseInitial
from gaba.weighting._inverse_norm import InverseNorm
from gaba.weighting._log_inverse import LogInverse
from gaba.weighting._rank_inverse import RankInverse
from gaba.weighting._rlw import RLW
from gaba.weighting._scale_invariant import ScaleInvariant
from gaba.weighting._smooth_tchebycheff import SmoothTchebycheff
from gaba.weighting._uncertainty import Uncertainty
from gaba.weighting._uniform import Uniform

if TYPE_CHECKING:
    from gaba.weighting._base import AnyWeighting

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
