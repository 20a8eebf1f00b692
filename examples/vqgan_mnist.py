"""A small vector-quantised GAN on MNIST, with one line in place of its helper.

python examples/vqgan_mnist.py [STEPS [FOLDER]]   (FOLDER: where MNIST's four files are)

Such codes have a helper that weighs the adversary by the pulls on the decoder's last layer. Here
the preset does it; the weight by the helper is printed beside.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import gaba

ROOT = Path(__file__).resolve().parents[1]
START, STEPS = 10, int(sys.argv[1]) if len(sys.argv) > 1 else 60  # START: of the adversary


def images(folder: Path, part: str) -> Tensor:
    raw = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    pixels = torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=16)
    return pixels.view(-1, 1, 28, 28).float() / 255


class Autoencoder(nn.Module):  # noqa: D101 - images to 7 × 7 codes out of 64, and back
    def __init__(self) -> None:
        super().__init__()
        down = [nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU()]
        up = [nn.Conv2d(8, 32, 1), nn.ReLU(), nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU()]
        self.last = nn.ConvTranspose2d(16, 1, 4, 2, 1)
        self.encoder = nn.Sequential(*down, nn.Conv2d(32, 8, 1))
        self.decoder = nn.Sequential(*up, self.last)
        self.codebook = nn.Parameter(torch.randn(64, 8) / 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        z = self.encoder(x).movedim(1, -1)
        nearest = torch.cdist(z.detach().reshape(-1, 8), self.codebook.detach()).argmin(1)
        code = self.codebook[nearest].view_as(z)
        loss = (code - z.detach()).square().mean() + 0.25 * (code.detach() - z).square().mean()
        return self.decoder((z + (code - z).detach()).movedim(-1, 1)), loss


def weight_by_hand(rec: Tensor, gan: Tensor, last_layer: Tensor, step: int) -> float:
    a, b = (torch.autograd.grad(loss, last_layer, retain_graph=True)[0] for loss in (rec, gan))
    return float((a.norm() / (b.norm() + 1e-4)).clamp(0, 1e4)) if step >= START else 0.0


torch.manual_seed(0)
places = map(Path, sys.argv[2:] or [ROOT / "data/mnist", ROOT.parent / "shared/data/mnist"])
found = [p for p in places if (p / "train-images-idx3-ubyte.gz").is_file()]
if not found:
    print("skipped: no MNIST in data/mnist or ../shared/data/mnist; name its folder")
    sys.exit()
data, unseen, apart = images(found[0], "train"), images(found[0], "t10k")[:500], 0.0
model = Autoencoder()
critic = nn.Sequential(nn.Conv2d(1, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 1, 4, 2, 1))
ours, its = (torch.optim.Adam(m.parameters(), 2e-3, (0.5, 0.9)) for m in (model, critic))
method = gaba.methods.get("vqgan", last_layer=model.last.weight, start=START)
balancer = gaba.Balancer(["rec", "gan"], model, method)
for step in range(STEPS + 1):
    y, codes = model(x := data[torch.randint(len(data), (64,))])
    losses = {"rec": (x - y).abs().mean() + codes, "gan": -critic(y).mean()}
    helper = weight_by_hand(losses["rec"], losses["gan"], model.last.weight, step)
    model.zero_grad()
    seen = balancer.backward(losses)  # in place of (rec + helper * gan).backward()
    ours.step()
    critic.zero_grad()
    ((1 - critic(x)).relu() + (1 + critic(y.detach())).relu()).mean().backward()
    its.step()
    preset = float(seen.multipliers[1])
    apart = max(apart, abs(preset - helper) / max(helper, 1e-9))
    if step % max(1, STEPS // 5) == 0:
        error = (unseen - model(unseen)[0]).abs().mean().item()
        print(f"step {step:4}: error {error:.4f}, by hand {helper:.6f}, preset {preset:.6f}")
print(f"the same weights in {STEPS + 1} steps, to {apart:.0e}: {apart < 1e-5}")
