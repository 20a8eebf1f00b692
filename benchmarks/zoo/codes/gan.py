"""An auxiliary-classifier GAN of MONAI's networks on MNIST, with two optimizers in Lightning."""

from __future__ import annotations

import lightning
import torch
from monai.networks.nets import Classifier, Generator
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot
from torch.optim import Adam
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.image.fid import FrechetInceptionDistance

from arms import Arm
from entry import Entry, Outcome
from gaba.bench._data import find
from gaba.bench.problems.multi_mnist import digits

ENTRY = Entry(
    title="Auxiliary-classifier GAN on MNIST, two optimizers",
    package="lightning, monai, torchmetrics",
    metric="Frechet distance",
    better="lower",
    tasks=("adversarial", "class"),
)
NOISE, BATCH, STEPS, SAMPLES = 32, 32, 450, 2000


class Gan(lightning.LightningModule):
    """Two networks; each has an optimizer, a balancer and two losses."""

    def __init__(self, arm: Arm) -> None:
        super().__init__()
        self.automatic_optimization = False
        plain = {"num_res_units": 0, "norm": "batch", "kernel_size": 5}
        self.generator = Generator((NOISE + 10,), (64, 7, 7), (32, 1), (2, 2), **plain)
        self.judge = Classifier((1, 28, 28), 11, (16, 32, 64), (2, 2, 2), **plain)
        self.balance = [arm.balancer(self.judge.net), arm.balancer(self.generator)]  # +

    def configure_optimizers(self) -> list[Adam]:
        return [Adam(p.parameters(), 1e-3, (0.5, 0.999)) for p in (self.judge, self.generator)]

    def forward(self, labels: Tensor) -> Tensor:
        noise = torch.randn(len(labels), NOISE)
        return self.generator(torch.cat([noise, one_hot(labels, 10)], 1)).sigmoid()

    def losses(self, images: Tensor, labels: Tensor, real: float) -> dict[str, Tensor]:
        judged, told = self.judge(images), torch.full((len(images),), real)
        told = binary_cross_entropy_with_logits(judged[:, 0], told)
        return {"adversarial": told, "class": cross_entropy(judged[:, 1:], labels)}

    def training_step(self, batch: list[Tensor]) -> None:
        images, labels = batch
        for part, optimizer in enumerate(self.optimizers()):
            with self.toggled_optimizer(optimizer):
                losses = self.losses(self(labels), labels, float(part))
                for task, right in self.losses(images, labels, 0.9).items() if part == 0 else ():
                    losses[task] = losses[task] + right
                optimizer.zero_grad()
                self.manual_backward(self.balance[part](losses))  # +
                optimizer.step()


def train(arm: Arm, seed: int) -> Outcome:
    """Train, and return the distance of generated from held-out digits."""
    folder = find("mnist", "train-images-idx3-ubyte.gz")
    (images, labels), (unseen, truth) = digits(folder, "train"), digits(folder, "t10k")
    torch.manual_seed(0)  # one space for all seeds: the first principal components of digits
    space = nn.Sequential(nn.Flatten(), nn.Linear(784, 32))
    space[1].weight.data = torch.pca_lowrank(images[:5000].flatten(1) / 255, 32)[2].T
    lightning.seed_everything(seed, verbose=False)
    model, data = Gan(arm), TensorDataset(images[:, None] / 255, labels)
    trainer = lightning.Trainer(max_epochs=1, limit_train_batches=STEPS, barebones=True)
    with arm.training():
        trainer.fit(model, DataLoader(data, BATCH, shuffle=True))
    distance = FrechetInceptionDistance(space, normalize=True, input_img_size=(1, 28, 28))
    with torch.no_grad():
        distance.update(unseen[:, None] / 255, real=True)
        distance.update(model.eval()(truth[:SAMPLES]), real=False)
    return Outcome(distance.compute().item(), model)
