"""Shared trunks of every kind, with what they take in, for tests of measurements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Recurrent(nn.Module):
    """Convolution, BatchNorm, dropout, a bidirectional LSTM or a GRU, attention, LayerNorm."""

    def __init__(self, cell: type[nn.LSTM | nn.GRU] = nn.LSTM) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(3, 6, 3, padding=1), nn.BatchNorm1d(6), nn.Tanh())
        self.cell: nn.Module = cell(
            6, 4, num_layers=2, batch_first=True, bidirectional=True, dropout=0.2
        )
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True)
        self.norm, self.drop = nn.LayerNorm(8), nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.conv(x.transpose(1, 2)).transpose(1, 2)
        steps, _ = self.cell(self.drop(steps))
        attended, _ = self.attention(steps, steps, steps, need_weights=False)
        return self.norm(attended + steps)[:, -1]


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(5, 6, 2), nn.BatchNorm1d(6), nn.GELU(), nn.Dropout(0.3), nn.Flatten()
        )
        self.out = nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.body(x))


class Words(nn.Module):
    """An embedding with a frozen layer behind it, and a nest as output."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(7, 5), nn.Linear(5, 8)
        self.out.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Any]:
        rows = self.table((x[..., 0] * 10).long() % 7)
        return {"z": [torch.tanh(self.out(rows.mean(1)))], "size": 8}


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = Convolutions(), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        z = checkpoint(self.inner, x, use_reentrant=False)
        assert isinstance(z, Tensor)
        return self.out(z)


def spectral() -> nn.Module:
    first = nn.utils.parametrizations.spectral_norm(nn.Linear(15, 9))
    return nn.Sequential(nn.Flatten(), first, nn.Tanh(), nn.Linear(9, 8))


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
    body = nn.Sequential(nn.Linear(3, 8), nn.TransformerEncoder(layer, 2), nn.Flatten())
    return nn.Sequential(body, nn.Linear(40, 8))


def compiled() -> nn.Module:
    return cast("nn.Module", torch.compile(Convolutions(), backend="aot_eager"))


TRUNKS: dict[str, Callable[[], nn.Module]] = {
    "lstm": Recurrent,
    "gru": lambda: Recurrent(nn.GRU),
    "convolutions": Convolutions,
    "embedding": Words,
    "transformer": encoder,
    "checkpointed": Checkpointed,
    "spectral-norm": spectral,
    "perceptron": lambda: nn.Sequential(nn.Flatten(), nn.Linear(15, 9), nn.Tanh(), nn.Linear(9, 8)),
    "compiled": compiled,
}


def inputs(n: int = 12, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """What each of these trunks takes: (n, 5, 3)."""
    return torch.randn(n, 5, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def features_of(output: Any) -> Tensor:
    """The features (n, 8), wherever they are in what a trunk returned."""
    return output["z"][0] if isinstance(output, dict) else output


def task_losses(heads: nn.Module, z: Tensor, scales: tuple[float, ...]) -> list[Tensor]:
    """One loss a scale, from a linear layer with as many outputs."""
    out = heads(z)
    return [scale * (out[:, k] - k).square().mean() for k, scale in enumerate(scales)]
