"""The examples run, and show what they say that they show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from _python import POLICY, run

EXAMPLES = Path(__file__).parents[1] / "examples"
FILES = sorted(EXAMPLES.glob("*.py"))


def output_of(name: str, folder: Path, *arguments: str) -> str:
    done = run([str(EXAMPLES / name), *arguments], cwd=folder, policy=POLICY)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert not list(folder.iterdir()), "an example leaves files behind"
    return done.stdout


def test_every_example_has_its_test() -> None:
    own = Path(__file__).read_text(encoding="utf-8")
    untested = [path.name for path in FILES if f'output_of("{path.name}"' not in own]
    assert FILES
    assert not untested


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_what_it_shows(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith('"""')
    assert len(lines) <= 80


def test_one_line_change(tmp_path: Path) -> None:
    apart = re.findall(
        r"contributions (\S+) times apart", output_of("one_line_change.py", tmp_path)
    )
    assert len(apart) == 5
    assert float(apart[0]) > 10  # the multipliers rise by 1.2 a step
    assert all(float(ratio) < 1.5 for ratio in apart[-2:])


def test_observe(tmp_path: Path) -> None:
    here, plain, checkpoint = tmp_path / "here", tmp_path / "plain.py", tmp_path / "last.pt"
    here.mkdir()
    lines = (EXAMPLES / "observe.py").read_text(encoding="utf-8").splitlines(keepends=True)
    own = [line for line in lines if not line.endswith("  # +\n")]
    assert len(own) == len(lines) - 4
    assert "gaba" not in "".join(own)
    plain.write_text("".join(own), encoding="utf-8")
    without, output = output_of(str(plain), here), output_of("observe.py", here)
    assert re.search(r"^parameters: [0-9a-f]{64}\n\Z", without, re.MULTILINE)
    assert output.startswith(without)
    found = output.removeprefix(without)
    assert found.startswith("Act: 'depth' drowns all the others together, ")
    assert "\n240 steps of 4 tasks (depth, normals, kind, tag)" in found
    assert re.search(r"missing from steps: 'tag' in \d\d\.\d %", found)
    errors = [float(error) for error in re.findall(r"depth error (\S+) cm", without)]
    assert len(errors) == 4
    assert errors[-1] < errors[0] / 3
    output_of("observe.py", here, "2", str(checkpoint))
    resumed = output_of("observe.py", here, "4", str(checkpoint))
    assert without.endswith(resumed.partition("Act")[0])
    assert resumed.startswith("epoch 2:")


def test_missing_tasks(tmp_path: Path) -> None:
    *lines, kept = output_of("missing_tasks.py", tmp_path).splitlines()
    steps = [
        {name: float(m) for name, m in re.findall(r"(\w+) (\d+\.\d+)", line)} for line in lines
    ]
    assert len(steps) == 9
    here = [{"depth", "normals", "edges"}, {"depth", "edges"}, {"normals"}] * 3
    assert [{name for name, m in step.items() if m > 0} for step in steps] == here
    last = {name: float(m) for name, m in re.findall(r"'(\w+)': (\S+?)[,}]", kept)}
    assert last["normals"] == steps[8]["normals"]
    assert min(last.values()) > 0


def test_resume(tmp_path: Path) -> None:
    assert "parameters and multipliers equal: True" in output_of("resume.py", tmp_path)


def test_saturated_floor(tmp_path: Path) -> None:
    paper, default, wide = output_of("saturated_floor.py", tmp_path).split("== ")[1:]
    assert "reached its minimum (0.0478) in 66.8 % of the steps" in paper
    assert "0.048/0.952" in paper
    assert "minimum" not in default + wide
    assert "Use limit=1_000: the limit of 64 leaves 'rul' pulling 6.83 times" in default
    assert "equal within a factor of 1.00 in the median step" in wide


def test_sgd_scale(tmp_path: Path) -> None:
    found = {
        (optimizer, scale): float(loud)
        for optimizer, scale, loud in re.findall(
            r"(\w+) +scale=(\w+) +loud ([\d.]+)", output_of("sgd_scale.py", tmp_path)
        )
    }
    assert found["SGD", "simplex"] > 10 * found["SGD", "sum"]
    assert max(found["Adam", "simplex"], found["Adam", "sum"]) < 0.1


def test_own_rule(tmp_path: Path) -> None:
    weights = re.findall(r"a (\S+), b (\S+)\n", output_of("own_rule.py", tmp_path))
    assert weights == [("0.550", "0.450")] * 2 + [("0.433", "0.567"), ("0.201", "0.799")]


def test_own_measurement(tmp_path: Path) -> None:
    output = output_of("own_measurement.py", tmp_path)
    cosines = [float(cosine) for cosine in re.findall(r"cosine (\S+),", output)]
    assert len(cosines) == 5
    assert all(-1 <= cosine <= 1 for cosine in cosines)
    assert "'a' reaches 4 of 6 parameters" in output


def test_record_a_run(tmp_path: Path) -> None:
    output = output_of("record_a_run.py", tmp_path)
    assert '{"step": 0, "measured": true' in output
    assert "history.norms have the shape (100, 2)" in output
    assert "Under the weights used 'loud' pulled" in output
    assert "50 steps of 2 tasks" in output.partition("The second half alone:")[2]
    assert "after a reset: {'loud': 1.0, 'quiet': 1.0}" in output


