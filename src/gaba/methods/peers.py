"""How the methods of TorchJD are built: through the bridge, with its own weights and length."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any, final

from gaba.extras import install
from gaba.measurement import ExactNorms
from gaba.methods.building import Build
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

BUILDS: Mapping[str, Build] = MappingProxyType({**_MAKERS, "cr-mogm": _smoothed})
"""How each is built, by its name in the catalogue."""
