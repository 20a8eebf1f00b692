"""The catalogue: methods of TorchJD, through the bridge, with its own weights and length."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, final

from gaba.extras import install
from gaba.measurement import ExactNorms
from gaba.methods.entry import Entry
from gaba.methods.method import Method
from gaba.methods.own import PLAIN
from gaba.rules import Rule


def _bridge() -> Any:
    return import_module("gaba.rules.torchjd")  # says itself which extra brings TorchJD


@final
@dataclass(frozen=True)
class _Peer:
    """Builds the method of one aggregator of TorchJD.

    Settings that the aggregator's own constructor takes go to it, ``seed`` to the bridge, all
    others to the method.

    Attributes:
        aggregator: the name of its class.
        defaults: of settings for which it has no default, or another one here.
    """

    aggregator: str
    defaults: tuple[tuple[str, Any], ...] = ()

    def __call__(self, tasks: Sequence[str], shared: object, **settings: Any) -> Method:
        seed = settings.pop("seed", 0)
        theirs = self.made(tasks, settings)
        return _method(_bridge().FromTorchJD(theirs, seed=seed), settings)

    def made(self, tasks: Sequence[str], settings: dict[str, Any]) -> Any:
        """TorchJD's aggregator; what it takes of ``settings`` is taken out of them."""
        theirs = getattr(_bridge().aggregation, self.aggregator)
        own = {"n_tasks": len(tasks)} if self.aggregator == "NashMTL" else {}
        for name in inspect.signature(theirs).parameters:
            if name in settings:
                own[name] = settings.pop(name)
        try:
            return theirs(**{**dict(self.defaults), **own})
        except ImportError as error:
            missing = str(error).split(". ")[0]  # after that it names extras of its own
            # the extra leaves ecos out where it would have to be compiled
            compiled = "ecos" in missing and sys.version_info >= (3, 13)
            remedy = "pip install ecos" if compiled else install("bench")
            raise ImportError(f"{missing}: {remedy}") from error


def _smoothed(tasks: Sequence[str], shared: object, **settings: Any) -> Method:
    """The weights of another peer, ``inner``, smoothed."""
    inner, seed = settings.pop("inner", "mgda"), settings.pop("seed", 0)
    if inner not in _MAKERS:
        raise ValueError(f"inner must be one of {', '.join(_MAKERS)}; found {inner!r}")
    own = {name: settings.pop(name) for name in ("alpha", "initial_weights") if name in settings}
    bridge = _bridge()
    weighting = bridge.FromTorchJD(_MAKERS[inner].made(tasks, settings)).weighting
    smoothed = bridge.aggregation.CRMOGMWeighting(weighting, **own)
    return _method(bridge.FromTorchJD(smoothed, seed=seed), settings)


def _method(rule: Rule, settings: dict[str, Any]) -> Method:
    """As TorchJD trains: nothing is smoothed, and heads get their own gradients where they can."""
    exact = settings.get("measure", "exact") == "exact" or isinstance(
        settings["measure"], ExactNorms
    )
    heads = "plain" if exact and settings.get("every", 1) == 1 else "weighted"
    return Method(rule, **{**PLAIN, "heads": heads, **settings})


_MAKERS = {
    "pcgrad": _Peer("PCGrad"),
    "gradvac": _Peer("GradVac"),
    "mgda": _Peer("MGDA"),
    "cagrad": _Peer("CAGrad", (("c", 0.4),)),
    "imtl-g": _Peer("IMTLG"),
    "nash-mtl": _Peer("NashMTL"),
    "aligned-mtl": _Peer("AlignedMTL"),
    "fairgrad": _Peer("FairGrad", (("alpha", 2.0),)),
    "config": _Peer("ConFIG"),
    "dualproj": _Peer("DualProj"),
    "upgrad": _Peer("UPGrad"),
    "pcd": _Peer("PCD"),
    "krum": _Peer("Krum", (("n_byzantine", 0),)),
}
"""Which class each is, with the settings of the papers where TorchJD sets none."""