def test_turbofan_simulated(tmp_path: Path) -> None:
    here, pictures = tmp_path / "here", tmp_path / "pictures"
    here.mkdir()
    pictures.mkdir()
    output = output_of("turbofan_simulated.py", here, "8", str(pictures))
    assert re.search(r"simulated test engines: RMSE \d+\.\d cycles after 8 steps", output)
    assert "8 steps of 2 tasks (rul, health), pulls by effective norms, from the update." in output
    drawn = sorted(path.stem for path in pictures.glob("*.png"))
    assert drawn == ["balance", "confusion", "errors", "predictions", "trajectory"]


def test_turbofan_own_loop(tmp_path: Path) -> None:
    output = output_of("turbofan_own_loop.py", tmp_path, "6")
    assert len(re.findall(r"contributions \d+\.\d\d times apart", output)) == 2
    assert re.search(r"simulated test engines: RMSE \d+\.\d cycles after 6 steps", output)


def test_lightning_module(tmp_path: Path) -> None:
    output = output_of("lightning_module.py", tmp_path)
    assert "32 batches in 16 optimizer steps" in output
    logged = dict(re.findall(r"(gaba/\S+) +(\S+)\n", output))
    assert float(logged["gaba/norms/rul"]) > 10 * float(logged["gaba/norms/health"])
    assert float(logged["gaba/imbalance"]) < 2


def test_fabric_loop(tmp_path: Path) -> None:
    output = output_of("fabric_loop.py", tmp_path)
    apart = re.findall(r"imbalance (\S+)\n", output)
    assert len(apart) == 4
    assert all(1 <= float(ratio) < 3 for ratio in apart)
    assert "multipliers after loading equal: True" in output


def test_transformers_trainer(tmp_path: Path) -> None:
    output = output_of("transformers_trainer.py", tmp_path)
    apart = re.findall(r"'gaba/imbalance': '?([\d.]+)", output)
    assert len(apart) == 2
    assert all(1 <= float(ratio) < 3 for ratio in apart)
    assert "eval_loss" in output


def test_accelerate_loop(tmp_path: Path) -> None:
    output = output_of("accelerate_loop.py", tmp_path)
    losses = [float(loss) for loss in re.findall(r"loss of 'loud' ([\d.]+),", output)]
    assert len(losses) == 4
    assert losses == sorted(losses, reverse=True)
    assert "multipliers after loading equal: True" in output


def test_tensorboard_log(tmp_path: Path) -> None:
    output = output_of("tensorboard_log.py", tmp_path)
    assert "gaba/contributions/quiet" in output
    assert len(re.findall(r"step +\d+: weight of 'loud' 0\.\d+", output)) == 4


def test_torchjd_bridge(tmp_path: Path) -> None:
    output = output_of("torchjd_bridge.py", tmp_path)
    for line in output.splitlines():
        weights = [float(weight) for weight in line.rpartition(":")[2].split()]
        assert len(weights) == 3
        assert sum(weights) == pytest.approx(1, abs=2e-4)


def test_vqgan_mnist(tmp_path: Path) -> None:
    output = output_of("vqgan_mnist.py", tmp_path, "30")
    if output.startswith("skipped"):
        pytest.skip("no MNIST")
    rows = re.findall(r"error (\S+), by hand (\S+), preset (\S+)\n", output)
    assert all(by_hand == preset for _, by_hand, preset in rows)
    assert [float(weight) == 0 for _, weight, _ in rows] == [True, True, *[False] * 4]
    assert float(rows[-1][0]) < float(rows[0][0])
    assert re.search(r"the same weights in 31 steps, to \S+: True", output)


def test_encodec_toy(tmp_path: Path) -> None:
    output = output_of("encodec_toy.py", tmp_path, "30")
    decibels = [float(found) for found in re.findall(r"step +\d+: +(\S+) dB", output)]
    assert len(decibels) == 6
    assert decibels[-1] > decibels[0] + 1
    assert re.search(r"the same weights in 31 steps, to \S+: True", output)


def test_pinn_burgers(tmp_path: Path) -> None:
    output = output_of("pinn_burgers.py", tmp_path, "50")
    uniform, preset = map(float, re.findall(r"relative L2 error (\S+) after 50", output))
    assert max(uniform, preset) < 1
    assert len(set(re.findall(r"(?:by hand|preset ) (\[.*\])", output))) == 1
    assert re.search(r"the same weights in 50 steps, to \S+: True", output)


def test_pinn_poisson(tmp_path: Path) -> None:
    output = output_of("pinn_poisson.py", tmp_path, "50")
    uniform, preset = map(float, re.findall(r"relative L2 error (\S+) after 50", output))
    assert preset < 1 < uniform
    assert re.search(r"the same weights in 50 steps, to \S+: True", output)


@pytest.mark.slow
def test_compare_methods(tmp_path: Path) -> None:
    here, picture = tmp_path / "here", tmp_path / "methods.png"
    here.mkdir()
    output = output_of("compare_methods.py", here, "150", str(picture))
    changes = {
        method: float(change.replace("−", "-").replace(",", ""))
        for method, change in re.findall(r"^(\w+) +([+−]?[\d.,]+) [\[%]", output, re.M)
    }
    assert set(changes) == {"uniform", "gaba", "inverse", "dwa"}
    assert list(changes.values()) == sorted(changes.values())
    assert changes["inverse"] < changes["uniform"] == 0
    assert "Figures: means over 3 seeds on validation data" in output
    assert "The last run, dwa from seed 2: History(150 steps of position, energy" in output
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_own_problem(tmp_path: Path) -> None:
    found = re.findall(r"(\w+) +([\d.]+) +([\d.]+)\n", output_of("own_problem.py", tmp_path))
    energy = {method: float(error) for method, _, error in found}
    assert energy["gaba"] < 0.7 * energy["uniform"]
