"""The documentation: its code runs, its links lead somewhere, its reference is complete.

Every block of code of every page is executed (`_pages.py` says how). A command that cannot be
executed as it stands is in `SPECIAL`, with what is done in its place.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
from sphinx.util.inventory import InventoryFile

import _pages
from _fsdp2 import needs_fsdp2

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
OTHERS = {"coming-from", "tutorials"}
"""Folders of pages that have tests of their own."""
PAGES = sorted(
    path
    for path in DOCS.rglob("*.md")
    if not {"_build", "reference", *OTHERS} & set(path.relative_to(DOCS).parts)
)
KINDS = {"python", "sh", "text", "toml", "bibtex", "{toctree}", "{include}"}
SLOW = {"how-to/compile.md", "how-to/export-model.md", "how-to/fsdp2.md", "how-to/ddp.md"}
"""Pages that take longer; what they show is tested elsewhere too."""
NEEDS = {"how-to/fsdp2.md": needs_fsdp2}


def name_of(path: Path) -> str:
    return path.relative_to(DOCS).as_posix()


def extension(name: str) -> ModuleType:
    """A file of the documentation's own Sphinx extensions."""
    sys.path.insert(0, str(DOCS / "_ext"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(DOCS / "_ext"))


# --- the code ---------------------------------------------------------------------------------


def installs(extra: str = "") -> Callable[[Path], None]:
    """An installation: that the extra is declared."""

    def run(_: Path) -> None:
        declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        for name in filter(None, extra.split(",")):
            assert re.search(rf"^{name} = \[", declared, re.MULTILINE)

    return run


def takes(command: str) -> Callable[[Path], None]:
    """A command that goes on until it is stopped: that it is there and takes these words."""

    def run(_: Path) -> None:
        done = subprocess.run(
            [sys.executable, *_pages.GABA, command, "--help"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    return run


SPECIAL: dict[str, Callable[[Path], None]] = {
    "pip install .": installs(),
    'pip install ".[cli,web]"': installs("cli,web"),
    "gaba web run.jsonl": takes("web"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    return tmp_path


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=name_of(path), marks=NEEDS.get(name_of(path), ()))
        for path in PAGES
        if name_of(path) not in SLOW
    ],
)
def test_the_code_of_a_page_runs(path: Path, folder: Path) -> None:
    _pages.tell(path, folder, SPECIAL)


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=name_of(p), marks=NEEDS.get(name_of(p), ()))
        for p in PAGES
        if name_of(p) in SLOW
    ],
)
def test_the_code_of_a_page_runs_slowly(path: Path, folder: Path) -> None:
    _pages.tell(path, folder, SPECIAL)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_block_is_of_a_kind_that_is_tested(path: Path) -> None:
    found = _pages.blocks(path)
    assert {block.kind for block in found} <= KINDS
    fences = re.findall(r"^```", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(found)


def test_every_special_command_stands_in_a_page() -> None:
    found = {
        line
        for path in PAGES
        for block in _pages.blocks(path)
        if block.kind == "sh"
        for line in _pages.commands(block)
    }
    assert set(SPECIAL) <= found


def test_a_how_to_is_short_and_shows_code() -> None:
    pages = sorted((DOCS / "how-to").glob("*.md"))
    assert len(pages) >= 16
    for path in pages:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 110, path.name
        assert _pages.blocks(path), path.name


# --- the links, for a reader of the repository ------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The places of a page that a link may name."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_and_pictures_lead_somewhere(path: Path) -> None:
    prose = _pages.BLOCK.sub("", path.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in target:
            continue
        file, _, place = target.partition("#")
        to = (path.parent / file).resolve() if file else path
        assert to.exists(), f"{path.name}: {target}"
        if place and to.suffix == ".md":
            assert place in anchors(to), f"{path.name}: {target}"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_paths_in_the_text_are_those_of_files(path: Path) -> None:
    prose = _pages.BLOCK.sub("", path.read_text(encoding="utf-8"))
    for found in re.findall(r"`(?:python )?((?:examples|benchmarks|src)/[\w./-]+)", prose):
        assert (ROOT / found).exists(), f"{path.name}: {found}"


# --- the reference ----------------------------------------------------------------------------


def public_names() -> list[tuple[str, str]]:
    """Module and name of every name in an `__all__`, found without the generator's help."""
    import pkgutil

    import gaba

    names = ["gaba", *(found.name for found in pkgutil.walk_packages(gaba.__path__, "gaba."))]
    return [
        (module, name)
        for module in names
        if "._" not in module
        for name in getattr(importlib.import_module(module), "__all__", ())
        if not isinstance(getattr(importlib.import_module(module), name), ModuleType)
    ]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    extension("reference").write(folder)
    return folder


def test_every_public_name_is_in_the_reference(reference: Path) -> None:
    pages = {path.stem: path.read_text(encoding="utf-8") for path in reference.glob("*.rst")}
    for module, name in public_names():
        page = pages[module]
        described = re.search(rf"^\.\. (?:auto\w+:: {module}\.|py:data:: ){name}$", page, re.M)
        assert described or f":py:obj:`{name} <" in page, f"{module}.{name}"


def test_every_public_name_is_described_where_it_is_defined() -> None:
    found: Any = extension("reference")
    promised = {m.__name__ for m in found.modules() if found.promises(m)}
    silent = [n.full for n in found.names() if n.home in promised and not n.described]
    assert not silent


def test_every_page_of_the_reference_is_led_to(reference: Path) -> None:
    index = (reference / "index.rst").read_text(encoding="utf-8")
    for path in reference.glob("gaba*.rst"):
        assert f"   {path.stem}\n" in index


def test_every_source_that_is_named_is_in_the_index_by_paper() -> None:
    found: Any = extension("papers")
    assert not [f"{use.role}: {use.source}" for use in found.unlisted(DOCS)]
    assert "GradNorm: Gradient Normalization" in found.index(DOCS)


def test_every_method_has_a_row_with_all_that_is_known_of_it() -> None:
    from gaba.methods import METHODS

    text = "\n".join(extension("methods").page())
    for entry in METHODS.values():
        row = re.search(
            rf"^   \* - ``{entry.name}\b.*\n(?:     - .*\n?|     -\n?){{4}}", text, re.M
        )
        assert row, entry.name
        assert f"``{entry.formula}``" in row[0]
        for known in (entry.needs, entry.cost, entry.source):
            assert known.replace("|", "\\|").replace("*", "\\*") in row[0]


def test_the_picture_of_the_start_page_shows_the_figures_of_the_demo() -> None:
    from gaba.demo import proof

    picture = (DOCS / "_static" / "problem.svg").read_text(encoding="utf-8")
    widths = dict(re.findall(r'id="(\S+)" x="\d+" y="\d+" width="([\d.]+)"', picture))
    found = {name: float(width) for name, width in widths.items()}
    shown = proof()
    ratio = max(shown.norms) / min(shown.norms)
    assert found["sum-rul"] / found["sum-health"] == pytest.approx(ratio, rel=1e-3)
    assert found["balanced-rul"] == pytest.approx(found["balanced-health"], rel=1e-3)
    assert f"{ratio:.1f} times" in picture
    assert f"{ratio:.1f} times" in (DOCS / "index.md").read_text(encoding="utf-8")


def commands() -> dict[str, type]:
    """Every command by its words; its fields are its arguments and options."""
    from gaba.cli import bench
    from gaba.cli.commands import COMMANDS

    actions = {
        "run": bench.Run,
        "status": bench.Status,
        "report": bench.Summarise,
        "merge": bench.Merge,
        "problems": bench.Problems,
    }
    return COMMANDS | {f"bench {name}": command for name, command in actions.items()}


@pytest.mark.parametrize(("words", "command"), commands().items(), ids=commands())
def test_the_page_of_the_command_line_has_every_option(words: str, command: type) -> None:
    text = "\n".join(extension("commands").page())
    own = text.partition(f"\n\ngaba {words}\n")[2].partition("\n\n\n")[0]
    said = (command.__doc__ or "").partition("`")[0]
    assert " ".join(said.split()) in " ".join(own.split())
    for field in fields(command):
        if field.name != "action":  # that has sections of its own
            positional = "Positional" in str(field.type)
            name = r"[^-`]+" if positional else f"[^`]*--{field.name.replace('_', '-')}"
            assert re.search(rf"^``{name}\b.*``\n   \S", own, re.MULTILINE), field.name


# --- the site ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-E", "-q"),
            *("-d", str(folder / "doctrees"), str(DOCS), str(folder / "html")),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.mark.slow
def test_the_site_has_every_public_name(site: Path) -> None:
    with (site / "objects.inv").open("rb") as file:
        objects: Any = InventoryFile.load(cast("Any", file), "", os.path.join)
    found = {name for kind, names in objects.items() if kind.startswith("py:") for name in names}
    names: Any = extension("reference")
    assert {n.full for n in names.names() if n.home == n.module} <= found


@pytest.mark.slow
def test_the_site_leads_nowhere_else_and_loads_nothing(site: Path) -> None:
    assert not list(extension("links").troubles(site))
    assert (site / "_modules/gaba/balancer.html").is_file()


def test_the_checker_of_links_sees_what_is_wrong(tmp_path: Path) -> None:
    page = '<a id="here"></a><a href="#gone">x</a><a href="no.html">x</a><a href="#here">x</a>'
    page += '<script src="https://elsewhere.example/x.js"></script>'
    (tmp_path / "index.html").write_text(page, encoding="utf-8")
    found = sorted(extension("links").troubles(tmp_path))
    assert [trouble.partition(": ")[2] for trouble in found] == [
        "#gone has no such place",
        "loads https://elsewhere.example/x.js from another host",
        "no.html leads nowhere",
    ]
