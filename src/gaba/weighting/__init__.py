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
from gaba.weighting._equal_projection import EqualProjection
from gaba.weighting._equal_share import EqualShare
from gaba.weighting._fixed import Fixed
from gaba.weighting._gaba import Gaba
from gaba.weighting._inverse_norm import InverseNorm
from gaba.weighting._log_inverse import LogInverse
from gaba.weighting._names import by_name
from gaba.weighting._proportional import Proportional
from gaba.weighting._rank_inverse import RankInverse
from gaba.weighting._targets import Targets
from gaba.weighting._uniform import Uniform

__all__ = [
    "AnyWeighting",
    "EqualProjection",
    "EqualShare",
    "Fixed",
    "Gaba",
    "InverseNorm",
    "LogInverse",
    "Measured",
    "Needs",
    "Proportional",
    "RankInverse",
    "StatefulWeighting",
    "Targets",
    "Uniform",
    "Weighting",
    "by_name",
]
