"""A trained model as one file for other programs: raw records in, life and health out."""

from __future__ import annotations

import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final

import torch
from torch import Tensor, nn

import gaba
from gaba.extras import needs
from gaba.turbofan import _conditions, checkpoint
from gaba.turbofan.windows import HEALTH

if TYPE_CHECKING:
    from gaba.turbofan._config import TrainConfig
    from gaba.turbofan.model import TurbofanNet
    from gaba.turbofan.normalise import Normaliser

__all__ = ["ENDINGS", "Format", "Graph", "export"]

Format: TypeAlias = Literal["onnx", "torch"]
ENDINGS: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
"""How a file of each format ends."""

EXTRA = "gaba.json"
"""The file inside a ``.pt2`` that says what the inputs and outputs are."""

OUTPUTS = ("rul", "health")


@final
class Graph(nn.Module):
    """The model with all that stands before it: condition, normaliser, averages, window.

    ``forward`` takes records of raw settings and sensors, settings first, float64 (batch, cycles,
    features): each unit from its first cycle to the latest, with no fewer rows than that. It
    returns the RUL in cycles, float32 (batch,), and the probabilities of the health classes,
    float32 (batch, 3), at the last cycle. A record shorter than a window will do.

    Args:
        config: Of the run.
        model: The network.
        normaliser: Of its inputs.

    >>> from gaba import turbofan
    >>> fleet, config = turbofan.load("simulated"), turbofan.TrainConfig("simulated")
    >>> normaliser = turbofan.prepare(fleet).normaliser
    >>> graph = Graph(config, turbofan.TurbofanNet(), normaliser)
    >>> rul, health = graph(torch.zeros(5, 40, 17, dtype=torch.float64))
    >>> rul.shape, health.shape
    (torch.Size([5]), torch.Size([5, 3]))
    """

    centres: Tensor
    ranges: Tensor
    setting_mean: Tensor
    setting_scale: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, config: TrainConfig, model: TurbofanNet, normaliser: Normaliser) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().eval()
        self.window = config.window
        self.kept = 1.0 - config.smoothing
        self.settings = len(config.columns.settings)
        self.conditions = len(normaliser.centres)
        arrays = {**normaliser.to_arrays(), "ranges": _conditions.ranges(normaliser.centres)}
        for name in ("centres", "ranges", "setting_mean", "setting_scale", "mean", "scale"):
            if arrays[name].size:  # torch.export.save fails with a tensor of no elements
                self.register_buffer(name, torch.from_numpy(arrays[name]))

    def forward(self, records: Tensor) -> tuple[Tensor, Tensor]:
        """Records (batch, cycles, features) to RUL (batch,) and probabilities (batch, 3)."""
        settings, sensors = records[..., : self.settings], records[..., self.settings :]
        mean, scale = self.mean[0], self.scale[0]
        if self.conditions > 1:
            apart = (settings[..., None, :] - self.centres) / self.ranges
            condition = apart.square().sum(dim=-1).argmin(dim=-1)
            mean, scale = self.mean[condition], self.scale[condition]
        z = ((sensors - mean) * scale).to(torch.float32).to(torch.float64)
        cycles = records.shape[1]
        ends = (cycles - self.window + torch.arange(self.window)).clamp(min=0)
        inputs = self._weights(ends, cycles) @ z
        if self.settings:
            z_settings = (settings - self.setting_mean) * self.setting_scale
            inputs = torch.cat((z_settings[:, ends], inputs), dim=-1)
        output = self.model(inputs.to(torch.float32))
        return output["rul"], output["health"].softmax(dim=-1)

    def _weights(self, ends: Tensor, cycles: int) -> Tensor:
        """The weight of each row in the average at each row of the window, (window, cycles)."""
        lag = ends[:, None] - torch.arange(cycles)
        weight = self.kept ** lag.clamp(min=0).to(torch.float64) * (lag >= 0)
        return weight / weight.sum(dim=1, keepdim=True)


def export(
    config: TrainConfig,
    model: TurbofanNet,
    normaliser: Normaliser,
    path: str | Path,
    format: Format | None = None,
) -> Path:
    """Write the :class:`Graph` of a model to ``path``; :meth:`gaba.turbofan.Run.export` is simpler.

    Both formats have a dynamic batch and a dynamic number of cycles. The metadata ``gaba`` of an
    ONNX file, and the file ``gaba.json`` in a ``.pt2``, name the features, the classes and the
    settings, as JSON.

    Args:
        config: Of the run.
        model: The network.
        normaliser: Of its inputs.
        path: Ends in ``.onnx`` or ``.pt2``.
        format: ``"onnx"`` or ``"torch"``, a program for :func:`torch.export.load`; by default as
            ``path`` ends.

    Raises:
        ValueError: ``path`` does not end as its format does, or the format is unknown.
        ImportError: The extra ``onnx`` is not installed.
    """
    path = Path(path)
    endings = ENDINGS if format is None else {format: ENDINGS.get(format)}
    if None in endings.values():
        raise ValueError(f"format must be one of {', '.join(ENDINGS)}, found {format!r}")
    kinds = [kind for kind, ending in endings.items() if path.suffix == ending]
    if not kinds:
        known = " or ".join(f"{ending} ({kind})" for kind, ending in endings.items())
        raise ValueError(f"path must end in {known}, found {path}")
    graph = Graph(config, model, normaliser).eval()
    write = _onnx if kinds == ["onnx"] else _torch
    content = write(graph, len(config.columns.inputs), json.dumps(_about(config)))
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write_atomically(path, lambda file: file.write(content))
    return path


def _about(config: TrainConfig) -> dict[str, Any]:
    return {
        "gaba": gaba.__version__,
        "features": config.columns.inputs,
        "health": HEALTH,
        "cap": config.rul_cap,
        "window": config.window,
        "smoothing": config.smoothing,
    }


def _example(graph: Graph, features: int) -> tuple[Tensor]:
    return (torch.zeros(2, graph.window + 7, features, dtype=torch.float64),)


def _torch(graph: Graph, features: int, about: str) -> bytes:
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("cycles")}
    held = io.BytesIO()
    with _quiet():
        program = torch.export.export(
            graph, _example(graph, features), dynamic_shapes={"records": sizes}
        )
        torch.export.save(program, held, extra_files={EXTRA: about})
    return held.getvalue()


def _onnx(graph: Graph, features: int, about: str) -> bytes:
    with needs("exporting to ONNX needs", "onnx", "onnx", "onnxscript"):
        import onnx  # noqa: F401  torch needs both
        import onnxscript  # noqa: F401
    with _quiet():
        program = torch.onnx.export(
            graph,
            _example(graph, features),
            dynamo=True,
            verbose=False,
            input_names=["records"],
            output_names=list(OUTPUTS),
            dynamic_shapes={"records": {0: "batch", 1: "cycles"}},
        )
    assert program is not None
    made = program.model_proto
    made.metadata_props.add(key="gaba", value=about)
    return made.SerializeToString()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters say about themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