PASSES = "K backward passes"


def _row(
    name: str, formula: str, source: str, also: str, build: Callable[..., Method] | None = None
) -> Entry:
    cost = f"{PASSES}, and on the host {also}"
    return Entry(name, "peer", formula, source, "Gramian", cost, build or _MAKERS[name])


PEERS: tuple[Entry, ...] = (
    _row(
        "pcgrad",
        "Σ_k w_k g_k = Σ_k g_k less its part along each g_l it conflicts with, l in random order",
        "Yu et al. 2020",
        "K² projections",
    ),
    _row(
        "gradvac",
        "as pcgrad, but each cosine is raised to its own running average φ_kl",
        "Wang et al. 2021",
        "K² projections",
    ),
    _row(
        "mgda",
        "w = argmin ‖Σ_k w_k g_k‖ on the simplex",
        "Désidéri 2012; Sener and Koltun 2018",
        "up to 100 Frank-Wolfe steps",
    ),
    _row(
        "cagrad",
        "w = 1/K + c ‖ḡ‖/‖g_u‖ u, u = argmin ⟨g_u, ḡ⟩ + c ‖ḡ‖ ‖g_u‖ on the simplex, c = 0.4",
        "Liu et al. 2021",
        "a cone program",
    ),
    _row(
        "imtl-g",
        "w = G⁺ √diag G, brought to sum 1: equal projections on all unit gradients, signs free",
        "Liu et al. 2021 (IMTL)",
        "a pseudoinverse",
    ),
    _row(
        "nash-mtl",
        "G w = 1/w: the Nash bargaining solution; ‖Σ_k w_k g_k‖ at most 1",
        "Navon et al. 2022",
        "up to 20 cone programs",
    ),
    _row(
        "aligned-mtl",
        "w = √λ_min G^(−½) 1/K: the gradients made orthogonal and of one length",
        "Senushkin et al. 2023",
        "an eigendecomposition",
    ),
    _row(
        "fairgrad",
        "(G w)_k = w_k^(−1/α), α = 2: α-fair progress of all tasks",
        "Ban and Ji 2024",
        "a nonlinear least squares problem",
    ),
    _row(
        "config",
        "d = Σ_k w_k g_k along U⁺1, U the unit gradients; ‖d‖ = Σ_k ⟨g_k, d/‖d‖⟩",
        "Liu et al. 2024 (ConFIG)",
        "an eigendecomposition",
    ),
    _row(
        "dualproj",
        "the projection of Σ_k g_k/K on {d: ⟨g_k, d⟩ ≥ 0 for all k}",
        "Lopez-Paz and Ranzato 2017",
        "a quadratic program",
    ),
    _row(
        "upgrad",
        "the mean of the projections of each g_k on {d: ⟨g_l, d⟩ ≥ 0 for all l}",
        "Quinton and Rey 2024",
        "K quadratic programs",
    ),
    _row(
        "pcd",
        "the point nearest to g_1 with ⟨g_k, d⟩ ≥ τ ‖g_k‖² for k > 1, norms averaged: 1 is primary",
        "Priority-Constrained Descent 2026",
        "a quadratic program",
    ),
    _row(
        "krum",
        "w = 1 for the task whose gradient lies nearest to the others', 0 for the others; K ≥ 3",
        "Blanchard et al. 2017",
        "K² distances",
    ),
    _row(
        "cr-mogm",
        "w ← α w + (1 − α) ŵ, α = 0.9, ŵ the weights of another peer (inner='mgda')",
        "Zhou et al. 2022",
        "what that peer takes",
        _smoothed,
    ),
)
"""TorchJD's methods. Its Mean, Sum, Constant and Random are "uniform", "fixed:" and "rlw" here.

ExcessMTL, GradDrop and TrimmedMean look at single entries of the gradients, MoDo and SDMGrad at
several batches in a step: no Gramian of one batch serves them.
"""
