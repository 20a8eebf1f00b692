"""The "coming from" pages: before and after, each run alone, give the same numbers."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "docs" / "coming-from"
PAGES = sorted(FOLDER.glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

SETTINGS = {
    "gradnorm": [("alpha=1.5", "alpha=0.5"), ("learning_rate=0.025", "learning_rate=0.02")],
    "uncertainty": [("learning_rate=1e-3", "learning_rate=2e-3")],
    "vqgan": [("weight=0.8", "weight=0.7"), ("start=10", "start=11")],
    "encodec": [('ratios={"wave": 3', 'ratios={"wave": 2'), ("ratios=", "decay=0.9, ratios=")],
    "pinn": [("every=20", "every=25"), ("every=10", "every=11")],
    "libmtl": [
        ("window=len(loader)", "window=9"),
        ('"mgda"', '"upgrad"'),
        ("rate=0.01", "rate=0.02"),
    ],
    "torchjd": [('"upgrad"', '"mgda"'), ('"equal-projection"', '"sqrt-inverse"')],
}
"""For each page, changes of a setting after which the numbers are to differ."""


@dataclass(frozen=True)
class Pair:
    """One comparison of a page."""

    setup: str
    before: str
    after: str


def sections(page: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each heading of the page with its blocks of code."""
    for part in page.read_text(encoding="utf-8").split("\n## ")[1:]:
        heading, _, body = part.partition("\n")
        yield heading, [(kind, code) for kind, code in BLOCK.findall(body)]


def pairs(page: Path) -> list[Pair]:
    python = [
        (heading, code)
        for heading, blocks in sections(page)
        for kind, code in blocks
        if kind == "python"
    ]
    assert python[0][0] == "The model of both"
    befores = [code for heading, code in python if heading.startswith("Before")]
    afters = [code for heading, code in python if heading.startswith("After")]
    assert befores
    return [Pair(python[0][1], b, a) for b, a in zip(befores, afters, strict=True)]


def run(*codes: str) -> tuple[dict[str, Any], str]:
    """The names that the code defines, and what it prints; torch's random numbers as before."""
    names: dict[str, Any] = {"__name__": "page"}
    printed = io.StringIO()
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(printed):
        for code in codes:
            exec(compile(code, "page", "exec"), names)
    return names, printed.getvalue()


def differ(left: Any, right: Any) -> bool:
    try:
        torch.testing.assert_close(right, left, rtol=1e-6, atol=1e-8)
    except AssertionError:
        return True
    return False


def test_there_is_a_page_for_each() -> None:
    assert [page.stem for page in PAGES] == sorted(SETTINGS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_before_and_after_alone_give_the_same_numbers(page: Path) -> None:
    for pair in pairs(page):
        before = run(pair.setup, pair.before)[0]["before"]
        after = run(pair.setup, pair.after)[0]["after"]
        assert before.keys() == after.keys()
        for name in before:
            torch.testing.assert_close(after[name], before[name], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_parameters_have_moved(page: Path) -> None:
    for pair in pairs(page):
        before = run(pair.setup, pair.before)[0]["before"]
        start = run(pair.setup, "model, *_ = start()\n")[0]["model"].parameters()
        trained = next(iter(before.values()))
        assert all(differ(a, b) for a, b in zip(start, trained, strict=True))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_other_settings_give_other_numbers(page: Path) -> None:
    unused = dict(SETTINGS[page.stem])
    for pair in pairs(page):
        for old in [old for old in unused if old in pair.after]:
            changed = pair.after.replace(old, unused.pop(old))
            before = run(pair.setup, pair.before)[0]["before"]
            after = run(pair.setup, changed)[0]["after"]
            assert any(differ(before[name], after[name]) for name in before), old
    assert not unused


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_runs_from_top_to_bottom_and_prints_what_it_says(page: Path) -> None:
    blocks = [block for _, found in sections(page) for block in found]
    said = "".join(text for kind, text in blocks if kind == "text")
    _, printed = run(*(code for kind, code in blocks if kind == "python"))
    assert said
    assert printed == said


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_comparison_stands_under_its_heading(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Coming from ")
    assert text.count("```") == 2 * len(BLOCK.findall(text))
    assert {kind for kind, _ in BLOCK.findall(text)} <= {"python", "text", "sh"}
    headings = [heading.partition(":")[0] for heading, _ in sections(page)]
    compared = [h for h in headings if h.startswith(("Before", "After", "The same numbers"))]
    assert compared == ["Before", "After", "The same numbers"] * len(pairs(page))
    for target in re.findall(r"\]\(([^)#\s]+)\)", BLOCK.sub("", text)):
        assert "://" in target or (page.parent / target).exists(), target
