"""A toy audio codec on synthesised sound, with one line in place of its loss balancer.

python examples/encodec_toy.py [STEPS]

It balances a loss of the wave and one of the spectrum (STFT). The commitment loss is no function of
the output, so it is added as it is. The weights by hand are printed beside those of the preset.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

import gaba

RATIOS, STEPS = {"time": 1.0, "spectral": 2.0}, int(sys.argv[1]) if len(sys.argv) > 1 else 100


def sound(n: int, length: int = 2048, rate: int = 8000) -> Tensor:
    """Plucked tones: decaying harmonics of a random pitch, with a little noise: (n, 1, length)."""
    t, k = torch.arange(length) / rate, torch.arange(1, 7)[:, None]
    pitch, dull = torch.rand(n, 1, 1) * 300 + 80, torch.rand(n, 1, 1) + 0.5
    tones = (2 * torch.pi * k * pitch * t).sin() * k**-dull * (-6 * k * dull * t).exp()
    return 0.4 * tones.sum(1, keepdim=True) + 0.002 * torch.randn(n, 1, length)


class Codec(nn.Module):  # noqa: D101 - down by 16, one of 128 codes a frame, and up again
    def __init__(self) -> None:
        super().__init__()
        down = [nn.Conv1d(1, 16, 9, 4, 4), nn.ELU(), nn.Conv1d(16, 32, 9, 4, 4), nn.ELU()]
        up = [nn.ConvTranspose1d(32, 16, 8, 4, 2), nn.ELU(), nn.ConvTranspose1d(16, 1, 8, 4, 2)]
        self.encoder = nn.Sequential(*down, nn.Conv1d(32, 8, 3, 1, 1))
        self.decoder = nn.Sequential(nn.Conv1d(8, 32, 3, 1, 1), nn.ELU(), *up)
        self.codebook = nn.Parameter(torch.randn(128, 8) / 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        z = self.encoder(x).mT
        nearest = torch.cdist(z.detach().reshape(-1, 8), self.codebook.detach()).argmin(1)
        code = self.codebook[nearest].view_as(z)
        loss = (code - z.detach()).square().mean() + (code.detach() - z).square().mean()
        return self.decoder((z + (code - z).detach()).mT), loss


def spectrum(wave: Tensor, size: int) -> Tensor:
    hann = torch.hann_window(size)
    return torch.stft(wave[:, 0], size, size // 4, window=hann, return_complex=True).abs()


def weights_by_hand(losses: dict[str, Tensor], y: Tensor, sums: dict[str, float]) -> Tensor:
    sums["count"] = 0.999 * sums.get("count", 0) + 1
    for name, loss in losses.items():
        (at_y,) = torch.autograd.grad(loss, y, retain_graph=True)
        sums[name] = 0.999 * sums.get(name, 0) + float(at_y.flatten(1).norm(dim=1).mean())
    total = sum(RATIOS.values()) / sums["count"]
    return torch.tensor([RATIOS[name] / total / sums[name] for name in losses]).double()


torch.manual_seed(0)
model, unseen, sums, apart = Codec(), sound(64), {}, 0.0
optimizer = torch.optim.Adam(model.parameters(), 3e-3)
balancer = gaba.Balancer([*RATIOS], model, gaba.methods.get("encodec", [*RATIOS], ratios=RATIOS))
for step in range(STEPS + 1):
    y, commitment = model(x := sound(16))
    gaps = [spectrum(x, size) - spectrum(y, size) for size in (128, 256, 512)]
    spectral = torch.stack([gap.abs().mean() + gap.square().mean() for gap in gaps]).sum()
    losses = {"time": (x - y).abs().mean(), "spectral": spectral}
    helper = weights_by_hand(losses, y, sums)
    optimizer.zero_grad()
    commitment.backward(retain_graph=True)
    seen = balancer.backward(losses, features=y)  # in place of y.backward(Σ helper_k · gradient_k)
    optimizer.step()
    preset = seen.multipliers
    apart = max(apart, float((preset / helper - 1).abs().max()))
    if step % max(1, STEPS // 5) == 0:
        decibels = -10 * ((unseen - model(unseen)[0]).var() / unseen.var()).log10().item()
        pairs = [f"{a:.4f} {b:.4f}" for a, b in zip(helper.tolist(), preset.tolist(), strict=True)]
        print(f"step {step:4}: {decibels:5.2f} dB, by hand and preset: {', '.join(pairs)}")
print(f"the same weights in {STEPS + 1} steps, to {apart:.0e}: {apart < 1e-5}")
