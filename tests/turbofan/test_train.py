from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gaba
from _turbofan_runs import same, tiny_config, tiny_fleet
from gaba.turbofan import TrainConfig, checkpoint, data, windows
from gaba.turbofan._run import CALIBRATION, Schedule, Shuffled, averaged, recalibrated
from gaba.turbofan.evaluate import predict
from gaba.turbofan.fleet import Fleet
from gaba.turbofan.metrics import rmse
from gaba.turbofan.model import TurbofanNet
from gaba.turbofan.train import Epoch, Trainer, TrainingDivergedError, train

FLEET = tiny_fleet()
PREPARED = windows.prepare(FLEET)


def trainer(tmp_path: Path, **changes: object) -> Trainer:
    torch.manual_seed(0)
    return Trainer(tiny_config(tmp_path, **changes), PREPARED)


# ---- settings and methods --------------------------------------------------------------------


def test_config_survives_its_file(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, method="fixed:.1,.9", seed=7, dropout=0.25)
    config.write()
    assert TrainConfig.read(tmp_path) == config
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert TrainConfig.read(moved) == replace(config, run_dir=str(moved))


def test_a_place_may_be_a_path(tmp_path: Path) -> None:
    config = TrainConfig(run_dir=tmp_path, data_dir=tmp_path / "data")
    assert config == TrainConfig(run_dir=str(tmp_path), data_dir=str(tmp_path / "data"))
    config.write()
    assert TrainConfig.read(tmp_path) == config


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("steps", 0),
        ("batch_size", -1),
        ("clip", 0.0),
        ("dropout", 1.0),
        ("smoothing", 0.0),
        ("capped_share", 0.0),
        ("ema_decay", 1.0),
        ("seed", -1),
        ("size", "huge"),
        ("learning_rate", float("nan")),
    ],
)
def test_config_names_the_setting_that_is_out_of_range(setting: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{setting} must .*, found"):
        TrainConfig(**{setting: value})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("text", ['{"unknown": 1}', "{", '{"steps": -1}', "[]"])
def test_a_broken_config_is_one_line_that_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / checkpoint.CONFIG).write_text(text)
    with pytest.raises(ValueError, match=r"config\.json") as caught:
        TrainConfig.read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["", "gabba", "fixed", "fixed:", "fixed:1", "fixed:1,2,3"])
