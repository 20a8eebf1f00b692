"""The list of fields, their examples and pictures, and ``gaba domains``."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _domain_sentences import INDEPENDENT
from _installs import Built
from _python import POLICY, run
from gaba import cli
from gaba.domains import DOMAINS, Domain, find

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "domains.md").read_text(encoding="utf-8")
EXTRAS = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PRINTED = {  # what the example prints and docs/domains.md says
    "portfolio": (
        *("12 digits", "3.0% to 5.9%", "5.0%", "RRC", "2.49%", "3.81%"),
        *("12.6%", "1.5%", "16.5%"),
    ),
    "mixing": ("-10.2", "-47.9", "-23.0 LUFS", "-16.01"),
    "ensembles": ("0.70 K", "2.24 K", "0.49 K", "0.52 K", "0.26 K", "74.1%"),
    "dosing": ("33.3%", "1.000", "95.9%", "3.8%", "0.2%"),
}
ABSENT = {
    "skfolio": "portfolio",
    "pyloudnorm": "mixing",
    "soundfile": "mixing",
    "xarray": "ensembles",
    "scipy": "dosing",
    "matplotlib": "dosing",
}

WITHOUT = """
import json, sys
from gaba import cli, domains
absent = json.loads(sys.argv[1])
print([name for name in absent if name in sys.modules])
for library, field in absent.items():
    before = dict(sys.modules)
    sys.modules[library] = None
    sys.modules.update({name: None for name in before if name.startswith(library + ".")})
    assert cli.main(["domains", field]) == 1
    for name in set(sys.modules) - set(before):
        if name == library or name.startswith("gaba."):
            del sys.modules[name]
    sys.modules.update(before)
"""


def python(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run([*words], cwd=cwd, policy=POLICY)


def size_of(png: Path) -> tuple[int, int]:
    head = png.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


# --- the registry --------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_an_entry_says_all_and_leads_to_files(domain: Domain) -> None:
    assert importlib.util.find_spec(f"gaba.domains.{domain.name}") is not None
    assert domain.equal.endswith(".")
    assert domain.wrong.endswith(".")
    assert not domain.extra or f"\n{domain.extra} = [" in EXTRAS
    lines = domain.example.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith('"""')
    assert len(lines) <= 60
    assert find(domain.name) is domain


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_the_page_has_a_row_for_every_field(domain: Domain) -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| [{domain.name}]"))
    assert domain.equal in row
    assert domain.wrong in row
    assert f"`gaba domains {domain.name}`" in row


def test_names_are_different() -> None:
    assert len({domain.name for domain in DOMAINS}) == len(DOMAINS)


def test_the_list_imports_no_library_and_an_absent_one_is_one_line(tmp_path: Path) -> None:
    words = ["-c", WITHOUT, json.dumps(ABSENT)]
    done = run(words, cwd=tmp_path, policy=POLICY, fresh=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[]\n")
    lines = done.stderr.splitlines()
    assert len(lines) == len(ABSENT)
    for library, line in zip(ABSENT, lines, strict=True):
        assert re.search(r'not installed: pip install -e "\S+\[[\w-]+\]"$', line), (library, line)
        assert library.casefold() in line.casefold()


# --- the examples --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_prints_its_figures_and_draws(name: str, tmp_path: Path) -> None:
    done = python("-m", "gaba", "domains", name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| [{name}]"))
    said = " ".join(done.stdout.split())
    for figure in PRINTED[name]:
        assert figure in said
        assert figure in row.replace("−", "-")
    for sentence in INDEPENDENT[name]():
        assert sentence in said
    assert max(len(line) for line in done.stdout.splitlines() if str(tmp_path) not in line) <= 100
    width, height = size_of(tmp_path / f"{name}.png")
    assert width >= 800
    assert height >= 400
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"{name}.png"} | ({"mixing.wav"} if name == "mixing" else set())


# --- the command ---------------------------------------------------------------------------------


def test_the_command_lists_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["domains"]) == 0
    said = capsys.readouterr().out
    flat = " ".join(said.split())
    for domain in DOMAINS:
        assert f"\n{domain.name}: " in f"\n{said}"
        assert " ".join(domain.equal.split()) in flat
        assert " ".join(domain.wrong.split()) in flat
    assert max(map(len, said.splitlines())) <= 100


def test_the_command_runs_an_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "folder"
    assert cli.main(["domains", "dosing", "--folder", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "no medical advice" in said
    assert "given at 33.3% of the dose" in said
    assert size_of(folder / "dosing.png")[0] >= 800


def test_an_unknown_field_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["domains", "cooking"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(
        "gaba: error: domains: no field is called 'cooking'; use one of portfolio"
    )
    assert said.count("\n") == 1


@pytest.mark.slow
def test_the_installed_wheel_runs_an_example(made: Built, tmp_path: Path) -> None:
    with zipfile.ZipFile(made.wheel) as wheel:
        wheel.extractall(tmp_path / "site")
    code = (
        "import sys, json; sys.path.insert(0, 'site'); import gaba; from gaba import cli; "
        "status = cli.main(['domains', 'dosing']); print(json.dumps([status, gaba.__file__]))"
    )
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    status, file = json.loads(done.stdout.splitlines()[-1])
    assert status == 0
    assert Path(file).is_relative_to(tmp_path) or file.startswith("site")
    assert (tmp_path / "dosing.png").is_file()
    shipped = {path.name for path in (tmp_path / "site").rglob("_examples/*.py")}
    assert shipped >= {domain.example.name for domain in DOMAINS}


# --- the page ------------------------------------------------------------------------------------


def test_the_snippets_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gaba.domains.mixing import loudness, read

    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    mine = PAGE[PAGE.index("## portfolio") :].split("\n## ")
    for section in (part for part in mine if part.removeprefix("## ").split("\n")[0] in PRINTED):
        for code in re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
            exec(code, names)
    assert names["projection"].dims == ("time", "lat")
    parts = [-23.0, -20.0]  # of piano and of voice, which add up as powers: neither knows the other
    together = 10 * np.log10(sum(10 ** (part / 10) for part in parts))
    found = loudness(read({"mix": "mix.wav"}).audio["mix"], 48000)
    assert found == pytest.approx(together, abs=0.2)
