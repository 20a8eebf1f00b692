"""How the published methods are built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import nn

from gaba import rules
from gaba.measurement import ExactNorms, SmoothedGradients, SubBatchNorms
from gaba.methods.building import Build, building, with_slots
from gaba.methods.method import Method
from gaba.methods.own import PLAIN


def _gradnorm(tasks: Sequence[str], shared: object, **settings: Any) -> Method:
    measure = ExactNorms(layer="last" if isinstance(shared, nn.Module) else None)
    return building(rules.GradNorm, **PLAIN, measure=measure)(tasks, shared, **settings)


def _db_mtl(
    tasks: Sequence[str],
    shared: Any,
    *,
    decay: float = 0.9,
    rate: float = 0.5,
    log: bool = True,
    **settings: Any,
) -> Method:
    slots = {
        "measure": SmoothedGradients.like(shared, decay=decay, rate=rate, log=log),
        "scale": "max",
        "heads": "plain",
        "limit": None,
    }
    return with_slots(rules.InverseNorm(), slots, settings)


def _ntkmtl(
    tasks: Sequence[str],
    shared: object,
    *,
    exponent: float = 0.5,
    max_norm: float | None = 1.0,
    **settings: Any,
) -> Method:
    slots = {**PLAIN, "heads": "plain"}
    return with_slots(rules.KernelRatio(exponent, max_norm), slots, settings)


def _ntkmtl_sr(
    tasks: Sequence[str],
    shared: object,
    *,
    exponent: float = 0.5,
    parts: int = 4,
    **settings: Any,
) -> Method:
    slots = {**PLAIN, "measure": SubBatchNorms(parts)}
    return with_slots(rules.KernelRatio(exponent), slots, settings)


BUILDS: Mapping[str, Build] = MappingProxyType(
    {
        "db-mtl": _db_mtl,
        "gradnorm": _gradnorm,
        "uncertainty": building(rules.Uncertainty, **PLAIN),
        "dwa": building(rules.DWA, **PLAIN),
        "rlw": building(rules.RLW, **PLAIN),
        "scale-invariant": building(rules.ScaleInvariant, **PLAIN),
        "geometric-mean": building(rules.GeometricMean, **PLAIN),
        "famo": building(rules.FAMO, **PLAIN),
        "famo-same-step": building(rules.FAMOAlong, **PLAIN),
        "smooth-tchebycheff": building(rules.SmoothTchebycheff, **PLAIN),
        "uw-so": building(rules.SoftInverseLoss, **PLAIN),
        "slaw": building(rules.InverseDeviation, **PLAIN),
        "ntkmtl": _ntkmtl,
        "ntkmtl-sr": _ntkmtl_sr,
    }
)
"""How each is built, by its name in the catalogue."""
