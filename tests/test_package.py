"""What is built, what is in it, and what it does where nothing but torch and NumPy is."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from _installs import ROOT, Built, environment, succeed
from gaba import cli, demo

PROJECT, APPS = (
    tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for folder in ("", "apps")
)
VENDORED = "gaba/web/static/vendor/"
MOST_BYTES = 300_000
"""Of each wheel, less what is vendored for the page."""
SUFFIXES = {".py", ".typed", ".css", ".js", ".html"}
ELSEWHERE = {"dev", "docs", "flwr"}
NOT_IN_SDIST = (".ci/", ".github/", ".gitignore")

TRAIN = """
import sys
import torch
from torch.nn import functional
import gaba
from gaba.record.diagnosis import diagnose

torch.manual_seed(0)
trunk, heads = torch.nn.Linear(6, 8), torch.nn.ModuleList([torch.nn.Linear(8, 1) for _ in "ab"])
optimizer = torch.optim.Adam([*trunk.parameters(), *heads.parameters()], lr=0.01)
balancer = gaba.Balancer(["loud", "quiet"], shared=trunk)
inputs = torch.randn(64, 6)
wanted = inputs[:, :2].tanh()
steps = []
for _ in range(200):
    found = [head(trunk(inputs).tanh()).squeeze(-1) for head in heads]
    loud, quiet = (functional.mse_loss(found[k], wanted[:, k]) for k in range(2))
    steps.append(balancer.backward({"loud": 1000 * loud, "quiet": quiet}).asdict())
    optimizer.step()
    optimizer.zero_grad()
for task in ("loud", "quiet"):
    assert steps[-1]["losses"][task] < 0.5 * steps[0]["losses"][task]
assert steps[-1]["imbalance"] < 2
balancer.history.write("run.jsonl")
print(diagnose(gaba.History.read("run.jsonl")))
ours = {name.partition(".")[0] for name in sys.modules} & {"pandas", "tyro", "rich", "scipy"}
assert not ours, ours
assert gaba.__file__.startswith(sys.prefix), gaba.__file__
"""

COMMANDS = """
import contextlib, io, json, sys
from gaba.cli import main

said = {}
for line in json.loads(sys.argv[1]):
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        status = main(line.split())
    said[line] = status, out.getvalue(), error.getvalue()
print(json.dumps(said))
"""
NEEDS = {
    **dict.fromkeys(["train turbofan --subset simulated", "evaluate run"], "turbofan"),
    "data cmapss --dest data": "turbofan",
    "web": "web",
    "report run.jsonl -o run.html": "plots",
    "bench run toy.toml": "bench",
    "domains portfolio": "domains",
}
"""The commands that need an extra beside the command line's own, and that extra."""
SMALLER = {"domains portfolio": "skfolio"}
"""What a command asks for in place of that extra, once its arguments are known."""
NO_MORE = [
    "demo",
    "domains",
    "methods",
    "methods gaba",
    "bench problems",
    "explain run.jsonl",
    "watch run.jsonl --once",
    "web --export page.html",
]
"""The commands that need nothing beside it."""
TOY = """
[bench]
problems = ["conflict-toy"]
methods = ["uniform", "inverse"]
optimizers = ["sgd"]
store = "toy.sqlite"
"""


def statuses(python: Path, commands: list[str], folder: Path) -> dict[str, tuple[int, str, str]]:
    said = json.loads(succeed(python, "-c", COMMANDS, json.dumps(commands), cwd=folder))
    return {line: tuple(found) for line, found in said.items()}


def files(wheel: Path) -> dict[str, int]:
    """What a wheel installs, less what describes it: compressed sizes by name."""
    with ZipFile(wheel) as file:
        sizes = {info.filename: info.compress_size for info in file.infolist()}
    return {name: size for name, size in sizes.items() if ".dist-info/" not in name}


def test_a_wheel_holds_code_and_nothing_else_and_is_small(made: Built) -> None:
    for wheel, least in ((made.wheel, -1), (made.apps, 20_000)):
        own = files(wheel)
        assert not [name for name in own if not name.startswith("gaba/")]
        assert not [name for name in own if re.search(r"/(tests?|data)/|/(test_|conftest)", name)]
        strange = {name for name in own if Path(name).suffix not in SUFFIXES}
        assert all(name.startswith(VENDORED) for name in strange), strange
        vendored = sum(size for name, size in own.items() if name.startswith(VENDORED))
        assert least < vendored < 30_000
        assert wheel.stat().st_size - vendored < MOST_BYTES


def test_the_two_wheels_are_the_package_in_two_parts(made: Built) -> None:
    source = ROOT / "src"
    listed = [path for path in source.glob("gaba/**/*") if path.is_file()]
    kept = {path.relative_to(source).as_posix() for path in listed if path.suffix != ".pyc"}
    core, apps = set(files(made.wheel)), set(files(made.apps))
    assert {"gaba/__init__.py", "gaba/py.typed"} <= core
    assert "gaba/web/static/explorer/index.html" in apps
    assert core | apps == kept
    assert not core & apps
    assert {".".join(name.split("/")[:2]) for name in apps} == set(cli.APPS)


