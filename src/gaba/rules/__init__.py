"""What to do about what was measured: rules from losses, norms or a Gramian to multipliers.

Each rule is a frozen dataclass that you can call with one array or tensor:

>>> import numpy as np
>>> from gaba.rules import InverseNorm
>>> InverseNorm()(np.array([5.0, 0.01])).round(4).tolist()
[0.002, 0.998]
"""

from gaba.pieces import Seen
from gaba.rules.controls import RLW, Fixed, InverseInitial, Uniform
from gaba.rules.gramian import EqualProjection, EqualShare
from gaba.rules.learnt import FAMO, GradNorm, Uncertainty
from gaba.rules.losses import DWA, GeometricMean, ScaleInvariant, SmoothTchebycheff
from gaba.rules.norms import Gaba, InverseNorm, LogInverse, RankInverse
from gaba.rules.relatives import PINN, VQGAN, EnCodec, PINNAnnealing
from gaba.rules.rule import Needs, Proportional, Rule, asked, on_simplex
from gaba.rules.same_step import FAMOAlong
from gaba.rules.scatter import InverseDeviation
from gaba.rules.soft_inverse import SoftInverseLoss
from gaba.rules.tangent_kernel import KernelRatio
from gaba.rules.targets import InitialTargets, Targets

__all__ = [
    "DWA",
    "FAMO",
    "PINN",
    "RLW",
    "VQGAN",
    "EnCodec",
    "EqualProjection",
    "EqualShare",
    "FAMOAlong",
    "Fixed",
    "Gaba",
    "GeometricMean",
    "GradNorm",
    "InitialTargets",
    "InverseDeviation",
    "InverseInitial",
    "InverseNorm",
    "KernelRatio",
    "LogInverse",
    "Needs",
    "PINNAnnealing",
    "Proportional",
    "RankInverse",
    "Rule",
    "ScaleInvariant",
    "Seen",
    "SmoothTchebycheff",
    "SoftInverseLoss",
    "Targets",
    "Uncertainty",
    "Uniform",
    "asked",
    "on_simplex",
]
