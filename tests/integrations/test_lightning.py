"""Real fits with Lightning against loops written by hand: the same parameters and multipliers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor
from torch.utils.data import DataLoader

import gaba
from _by_hand import SCALES as THREE
from _by_hand import assert_probed, balancer_of, loop
from _models import TwoStage, batch
from gaba.integrations.lightning import BalanceMonitor, scaler_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]

SCALES = (100.0, 1.0)
BATCHES = [batch(seed, n=8) for seed in range(8)]


class Module(lightning.LightningModule):
    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.net = TwoStage(SCALES)
        self.balancer = gaba.Balancer(self.net.names, shared=self.net.trunk, **settings)

    def training_step(self, x: Tensor, index: int) -> Tensor:
        return self.balancer(self.net.losses(x))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def loader(batches: Iterable[Tensor] = BATCHES) -> DataLoader[Tensor]:
    return DataLoader(list(batches), batch_size=None)  # pyright: ignore[reportArgumentType]


def trainer(folder: Path, **settings: Any) -> lightning.Trainer:
    settings = {"logger": False, "enable_checkpointing": False, "max_epochs": 1, **settings}
    return lightning.Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


def by_hand(module: Module, accumulate: int, clip: float | None) -> None:
    optimizer = module.configure_optimizers()
    for i, x in enumerate(BATCHES):
        (module.balancer(module.net.losses(x)) / accumulate).backward()
        if (i + 1) % accumulate == 0:
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(module.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()


def assert_same(a: Module, b: Module) -> None:
    for (name, p), (_, q) in zip(a.named_parameters(), b.named_parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7, msg=name)
    assert a.balancer.multipliers == pytest.approx(b.balancer.multipliers, rel=1e-6)


@pytest.mark.parametrize(
    ("accumulate", "clip", "settings"),
    [
        (1, None, {}),
        (2, 0.5, {}),
        (2, 0.5, {"accumulate": 2}),
        (4, None, {"method": "equal-share"}),
        (1, 0.1, {"method": gaba.methods.get("gaba", measure="exact"), "every": 2}),
    ],
)
def test_a_fit_is_the_loop_written_by_hand(
    accumulate: int, clip: float | None, settings: dict[str, Any], tmp_path: Path
) -> None:
    fitted, looped, untrained = Module(**settings), Module(**settings), Module(**settings)
    trainer(tmp_path, accumulate_grad_batches=accumulate, gradient_clip_val=clip).fit(
        fitted, loader()
    )
    by_hand(looped, accumulate, clip)
    assert_same(fitted, looped)
    assert not torch.equal(fitted.net.trunk[0].weight, untrained.net.trunk[0].weight)  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(
        fitted.balancer.history.norms, looped.balancer.history.norms, rtol=1e-5
    )


class Three(Module):
    def __init__(self, accumulate: int = 1) -> None:
        super().__init__()
        self.net = TwoStage(THREE)
        self.balancer = balancer_of(self.net, accumulate)


@pytest.mark.parametrize(("accumulate", "clip"), [(1, None), (2, 0.1)])
def test_the_shares_are_measured_at_the_end_of_the_backward_pass(
    accumulate: int, clip: float | None, tmp_path: Path
) -> None:
    fitted, looped = Three(accumulate), Three(accumulate)
    monitor = BalanceMonitor(every=1)
    fit = trainer(
        tmp_path,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=clip,
        callbacks=[monitor],
    )
    fit.fit(fitted, loader())
    optimizer = looped.configure_optimizers()
    truth = loop(looped.net, looped.balancer, optimizer, BATCHES, accumulate=accumulate, clip=clip)
    assert_same(fitted, looped)
    assert_probed(fitted.balancer, looped.balancer, truth)
    for k, task in enumerate(fitted.balancer.tasks):
        logged = fit.callback_metrics[f"gaba/shares/{task}"]
        assert logged == pytest.approx(fitted.balancer.history.shares[-1, k])


def test_the_monitor_logs_the_history_at_optimizer_steps(tmp_path: Path) -> None:
    module = Module(accumulate=2)
    logger = CSVLogger(tmp_path)
    fit = trainer(
        tmp_path,
        logger=logger,
        log_every_n_steps=1,
        accumulate_grad_batches=2,
        callbacks=[BalanceMonitor(every=2, prefix="pull")],
    )
    fit.fit(module, loader())
    logger.save()
    table = np.genfromtxt(
        Path(logger.log_dir) / "metrics.csv", delimiter=",", names=True, deletechars=""
    )
    rows = table[np.isfinite(table["pull/imbalance"])]
    history = module.balancer.history
    ends = [3, 7]  # two optimizer steps of two batches each
    assert rows["step"].tolist() == [1, 3]
    for k, task in enumerate(module.balancer.tasks):
        for name in ("multipliers", "weights", "norms", "contributions"):
            column = getattr(history, name)[ends, k]
            np.testing.assert_allclose(rows[f"pull/{name}/{task}"], column, rtol=1e-6)
        means = history.losses[:, k].reshape(2, 4).mean(1)
        np.testing.assert_allclose(rows[f"pull/losses/{task}"], means, rtol=1e-6)
    np.testing.assert_allclose(rows["pull/imbalance"], history.imbalance[ends], rtol=1e-6)
    assert fit.callback_metrics["pull/imbalance"] == pytest.approx(history.imbalance[-1])


class Plain(Module):
    """Its own sum of three losses, of which one has dropout in front."""

    def __init__(self) -> None:
        super().__init__()
        self.net = TwoStage(THREE)
        self.net.trunk.append(torch.nn.Dropout(0.3))
        del self.balancer

    def added(self, losses: dict[str, Tensor | None]) -> Tensor:
        return torch.stack([loss for loss in losses.values() if loss is not None]).sum()

    def training_step(self, x: Tensor, index: int) -> Tensor:
        return self.added(self.net.losses(x))


class Observed(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.observer = gaba.Observer(self.net.names, shared=self.net.trunk, every=1)
        self.truth: list[list[float]] = []

    def training_step(self, x: Tensor, index: int) -> Tensor:
        losses = self.net.losses(x)
        self.observer(losses)
        theta = tuple(self.net.trunk.parameters())
        parts = [
            torch.autograd.grad(v, theta, retain_graph=True)
            for v in losses.values()
            if v is not None
        ]
        self.truth.append([float(torch.cat([g.flatten() for g in p]).norm()) for p in parts])
        return self.added(losses)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_observing_beside_the_own_sum_changes_no_bit(accumulate: int, tmp_path: Path) -> None:
    observed, plain = Observed(), Plain()
    monitor = BalanceMonitor(every=1)
    for module, callbacks in ((observed, [monitor]), (plain, [])):
        torch.manual_seed(1)
        trainer(
            tmp_path,
            accumulate_grad_batches=accumulate,
            gradient_clip_val=0.5,
            callbacks=callbacks,
            max_epochs=2,
        ).fit(module, loader())
    for (name, p), (_, q) in zip(
        observed.net.state_dict().items(), plain.net.state_dict().items(), strict=True
    ):
        assert torch.equal(p, q), name
    assert not torch.equal(plain.net.heads[0].weight, Plain().net.heads[0].weight)  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(observed.observer.history.norms, observed.truth, rtol=1e-5)
    assert len(observed.truth) == 16


def test_the_monitor_warns_if_accumulation_does_not_fit(tmp_path: Path) -> None:
    def fit(accumulate: int) -> None:
        settings: dict[str, Any] = {"accumulate_grad_batches": 2, "max_epochs": 2}
        trainer(tmp_path, callbacks=[BalanceMonitor(every=1)], **settings).fit(
            Module(accumulate=accumulate), loader()
        )

    for found in (1, 4):
        said = rf"accumulate_grad_batches of the trainer, 2, found {found}: .*accumulate=2"
        with pytest.warns(UserWarning, match=said) as told:
            fit(found)
        assert len([w for w in told if "of the trainer" in str(w.message)]) == 1
    fit(2)


def test_sinks_get_every_step(tmp_path: Path) -> None:
    module = Module()
    with gaba.RunRecord(tmp_path / "run.jsonl", module.balancer.tasks) as record:
        monitor = BalanceMonitor(every=3, sinks=[record])
        trainer(tmp_path, callbacks=[monitor]).fit(module, loader())
    read = gaba.History.read(tmp_path / "run.jsonl")
    np.testing.assert_array_equal(read.multipliers, module.balancer.history.multipliers)
    np.testing.assert_array_equal(read.steps, np.arange(8))


class Validated(Module):
    def validation_step(self, x: Tensor, index: int) -> None:
        self.log("val", self.balancer(self.net.losses(x)), batch_size=1)


def test_validation_learns_nothing(tmp_path: Path) -> None:
    module, looped = Validated(), Module()
    fit = trainer(tmp_path, val_check_interval=2, num_sanity_val_steps=2)
    fit.fit(module, loader(), loader(batch(100 + i) for i in range(3)))
    by_hand(looped, 1, None)
    assert_same(module, looped)
    assert len(module.balancer.history) == len(BATCHES)
    assert fit.callback_metrics["val"] > 0


def test_a_checkpoint_goes_on_where_it_was(tmp_path: Path) -> None:
    through, stopped, resumed = Module(), Module(), Module()
    trainer(tmp_path, max_epochs=2).fit(through, loader())
    first = trainer(tmp_path, max_epochs=1)
    first.fit(stopped, loader())
    path = tmp_path / "stopped.ckpt"
    first.save_checkpoint(path)
    trainer(tmp_path, max_epochs=2).fit(resumed, loader(), ckpt_path=path)
    for p, q in zip(through.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q)
    assert through.balancer.multipliers == resumed.balancer.multipliers
    assert resumed.balancer.history.steps.tolist() == list(range(8, 16))
    loaded = Module.load_from_checkpoint(path)
    assert loaded.balancer.multipliers == stopped.balancer.multipliers


class Half(Module):
    """The second loss is so small that in float16 its gradient is 0, unless it is scaled."""

    scaled = True

    def training_step(self, x: Tensor, index: int) -> Tensor:
        first, second = self.net.losses(x).values()
        assert first is not None
        assert second is not None
        losses: dict[str, Tensor | None] = {"task0": 0.01 * first, "task1": 1e-7 * second}
        return self.balancer(losses, scaler=scaler_of(self) if self.scaled else None)


def test_in_float16_small_losses_are_measured_on_the_scale_of_the_trainer(tmp_path: Path) -> None:
    half, exact, unscaled = Half(), Half(), Half()
    unscaled.scaled = False
    for module in (half, exact, unscaled):
        plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**13))
        trainer(tmp_path, plugins=None if module is exact else [plugin]).fit(
            module, loader(BATCHES[:1])
        )
    expected = exact.balancer.history.norms
    assert scaler_of(exact) is None
    np.testing.assert_allclose(half.balancer.history.norms, expected, rtol=0.02)
    assert expected[0, 1] > 0
    assert unscaled.balancer.history.norms[0, 1] == 0


class Two(Module):
    def __init__(self) -> None:
        super().__init__()
        self.other = gaba.Balancer(["a", "b"], shared=self.net.trunk)


def test_the_monitor_says_which_balancer_it_lacks(tmp_path: Path) -> None:
    def fit(module: Module, name: str | None) -> None:
        monitor = BalanceMonitor(every=1, name=name)
        trainer(tmp_path, callbacks=[monitor]).fit(module, loader())

    with pytest.raises(ValueError, match=r"name=None.*\['balancer', 'other'\]"):
        fit(Two(), None)
    with pytest.raises(ValueError, match=r"name='balance'.*\['balancer'\]"):
        fit(Module(), "balance")
    module = Two()
    fit(module, "balancer")
    assert len(module.balancer.history) == 8
    with pytest.raises(ValueError, match="every must be at least 1, found 0"):
        BalanceMonitor(every=0)


@pytest.mark.slow
def test_two_processes_are_the_loop_written_by_hand_in_two_processes(tmp_path: Path) -> None:
    script = Path(__file__).with_name("_lightning_ddp.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    for name in ("fitted", "by hand"):
        for key, value in ranks[0][name].items():
            assert torch.equal(value, ranks[1][name][key]), (name, key)
    for rank in ranks:
        for key, value in rank["by hand"].items():
            torch.testing.assert_close(rank["fitted"][key], value, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(rank["fitted norms"], rank["norms by hand"], rtol=1e-5, atol=0)
    assert ranks[0]["logged"]

    exact = gaba.methods.get("gaba", measure="exact")
    alone = Module(method=exact)  # one process, on the batches of both together
    optimizer = alone.configure_optimizers()
    rows = batch(0, n=32)
    for i in range(8):
        x = rows[8 * (i % 4) :][:8]
        (alone.balancer(alone.net.losses(x)) / 2).backward()
        if i % 2:
            torch.nn.utils.clip_grad_norm_(alone.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    for key, value in alone.named_parameters():
        torch.testing.assert_close(ranks[0]["fitted"][key], value.detach(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ranks[0]["fitted norms"], alone.balancer.history.norms, rtol=1e-4)
