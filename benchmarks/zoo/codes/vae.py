"""VAE of pythae on MNIST: the reconstruction and the KL term of the evidence lower bound."""

from __future__ import annotations

import tempfile

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.trainers import BaseTrainer, BaseTrainerConfig

from arms import Arm
from entry import Entry, Outcome
from gaba.bench._data import find
from gaba.bench.problems.multi_mnist import digits

ENTRY = Entry(
    title="VAE on MNIST",
    package="pythae",
    metric="negative evidence lower bound, nats",
    better="lower",
    tasks=("reconstruction",),
    fixed=("kl",),
    why_fixed="The bound holds with the coefficient 1 only.",
)
IMAGES, EPOCHS = 20_000, 10
LOSSES = "{'reconstruction': model_output.recon_loss, 'kl': model_output.reg_loss}"


def pictures(kind: str, count: int) -> BaseDataset:
    """The first ``count`` digits, from 0 to 1."""
    images, labels = digits(find("mnist", "train-images-idx3-ubyte.gz"), kind)
    return BaseDataset(images[:count, None].float() / 255, labels[:count])


def train(arm: Arm, seed: int) -> Outcome:
    """Train, and return the bound of the test digits."""
    torch.manual_seed(seed)
    model = VAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=10, reconstruction_loss="bce"))
    balancer = arm.balancer(model.encoder)  # +
    with tempfile.TemporaryDirectory() as folder:
        settings = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=EPOCHS,
            per_device_train_batch_size=100,
            learning_rate=1e-3,
            seed=seed,
            no_cuda=True,
        )
        trainer = BaseTrainer(model, pictures("train", IMAGES), training_config=settings)
        balanced = {"loss.backward()": f"balancer.backward({LOSSES})"}
        step = arm.change(BaseTrainer._optimizers_step, balanced, balancer=balancer)
        trainer._optimizers_step = step.__get__(trainer)
        with arm.training():
            trainer.train()
    torch.manual_seed(0)
    with torch.no_grad():
        seen = trainer.model.eval()({"data": pictures("t10k", 10_000).data})
    parts = {"reconstruction": float(seen.recon_loss), "kl": float(seen.reg_loss)}
    return Outcome(sum(parts.values()), trainer.model, parts)
