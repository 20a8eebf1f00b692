"""What to do about what was measured: rules from norms or Gramian to weights.

Each rule is a frozen dataclass that is called with one array or tensor:

>>> import numpy as np
>>> from gaba.weighting import InverseNorm
>>> InverseNorm()(np.array([5.0, 0.01])).round(4).tolist()
[0.002, 0.998]
"""

from gaba.weighting._base import (
    AnyWeighting,
    Measured,
    Needs,
    StatefulWeighting,
    Weighting,
)
from gaba.weighting._dwa import DWA
from gaba.weighting._encodec import EnCodec
from gaba.weighting._equal_projection import EqualProjection
from gaba.weighting._equal_share import EqualShare
from gaba.weighting._famo import FAMO
from gaba.weighting._fixed import Fixed
from gaba.weighting._gaba import Gaba
from gaba.weighting._geometric_mean import GeometricMean
from gaba.weighting._gradnorm import GradNorm
from gaba.weighting._inverse_initial import InverseInitial
from gaba.weighting._inverse_norm import InverseNorm
from gaba.weighting._log_inverse import LogInverse
from gaba.weighting._names import by_name
from gaba.weighting._pinn import PINN
from gaba.weighting._pinn_annealing import PINNAnnealing
from gaba.weighting._proportional import Proportional
from gaba.weighting._rank_inverse import RankInverse
from gaba.weighting._rlw import RLW
from gaba.weighting._scale_invariant import ScaleInvariant
from gaba.weighting._smooth_tchebycheff import SmoothTchebycheff
from gaba.weighting._targets import Targets
from gaba.weighting._uncertainty import Uncertainty
from gaba.weighting._uniform import Uniform
from gaba.weighting._vqgan import VQGAN

__all__ = [
    "DWA",
    "FAMO",
    "PINN",
    "RLW",
    "VQGAN",
    "AnyWeighting",
    "EnCodec",
    "EqualProjection",
    "EqualShare",
    "Fixed",
    "Gaba",
    "GeometricMean",
    "GradNorm",
    "InverseInitial",
    "InverseNorm",
    "LogInverse",
    "Measured",
    "Needs",
    "PINNAnnealing",
    "Proportional",
    "RankInverse",
    "ScaleInvariant",
    "SmoothTchebycheff",
    "StatefulWeighting",
    "Targets",
    "Uncertainty",
    "Uniform",
    "Weighting",
    "by_name",
]
