"""Rows of the table of methods: the published ones, and the control that has a memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

import gaba
from gaba.measurement import SmoothedGradients
from gaba.methods._table import Method
from gaba.rules import (
    DWA,
    FAMO,
    RLW,
    AnyWeighting,
    GeometricMean,
    GradNorm,
    InverseInitial,
    InverseNorm,
    ScaleInvariant,
    SmoothTchebycheff,
    Uncertainty,
)

FREE = "nothing"


def _with_settings(kind: Callable[..., AnyWeighting], **own: Any) -> Callable[..., gaba.Balancer]:
    """The Balancer of a weighting whose settings may stand among those of the Balancer."""
    names = {field.name for field in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]

    def make(tasks: Sequence[str], shared: Any, **settings: Any) -> gaba.Balancer:
        mine = {name: settings.pop(name) for name in names & set(settings)}
        method = {"weighting": kind(**mine), "norm_stabiliser": None, "scale": "rule", **own}
        return gaba.Balancer(tasks, shared, **{**method, **settings})

    return make


def _gradnorm(tasks: Sequence[str], shared: Any, **settings: Any) -> gaba.Balancer:
    layer = "last-layer" if isinstance(shared, nn.Module) else "exact"
    return _with_settings(GradNorm, measurement=layer)(tasks, shared, **settings)


def _db_mtl(
    tasks: Sequence[str],
    shared: Any,
    *,
    decay: float = 0.9,
    rate: float = 0.5,
    log: bool = True,
    **settings: Any,
) -> gaba.Balancer:
    known: Any = shared if isinstance(shared, str | nn.Module) else list(shared)  # it is read twice
    method = {
        "measurement": SmoothedGradients.like(known, decay=decay, rate=rate, log=log),
        "norm_stabiliser": None,
        "weighting": InverseNorm(),
        "scale": "max",
        "heads": "plain",
    }
    return gaba.Balancer(tasks, known, **{**method, **settings})


PUBLISHED = (
    Method(
        "db-mtl",
        "published",
        "λ_k = max ‖ĝ‖/‖ĝ_k‖ on ĝ_k, the averaged gradient of log L_k",
        "Lin et al. 2023",
        "gradients",
        "K − 1 backward passes, and K gradients held",
        _db_mtl,
    ),
    Method(
        "gradnorm",
        "published",
        "λ_k learnt by descent on Σ |λ_k g_k − mean(λg) r_k^α|, r_k the relative training rate",
        "Chen et al. 2018",
        "norms (of the last layer, where what is shared is a module) and losses",
        "K backward passes through the heads and the last shared layer",
        _gradnorm,
    ),
    Method(
        "uncertainty",
        "published",
        "λ_k = ½ e^{−s_k}, s learnt by descent on Σ ½ e^{−s_k} L_k + ½ s_k",
        "Kendall et al. 2018",
        "losses",
        FREE,
        _with_settings(Uncertainty),
    ),
    Method(
        "dwa",
        "published",
        "λ_k = K softmax(r/T)_k, r_k the mean loss of the last epoch over that before",
        "Liu et al. 2019",
        "losses, and window= the steps of an epoch",
        FREE,
        _with_settings(DWA),
    ),
    Method(
        "rlw",
        "published",
        "λ = softmax of K standard normal numbers",
        "Lin et al. 2022",
        FREE,
        FREE,
        _with_settings(RLW),
    ),
    Method(
        "scale-invariant",
        "published",
        "λ_k = 1/L_k, the gradient of Σ log L_k",
        "Navon et al. 2022",
        "losses above 0",
        FREE,
        _with_settings(ScaleInvariant),
    ),
    Method(
        "geometric-mean",
        "published",
        "λ_k = (Π L)^{1/K}/(K L_k), the gradient of the geometric mean",
        "Chennupati et al. 2019",
        "losses above 0",
        FREE,
        _with_settings(GeometricMean),
    ),
    Method(
        "famo",
        "published",
        "λ_k ∝ z_k/L_k, z = softmax(ξ), ξ learnt from how much each log L_k falls",
        "Liu et al. 2023",
        "losses above their minimum",
        FREE,
        _with_settings(FAMO),
    ),
    Method(
        "smooth-tchebycheff",
        "published",
        "λ_k = K softmax(l/μ)_k/L_k, l_k = log(L_k/n_k), n_k a mean loss of the warm-up",
        "Lin et al. 2024",
        "losses above 0",
        FREE,
        _with_settings(SmoothTchebycheff),
    ),
    Method(
        "inverse-initial",
        "control",
        "λ_k = 1/L_k(0), the inverse of the first losses",
        "",
        "losses above 0",
        FREE,
        _with_settings(InverseInitial),
    ),
)
