"""VQ-VAE on MNIST with the quantizer of vector-quantize-pytorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from vector_quantize_pytorch import VectorQuantize

from arms import Arm
from entry import Entry, Outcome
from gaba.bench._data import find
from gaba.bench.problems.multi_mnist import digits

ENTRY = Entry(
    title="VQ-VAE on MNIST",
    package="vector-quantize-pytorch",
    metric="squared error, 1e-3",
    better="lower",
    tasks=("reconstruction",),
    fixed=("commitment",),
    why_fixed="The commitment only keeps the encoder near its codes.",
)
STEPS, BATCH, WIDTH, CODES = 1_200, 64, 16, 128


class Autoencoder(nn.Module):
    """7×7 codes of 28×28 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *(nn.Conv2d(1, WIDTH, 4, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(WIDTH, WIDTH, 4, stride=2, padding=1), nn.ReLU()),
            nn.Conv2d(WIDTH, 16, 1),
        )
        kept = {"kmeans_init": True, "threshold_ema_dead_code": 2, "commitment_weight": 0.25}
        self.quantizer = VectorQuantize(16, CODES, accept_image_fmap=True, **kept)
        self.decoder = nn.Sequential(
            *(nn.Conv2d(16, WIDTH, 3, padding=1), nn.ReLU()),
            *(nn.ConvTranspose2d(WIDTH, WIDTH, 4, stride=2, padding=1), nn.ReLU()),
            nn.ConvTranspose2d(WIDTH, 1, 4, stride=2, padding=1),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        codes, indices, commitment = self.quantizer(self.encoder(images))
        return self.decoder(codes), indices, commitment


def pictures(kind: str) -> Tensor:
    """The digits, from 0 to 1."""
    images, _ = digits(find("mnist", "train-images-idx3-ubyte.gz"), kind)
    return images[:, None].float() / 255


def train(arm: Arm, seed: int) -> Outcome:
    """Train, and return the error of the test digits."""
    torch.manual_seed(seed)
    model, images = Autoencoder(), pictures("train")
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    balancer = arm.balancer(model.encoder)  # +
    with arm.training():
        for _ in range(STEPS):
            batch = images[torch.randint(len(images), (BATCH,))]
            drawn, _, commitment = model(batch)
            losses = {"reconstruction": mse_loss(drawn, batch), "commitment": commitment.sum()}  # +
            optimizer.zero_grad()
            balancer.backward(losses)  # +
            optimizer.step()
    test = pictures("t10k")[:5000]
    with torch.no_grad():
        drawn, indices, _ = model.eval()(test)
    use = torch.bincount(indices.flatten(), minlength=CODES) / indices.numel()
    perplexity = float(torch.special.entr(use).sum().exp())
    return Outcome(1e3 * float(mse_loss(drawn, test)), model, {"perplexity": perplexity})
