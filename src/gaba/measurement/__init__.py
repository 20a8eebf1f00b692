"""Losses → norms or Gramian: what is observed of each task's pull on the shared parameters."""

from gaba.measurement._auto import Choice, choose
from gaba.measurement._base import Measurement, Observation, TaskGradients
from gaba.measurement._element_norms import ElementNorms
from gaba.measurement._every import Every
from gaba.measurement._exact import ExactNorms
from gaba.measurement._features import FeatureNorms
from gaba.measurement._half_batch import HalfBatch, SignalAndNoise
from gaba.measurement._last_layer import LastLayerNorms
from gaba.measurement._output_norms import OutputNorms
from gaba.measurement._sketch import SketchNorms
from gaba.measurement._smoothed import AveragedGradients, SmoothedGradients

__all__ = [
    "AveragedGradients",
    "Choice",
    "ElementNorms",
    "Every",
    "ExactNorms",
    "FeatureNorms",
    "HalfBatch",
    "LastLayerNorms",
    "Measurement",
    "Observation",
    "OutputNorms",
    "SignalAndNoise",
    "SketchNorms",
    "SmoothedGradients",
    "TaskGradients",
    "by_name",
    "choose",
]


def by_name(name: str) -> Measurement:
    """The measurement called ``name``.

    Raises:
        ValueError: no measurement has that name; the message lists those that exist.

    Example:
        >>> by_name("exact")
        ExactNorms(mode='store')
    """
    known: dict[str, type[Measurement]] = {
        "exact": ExactNorms,
        "features": FeatureNorms,
        "half-batch": HalfBatch,
        "last-layer": LastLayerNorms,
        "sketch": SketchNorms,
    }
    if name not in known:
        choices = ", ".join(("auto", *known))
        raise ValueError(f"measurement must be one of {choices}, found {name!r}")
    return known[name]()
