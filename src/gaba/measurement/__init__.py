"""Losses → norms or Gramian: what is observed of each task's pull on the shared parameters."""

from gaba.autograd.losses import check_choice
from gaba.measurement.base import Measurement, Observation, Request, TaskGradients
from gaba.measurement.choice import Choice, choose
from gaba.measurement.element_norms import ElementNorms
from gaba.measurement.exact import ExactNorms
from gaba.measurement.features import FeatureNorms
from gaba.measurement.half_batch import HalfBatch, SignalAndNoise
from gaba.measurement.last_layer import LastLayerNorms
from gaba.measurement.output_norms import OutputNorms
from gaba.measurement.sketch import SketchNorms
from gaba.measurement.smoothed import AveragedGradients, SmoothedGradients

__all__ = [
    "NAMES",
    "AveragedGradients",
    "Choice",
    "ElementNorms",
    "ExactNorms",
    "FeatureNorms",
    "HalfBatch",
    "LastLayerNorms",
    "Measurement",
    "Observation",
    "OutputNorms",
    "Request",
    "SignalAndNoise",
    "SketchNorms",
    "SmoothedGradients",
    "TaskGradients",
    "by_name",
    "choose",
]


NAMES: dict[str, type[Measurement]] = {
    "exact": ExactNorms,
    "features": FeatureNorms,
    "half-batch": HalfBatch,
    "last-layer": LastLayerNorms,
    "sketch": SketchNorms,
}
"""The measurements that have a name; ``"auto"`` is what :func:`choose` recommends."""


def by_name(name: str) -> Measurement:
    """The measurement called ``name``.

    Raises:
        ValueError: no measurement has that name; the message suggests the nearest.

    Example:
        >>> by_name("exact")
        ExactNorms(mode='store')
    """
    check_choice("measure", name, ("auto", *NAMES))
    if name == "auto":
        raise ValueError("measure='auto' depends on the model: use gaba.measurement.choose")
    return NAMES[name]()