def test_the_sdist_holds_all_that_is_kept(made: Built) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no clone: what is kept is known to git alone")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    with tarfile.open(made.sdist) as file:
        held = {name.partition("/")[2] for name in file.getnames()}
    kept = {name for name in listed if (ROOT / name).is_file()}
    assert not {name for name in kept if not name.startswith(NOT_IN_SDIST)} - held
    assert not {name for name in held if name.startswith((".venv", "runs", "data/", "dist"))}


def test_the_version_is_the_same_everywhere(made: Built) -> None:
    version = PROJECT["version"]
    assert made.wheel.name.startswith(f"gaba-{version}-")
    assert made.apps.name.startswith(f"gaba_apps-{version}-")
    assert APPS["dependencies"] == [f"gaba=={version}"]
    assert PROJECT["optional-dependencies"]["apps"] == [f"gaba-apps=={version}"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == version
    assert {"cff-version", "message", "title", "authors", "license", "date-released"} <= {*citation}
    assert f"version {version}" in (ROOT / "docs" / "citing.md").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{version}] - {citation['date-released']}" in changelog


def test_both_distributions_say_the_same_of_themselves() -> None:
    for field in ("requires-python", "license", "authors"):
        assert APPS[field] == PROJECT[field]
    assert (ROOT / "apps" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_issue_templates_ask_for_something() -> None:
    templates = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert len(templates) >= 3
    for path in templates:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.stem != "config":
            assert {"name", "description", "body"} <= {*found}, path.name
            fields = [field["attributes"] for field in found["body"] if field["type"] != "markdown"]
            assert fields
            assert all(field["label"] for field in fields)


def listed_in(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {need.name: str(next(iter(need.specifier)).version) for need in map(Requirement, lines)}


def declared() -> dict[str, set[str]]:
    """The lower bounds of pyproject.toml, by package."""
    listed = [*PROJECT["dependencies"]]
    for name, lines in PROJECT["optional-dependencies"].items():
        listed += lines if name not in ELSEWHERE else []
    found: dict[str, set[str]] = {}
    for need in map(Requirement, listed):
        if need.name not in ("gaba", "gaba-apps") and need.marker is None:
            found.setdefault(need.name, set()).update(part.version for part in need.specifier)
    return found


def test_what_is_declared_as_the_oldest_is_what_was_tried() -> None:
    bounds, tried = declared(), listed_in("oldest.txt")
    assert set(bounds) == set(tried)
    together = listed_in("oldest-together.txt")
    assert set(together) == set(tried)
    assert all(Version(together[name]) >= Version(tried[name]) for name in tried)
    for name, versions in bounds.items():
        assert len(versions) == 1, f"{name} has more than one lower bound: {versions}"
        # the first of its series that there is
        assert Version(tried[name]) in SpecifierSet(f"=={versions.pop()}.*"), name


def test_it_trains_where_torch_and_numpy_are_alone(made: Built, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv", made)
    assert "200 steps of 2 tasks (loud, quiet)" in succeed(python, "-c", TRAIN, cwd=tmp_path)
    assert demo.text() in succeed(python.with_name("gaba"), "demo", cwd=tmp_path)
    for line, (status, out, error) in statuses(python, [*NEEDS, *NO_MORE], tmp_path).items():
        if line == "demo":
            assert (status, out, error) == (0, f"{demo.text()}\n", "")
            continue
        assert (status, out, error.count("\n")) == (1, "", 1), line
        extras = f"[{','.join(['cli', NEEDS[line]])}]" if line in NEEDS else "[cli"
        assert error.startswith("gaba: error: the command line needs tyro"), line
        assert f'pip install "gaba{extras}' in error, line


def test_a_command_names_the_extra_that_it_needs(made: Built, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv", made, "cli")
    (tmp_path / "toy.toml").write_text(TOY, encoding="utf-8")
    succeed(python, "-c", TRAIN.rpartition("ours =")[0], cwd=tmp_path)
    found = statuses(python, [*NEEDS, *NO_MORE], tmp_path)
    for line, extra in NEEDS.items():
        status, _, error = found[line]
        assert (status, error.count("\n")) == (1, 1), (line, error)
        assert f'pip install "gaba[{SMALLER.get(line, extra)}]"' in error, (line, error)
    for line in NO_MORE:
        status, out, error = found[line]
        assert (status, error) == (0, ""), (line, error)
        assert out, line


def test_a_command_whose_part_is_not_there_names_the_extra(made: Built, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv", made, "cli", apps=False)
    commands = {**NEEDS, "domains": "domains", "watch run.jsonl --once": ""}
    found = statuses(python, [*commands, "demo", "methods"], tmp_path)
    for line, extra in commands.items():
        wanted = ",".join(filter(None, ["cli", extra]))
        said = f'gaba-apps, which is not installed: pip install "gaba[{wanted}]"'
        assert found[line] == (1, "", f"gaba: error: the command line needs {said}\n"), line
    assert found["demo"][0] == found["methods"][0] == 0
