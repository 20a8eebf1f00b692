"""What to do about what was measured: rules from norms or Gramian to weights.

Each rule is a frozen dataclass that is called with one array or tensor:

>>> import numpy as np
>>> from gaba.rules import InverseNorm
>>> InverseNorm()(np.array([5.0, 0.01])).round(4).tolist()
[0.002, 0.998]
"""

from gaba.rules._base import (
    AnyWeighting,
    Measured,
    Needs,
    StatefulWeighting,
    Weighting,
)
from gaba.rules._dwa import DWA
from gaba.rules._encodec import EnCodec
from gaba.rules._equal_projection import EqualProjection
from gaba.rules._equal_share import EqualShare
from gaba.rules._famo import FAMO
from gaba.rules._fixed import Fixed
from gaba.rules._gaba import Gaba
from gaba.rules._geometric_mean import GeometricMean
from gaba.rules._gradnorm import GradNorm
from gaba.rules._inverse_initial import InverseInitial
from gaba.rules._inverse_norm import InverseNorm
from gaba.rules._log_inverse import LogInverse
from gaba.rules._names import by_name
from gaba.rules._pinn import PINN
from gaba.rules._pinn_annealing import PINNAnnealing
from gaba.rules._proportional import Proportional
from gaba.rules._rank_inverse import RankInverse
from gaba.rules._rlw import RLW
from gaba.rules._scale_invariant import ScaleInvariant
from gaba.rules._smooth_tchebycheff import SmoothTchebycheff
from gaba.rules._targets import Targets
from gaba.rules._uncertainty import Uncertainty
from gaba.rules._uniform import Uniform
from gaba.rules._vqgan import VQGAN

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
