"""The turbofan network: one shared backbone, one head for the RUL and one for the health class."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, TypedDict, final

from torch import Tensor, nn

from gaba.turbofan._checks import check
from gaba.turbofan.fleet import RUL_CAP

SENSORS_AND_SETTINGS = 17
WINDOW = 30
HEALTH_CLASSES = 3
FEATURES = 32
MEAN_RUL = 85.0
"""About the mean of the label capped at 125, in cycles; the RUL head starts there."""

Size = Literal["small", "paper"]
HIDDEN: dict[Size, int] = {"small": 64, "paper": 256}


class Output(TypedDict):
    """The answers for N windows: ``rul`` (N,) in cycles, ``health`` (N, 3) logits."""

    rul: Tensor
    health: Tensor


@final
class LastStepAttention(nn.Module):
    """Self-attention with residual and LayerNorm, computed for the last step of a sequence only.

    It is the last row of ``LayerNorm(h + MultiheadAttention(h, h, h))``, (N, T, width) to
    (N, width).

    >>> import torch
    >>> attention = LastStepAttention(width=16)
    >>> attention(torch.zeros(4, 30, 16)).shape
    torch.Size([4, 16])
    """

    def __init__(self, width: int, heads: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, steps: Tensor) -> Tensor:
        """Steps (N, T, width) to the attended last step (N, width)."""
        last = steps[:, -1:]
        attended, _ = self.attention(last, steps, steps, need_weights=False)
        return self.norm((last + attended)[:, 0])


@final
class Backbone(nn.Module):
    """The shared part: windows (N, 30, inputs) to features (N, 32); C-MAPSS has 17 inputs.

    Conv1d inputs→64→128→64 (kernel 3, BatchNorm, ReLU, dropout), a 2-layer bidirectional LSTM,
    8-head attention for the last step, fully connected to 32. Training also drops whole inputs (a
    sensor over the window), half as often: neighbouring windows share 29 of their 30 cycles, and
    the model would learn their noise by heart.

    >>> import torch
    >>> Backbone(hidden=16)(torch.zeros(2, 30, 17)).shape
    torch.Size([2, 32])
    """

    def __init__(
        self, hidden: int, dropout: float = 0.2, inputs: int = SENSORS_AND_SETTINGS
    ) -> None:
        super().__init__()
        widths = (inputs, 64, 128, 64)
        layers: list[nn.Module] = [nn.Dropout1d(dropout / 2)]
        for before, after in pairwise(widths):
            layers += [
                nn.Conv1d(before, after, kernel_size=3, padding=1),
                nn.BatchNorm1d(after),
                nn.ReLU(),
                nn.Dropout(dropout),
            ]
        self.convolutions = nn.Sequential(*layers)
        self.lstm = nn.LSTM(
            widths[-1], hidden, num_layers=2, dropout=dropout, batch_first=True, bidirectional=True
        )
        self.attention = LastStepAttention(2 * hidden, dropout=dropout / 2)
        self.project = nn.Sequential(nn.Linear(2 * hidden, FEATURES), nn.ReLU())

    def forward(self, inputs: Tensor) -> Tensor:
        """Windows (N, T, inputs), time along the second axis, to features (N, 32)."""
        steps = self.convolutions(inputs.transpose(1, 2)).transpose(1, 2)
        steps, _ = self.lstm(steps)
        return self.project(self.attention(steps))


def _perceptron(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@final
class Heads(nn.Module):
    """Features (N, 32) to the RUL (32→64→32→16→1) and the health logits (32→32→16→3).

    The RUL leaves the head in parts of 1/125 of the cap, so that one recipe fits every cap; it is
    cycles for a cap of 125.

    >>> import torch
    >>> output = Heads()(torch.zeros(5, 32))
    >>> output["rul"].shape, output["health"].shape
    (torch.Size([5]), torch.Size([5, 3]))
    """

    def __init__(self, cap: float = RUL_CAP) -> None:
        super().__init__()
        self.part = cap / RUL_CAP
        self.rul = _perceptron(FEATURES, 64, 32, 16, 1)
        self.health = _perceptron(FEATURES, 32, 16, HEALTH_CLASSES)
        last = self.rul[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, MEAN_RUL)

    def forward(self, features: Tensor) -> Output:
        """Features (N, 32) to both answers."""
        rul = self.rul(features).squeeze(-1) * self.part
        return {"rul": rul, "health": self.health(features)}


@final
class TurbofanNet(nn.Module):
    """RUL (in cycles) and health class of an engine from its last 30 cycles.

    ``backbone`` holds the shared parameters, ``heads`` the others. ``small`` has 64 LSTM units a
    direction and about 0.3 million parameters in all, ``paper`` 256 and about 3.5 million.

    Args:
        size: ``"small"`` or ``"paper"``.
        dropout: In the backbone.
        inputs: Settings and sensors; C-MAPSS has 17.
        cap: The largest RUL label, in cycles.

    >>> import torch
    >>> model = TurbofanNet("small")
    >>> output = model(torch.zeros(4, 30, 17))
    >>> output["rul"].shape, output["health"].shape
    (torch.Size([4]), torch.Size([4, 3]))

    Raises:
        ValueError: ``size`` is neither of them, or a number is out of range.
    """

    def __init__(
        self,
        size: Size = "small",
        *,
        dropout: float = 0.2,
        inputs: int = SENSORS_AND_SETTINGS,
        cap: float = RUL_CAP,
    ) -> None:
        super().__init__()
        if size not in HIDDEN:
            raise ValueError(f"size must be one of {', '.join(HIDDEN)}, found {size!r}")
        check("dropout", dropout, least=0, below=1)
        check("inputs", inputs, above=0)
        check("cap", cap, above=0)
        self.backbone = Backbone(HIDDEN[size], dropout, inputs)
        self.heads = Heads(cap)

    def forward(self, inputs: Tensor) -> Output:
        """Windows (N, T, inputs) to ``{"rul": (N,), "health": (N, 3)}``."""
        return self.heads(self.backbone(inputs))
