"""The catalogue: published methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from gaba import rules
from gaba.measurement import ExactNorms, SmoothedGradients
from gaba.methods.entry import FREE, Entry, building, with_slots
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


PUBLISHED = (
    Entry(
        "db-mtl",
        "published",
        "m_k = max ‖ĝ‖/‖ĝ_k‖ on ĝ_k, the averaged gradient of log L_k",
        "Lin et al. 2023",
        "gradients",
        "K − 1 backward passes, and K gradients held",
        _db_mtl,
    ),
    Entry(
        "gradnorm",
        "published",
        "m_k learnt by descent on Σ |m_k g_k − mean(m g) r_k^α|, r_k the relative training rate",
        "Chen et al. 2018",
        "norms (of the last layer, where what is shared is a module) and losses",
        "K backward passes through the heads and the last shared layer",
        _gradnorm,
    ),
    Entry(
        "uncertainty",
        "published",
        "m_k = ½ e^{−s_k}, s learnt by descent on Σ ½ e^{−s_k} L_k + ½ s_k",
        "Kendall et al. 2018",
        "losses",
        FREE,
        building(rules.Uncertainty, **PLAIN),
    ),
    Entry(
        "dwa",
        "published",
        "m_k = K softmax(r/T)_k, r_k the mean loss of the last epoch over that before",
        "Liu et al. 2019",
        "losses, and window= the steps of an epoch",
        FREE,
        building(rules.DWA, **PLAIN),
    ),
    Entry(
        "rlw",
        "published",
        "m = softmax of K standard normal numbers",
        "Lin et al. 2022",
        FREE,
        FREE,
        building(rules.RLW, **PLAIN),
    ),
    Entry(
        "scale-invariant",
        "published",
        "m_k = 1/L_k, the gradient of Σ log L_k",
        "Navon et al. 2022",
        "losses above 0",
        FREE,
        building(rules.ScaleInvariant, **PLAIN),
    ),
    Entry(
        "geometric-mean",
        "published",
        "m_k = (Π L)^{1/K}/(K L_k), the gradient of the geometric mean",
        "Chennupati et al. 2019",
        "losses above 0",
        FREE,
        building(rules.GeometricMean, **PLAIN),
    ),
    Entry(
        "famo",
        "published",
        "m_k ∝ z_k/L_k, z = softmax(ξ), ξ learnt from how much each log L_k falls",
        "Liu et al. 2023",
        "losses above their minimum",
        FREE,
        building(rules.FAMO, **PLAIN),
    ),
    Entry(
        "smooth-tchebycheff",
        "published",
        "m_k = K softmax(l/μ)_k/L_k, l_k = log(L_k/n_k), n_k a mean loss of the warm-up",
        "Lin et al. 2024",
        "losses above 0",
        FREE,
        building(rules.SmoothTchebycheff, **PLAIN),
    ),
)