def test_an_unknown_method_is_an_error_before_anything_is_written(
    tmp_path: Path, method: str
) -> None:
    with pytest.raises(ValueError, match=r"^method .*found") as caught:
        train(tiny_config(tmp_path / "run", method=method), fleet=FLEET)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [("amnl", "--method uniform --sample-weights"), ("grace", "--method paper --sample-weights")],
)
def test_a_method_of_the_first_version_is_told_its_new_name(old: str, new: str) -> None:
    with pytest.raises(ValueError, match=f"method '{old}' is now called {new}"):
        TrainConfig(method=old)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("gaba", "--method paper"),
        ("grace", "--method paper --sample-weights"),
        ("inverse", "--method inverse"),
    ],
)
def test_a_run_of_the_first_version_is_refused_with_the_new_name(
    tmp_path: Path, old: str, new: str
) -> None:
    tiny_config(tmp_path).write()
    path = tmp_path / checkpoint.CONFIG
    settings = json.loads(path.read_text())
    assert settings.pop("gaba") == gaba.__version__
    del settings["sample_weights"]
    path.write_text(json.dumps({**settings, "method": old}))
    with pytest.raises(ValueError, match=rf"gaba 0\.1\.0, .* '{old}'; train again with {new}$"):
        TrainConfig.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"subset": "FD001", "data_dir": "{tmp}/nowhere"}, "no C-MAPSS files in .*nowhere"),
        ({"subset": "FD009"}, "subset: must be one of"),
        ({"device": "nonsense"}, "device 'nonsense' cannot be used here: "),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used here: "),
    ],
)
def test_what_cannot_be_trained_leaves_no_folder(
    tmp_path: Path, changes: dict[str, str], says: str
) -> None:
    changes = {name: value.format(tmp=tmp_path) for name, value in changes.items()}
    with pytest.raises((ValueError, FileNotFoundError), match=says) as caught:
        train(tiny_config(tmp_path / "run", **changes))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_malformed_file_leaves_no_folder(tmp_path: Path) -> None:
    path, *_ = data.write(replace(FLEET, subset="FD001"), tmp_path / "data")
    path.write_text(path.read_text().replace("1 2 ", "1 ", 1))
    config = tiny_config(tmp_path / "run", subset="FD001", data_dir=str(tmp_path / "data"))
    with pytest.raises(data.DataFormatError, match=r"train_FD001\.txt, line 2: "):
        train(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("weights", ["-1,2", "0,0", "nan,1", "inf,1", "a,b"])
def test_fixed_multipliers_that_are_none(tmp_path: Path, weights: str) -> None:
    with pytest.raises(ValueError, match=r"fixed:|Fixed: weights must"):
        train(tiny_config(tmp_path / "run", method=f"fixed:{weights}"), fleet=FLEET)
    assert not (tmp_path / "run").exists()


MEASURING = ("gaba", "paper", "inverse", "inverse-optimizer", "equal-share", "sqrt-inverse")
NOT_MEASURING = ("uniform", "fixed:1,3")


@pytest.mark.parametrize("method", [*MEASURING, *NOT_MEASURING])
def test_every_method_trains_and_measures_only_if_it_must(tmp_path: Path, method: str) -> None:
    run = trainer(tmp_path, method=method)
    steps = [run.step() for _ in range(2)]
    assert all(step.measured == (method in MEASURING) for step in steps)
    assert all(bool(step.finite) for step in steps)


def test_the_methods_are_those_of_the_library(tmp_path: Path) -> None:
    for method, expected in (("uniform", [1, 1]), ("fixed:1,3", [1, 3]), ("paper", [0.5, 0.5])):
        step = trainer(tmp_path, method=method).step()  # paper: the first 100 steps are uniform
        np.testing.assert_allclose(step.multipliers, expected)
    run = trainer(tmp_path)
    assert run.balancer.method == gaba.methods.get("gaba")
    step = run.step()
    assert step.engine == "norms"
    assert step.multipliers[1].item() == pytest.approx(1.2)  # on its way up
    assert step.multipliers[0].item() < 1
    assert step.norms[0] > 10 * step.norms[1]


def test_sample_weights_are_those_of_amnl(tmp_path: Path) -> None:
    """They change the RUL loss alone, under any method."""
    plain, weighed = (trainer(tmp_path, sample_weights=on).step() for on in (False, True))
    assert plain.losses[0] < weighed.losses[0] <= 2 * plain.losses[0]
    torch.testing.assert_close(plain.losses[1], weighed.losses[1])


# ---- the parts -------------------------------------------------------------------------------


def test_a_pass_shows_every_window_once_and_each_pass_has_its_own_order() -> None:
    seen = windows.Windows(
        inputs=np.zeros((40, 30, 17), np.float32),
        rul=np.arange(40, dtype=np.float32),
        rul_raw=np.arange(40, dtype=np.float32),
        health=np.zeros(40, np.int64),
        unit=np.zeros(40, np.int64),
        cycle=np.zeros(40, np.int64),
    )
    batches = Shuffled(seen, 10, 0, torch.device("cpu"))
    passes = [torch.cat([next(batches).rul for _ in range(4)]) for _ in range(3)]
    for one in passes:
        assert sorted(one.tolist()) == list(range(40))
    assert not torch.equal(passes[0], passes[1])
    assert not torch.equal(passes[1], passes[2])
    for _ in range(2):
        next(batches)
    state = batches.state_dict()
    expected = [next(batches).rul for _ in range(9)]
    other = Shuffled(seen, 10, 99, torch.device("cpu"))
    other.load_state_dict(state)
    assert all(torch.equal(next(other).rul, one) for one in expected)


def test_the_average_follows_its_formula() -> None:
    torch.manual_seed(0)
    model = nn.BatchNorm1d(3)
    mean = averaged(model, decay=0.3)
    expected: np.ndarray | None = None
    for t in range(12):
        with torch.no_grad():
            model.weight.copy_(torch.randn(3))
        model(torch.randn(5, 3))
        mean.update_parameters(model)
        now = torch.cat([model.weight.detach(), model.running_var]).double().numpy()  # pyright: ignore
        d = min(0.3, (1 + t) / (10 + t))
        expected = now if expected is None else d * expected + (1 - d) * now
        module = mean.module
        found = torch.cat([module.weight.detach(), module.running_var])  # pyright: ignore
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert mean.module.num_batches_tracked.item() == 12  # pyright: ignore


def batch_norms(model: nn.Module) -> list[nn.BatchNorm1d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]


@pytest.mark.parametrize(("count", "batches"), [(40, 1), (512, 1), (1024, 2)])
def test_recalibrated_statistics_are_those_of_the_batches_without_dropout(
    count: int, batches: int
) -> None:
    torch.manual_seed(0)
    model = TurbofanNet("small", dropout=0.4).double()
    inputs = 3 + 2 * torch.randn(count, 30, 17, dtype=torch.float64)
    values = [part.transpose(1, 2) for part in inputs.chunk(batches)]
    expected: list[tuple[Tensor, Tensor]] = []
    for layer in model.backbone.convolutions:
        if isinstance(layer, nn.BatchNorm1d):
            means = [x.mean(dim=(0, 2)) for x in values]
            variances = [x.transpose(0, 1).flatten(1).var(dim=1) for x in values]
            expected.append((torch.stack(means).mean(0), torch.stack(variances).mean(0)))
            values = [
                (x - x.mean(dim=(0, 2), keepdim=True))
                / (x.var(dim=(0, 2), keepdim=True, unbiased=False) + layer.eps).sqrt()
                for x in values
            ]  # its scale is 1 and its shift 0, as no step has been made
        elif not isinstance(layer, nn.Dropout | nn.Dropout1d):
            values = [layer(x) for x in values]
    found = batch_norms(recalibrated(model, inputs))
    for norm, (mean, variance) in zip(found, expected, strict=True):
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(norm.running_var, variance, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("training", [True, False])
def test_recalibration_leaves_the_model_and_the_random_numbers_alone(training: bool) -> None:
    torch.manual_seed(0)
    model = TurbofanNet("small", dropout=0.4).train(training)
    inputs = torch.randn(64, 30, 17)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    fresh = recalibrated(model, inputs)
    assert torch.equal(torch.get_rng_state(), random)
    assert same(dict(model.state_dict()), before)
    assert all(module.training == training for module in model.modules())
    assert not any(module.training for module in fresh.modules())
    assert same(dict(fresh.named_parameters()), dict(model.named_parameters()))
    assert not {id(p) for p in fresh.parameters()} & {id(p) for p in model.parameters()}
    assert not same(dict(fresh.state_dict()), before)


@pytest.mark.slow
def test_recalibration_removes_the_bias_of_statistics_taken_under_dropout() -> None:
    """Dropout makes every later layer's inputs vary more than they do when it is switched off."""
    torch.manual_seed(0)
    model = TurbofanNet("small", dropout=0.6)
    inputs = torch.randn(512, 30, 17)
    with torch.no_grad():
        for _ in range(30):
            model(inputs)

    def variances(seen: TurbofanNet) -> list[float]:
        """Of what leaves each BatchNorm in use, over windows and cycles: 1 where it fits."""
        found: list[float] = []
        hooks = [
            norm.register_forward_hook(lambda *a: found.append(a[2].var(dim=(0, 2)).mean().item()))
            for norm in batch_norms(seen)
        ]
        seen.backbone.eval().convolutions(inputs.transpose(1, 2))
        for hook in hooks:
            hook.remove()
        return found

    assert all(variance < 0.8 for variance in variances(model))
    assert variances(recalibrated(model, inputs)) == pytest.approx([1, 1, 1], rel=0.01)


def test_what_is_validated_and_kept_is_the_recalibrated_average(tmp_path: Path) -> None:
    run = trainer(tmp_path, method="uniform")
    for _ in range(3):
        run.step()
    before = {name: value.clone() for name, value in run.mean.state_dict().items()}
    epoch = run.validate()
    assert same(dict(run.mean.state_dict()), before)
    assert run.best is not None
    average = run.mean.module
    assert isinstance(average, TurbofanNet)
    inputs = run.batches.all.inputs
    assert len(inputs) < 2 * CALIBRATION  # so few that all of them are taken
    kept = recalibrated(average, inputs)
    assert same(run.best["model"], dict(kept.state_dict()))
    seen = PREPARED.validation
    assert epoch.rmse == rmse(predict(kept, seen.inputs).rul, seen.rul)


def test_the_learning_rate_warms_up_linearly_and_is_cut_on_a_plateau() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=1.0)
    config = TrainConfig(
        warmup_steps=4, plateau_factor=0.5, plateau_patience=1, plateau_threshold=0.1
    )
    schedule = Schedule(optimizer, config)
    rates = []
    for _ in range(6):
        optimizer.step()
        schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    np.testing.assert_allclose(rates, [7 / 16, 10 / 16, 13 / 16, 1, 1, 1])
    rates = []
    for error in (5.0, 4.0, 3.9, 3.7, 3.0, 3.5, 2.9):
        schedule.validated(error)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_the_gradient_is_clipped_and_gone_after_the_step(tmp_path: Path) -> None:
    run = trainer(tmp_path, clip=0.5)
    lengths: list[float] = []

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        gradients = [p.grad for g in optimizer.param_groups for p in g["params"]]
        lengths.append(torch.cat([g.flatten() for g in gradients]).norm().item())

    run.optimizer.register_step_pre_hook(look)
    for _ in range(3):
        run.step()
    assert lengths == pytest.approx([0.5] * 3, rel=1e-4)  # it is in the hundreds at the start
    assert all(p.grad is None for p in run.model.parameters())


# ---- a run -----------------------------------------------------------------------------------


def test_it_learns(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path, method="uniform", steps=80, steps_per_epoch=40, batch_size=32, warmup_steps=10
    )
    seen: list[gaba.Step] = []
    result = train(config, on_step=seen.append, fleet=FLEET)
    true = PREPARED.validation.rul
    assert result.best.rmse < 0.9 * float(np.std(true))
    first, last = (np.mean([s.losses[0].item() for s in part]) for part in (seen[:5], seen[-5:]))
    assert last < 0.5 * first


def test_what_a_run_leaves_behind(tmp_path: Path) -> None:
    steps: list[gaba.Step] = []
    epochs: list[Epoch] = []
    config = tiny_config(tmp_path, steps=7)  # 2 + 2 + 2 + 1
    result = train(config, steps.append, epochs.append, fleet=FLEET)
    assert {path.name for path in tmp_path.iterdir()} == {
        *(checkpoint.CONFIG, checkpoint.HISTORY, checkpoint.EPOCHS),
        *(checkpoint.CHECKPOINT, checkpoint.METRICS, checkpoint.PREDICTIONS),
    }
    history = gaba.History.read(tmp_path / checkpoint.HISTORY)
    assert history.steps.tolist() == list(range(7))
    np.testing.assert_array_equal(history.norms, np.stack([s.norms.numpy() for s in steps]))
    header = json.loads((tmp_path / checkpoint.HISTORY).read_text().splitlines()[0])
    assert header["meta"]["simulated"] is True
    lines = (tmp_path / checkpoint.EPOCHS).read_text().splitlines()
    assert [Epoch(**json.loads(line)) for line in lines] == epochs
    assert [epoch.step for epoch in epochs] == [2, 4, 6, 7]
    assert (result.steps, result.epochs, result.resumed_at) == (7, 4, 0)
    assert result.best.rmse == min(epoch.rmse for epoch in epochs)
    assert result.metrics == json.loads((tmp_path / checkpoint.METRICS).read_text())
    assert result.metrics["simulated"] is True


@pytest.mark.slow
def test_training_stops_when_validation_stands_still(tmp_path: Path) -> None:
    epochs: list[Epoch] = []
    config = tiny_config(tmp_path, steps=200, stop_patience=2, learning_rate=0.1, warmup_steps=0)
    result = train(config, on_epoch=epochs.append, fleet=FLEET)
    assert result.steps < 200
    assert [epoch.best for epoch in epochs[-3:]] == [True, False, False]
    assert result.best == epochs[-3]


def test_a_seed_decides_everything_and_leaves_torch_as_it_was(tmp_path: Path) -> None:
    states = []
    for name, seed, before in (("a", 3, 0), ("b", 3, 1), ("c", 4, 0)):
        torch.manual_seed(before)
        expected = torch.random.get_rng_state()
        train(tiny_config(tmp_path / name, seed=seed, steps=4), fleet=FLEET)
        assert torch.equal(torch.random.get_rng_state(), expected)
        assert not torch.are_deterministic_algorithms_enabled()
        states.append(checkpoint.load(tmp_path / name / checkpoint.CHECKPOINT))
    assert same(states[0], states[1])
    assert not same(states[0]["model"], states[2]["model"])


def test_the_test_engines_choose_nothing(tmp_path: Path) -> None:
    other = tiny_fleet(seed=9)
    mixed = Fleet("simulated", FLEET.train, other.test, other.rul, simulated=True)
    results = [
        train(tiny_config(tmp_path / name, steps=4), fleet=fleet)
        for name, fleet in (("a", FLEET), ("b", mixed))
    ]
    states = [checkpoint.load(r.run_dir / checkpoint.CHECKPOINT) for r in results]
    assert same(*states)
    assert results[0].best == results[1].best
    assert results[0].metrics["test"] != results[1].metrics["test"]


# ---- what is not finite ----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gaba", "uniform"])
def test_a_bad_batch_changes_no_parameter(tmp_path: Path, method: str) -> None:
    run = trainer(tmp_path, method=method)
    run.step()
    before = {name: p.clone() for name, p in run.model.named_parameters()}
    rows = run.batches.order[run.batches.position : run.batches.position + 16]
    run.batches.all.rul[rows] = float("nan")
    step = run.step()
    assert not bool(step.finite)
    assert same(dict(run.model.named_parameters()), before)
    assert run.lost == 1
    run.batches.all.rul[rows] = 50.0
    assert bool(run.step().finite)
    assert run.lost == 0
    assert not same(dict(run.model.named_parameters()), before)


def test_a_run_without_a_finite_loss_stops_with_one_clear_line(tmp_path: Path) -> None:
    bad = FLEET.train.copy()
    bad["s2"] = float("nan")
    fleet = Fleet("simulated", bad, FLEET.test, FLEET.rul, simulated=True)
    with pytest.raises(TrainingDivergedError, match=r"3 steps in a row.*learning_rate") as caught:
        train(tiny_config(tmp_path, nonfinite_patience=3, steps_per_epoch=5), fleet=fleet)
    with pytest.raises(TrainingDivergedError, match=r"validation error after step 2 is nan"):
        train(tiny_config(tmp_path / "other", nonfinite_patience=3), fleet=fleet)
    assert "\n" not in str(caught.value)
