"""A report is one file that says what the runs did, and nothing in it can do harm."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import gaba
from _web_records import read, step_lines, write
from gaba.record import report
from gaba.record.diagnosis import diagnose

EVIL = '<script>alert("x")</script>|`*_'
TASKS = ("rul", EVIL)
PICTURES = ("losses", "norms", "multipliers", "contributions", "shares", "imbalance", "saturation")
PICTURES += ("cosine-matrix", "cosines")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> report.Run:
    path = tmp_path_factory.mktemp("run") / "history.jsonl"
    history = read(write(path, step_lines(60, TASKS, cosines=True), TASKS))
    meta = {"subset": "FD001", "method": "gaba", "seed": 0, "note": EVIL}
    return report.Run("a <run>", history, meta)


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for name, v in attrs if name in ("src", "srcset", "href")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag == "img":
            assert dict(attrs)["alt"]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_figures_diagnosis_and_configuration(run: report.Run) -> None:
    reader = Reader()
    reader.feed(report.html([run]))
    assert reader.tags.count("img") == reader.tags.count("source") == len(PICTURES)
    for finding in diagnose(run.history).findings:
        assert finding.text in reader.text
    for value in ("FD001 · gaba · seed 0", EVIL, "60 steps of 2 tasks", "a <run>"):
        assert value in reader.text
    weight = f"{run.history.weights[-1, 0]:.4f}"
    assert weight in reader.text


def test_the_page_needs_nothing_else_and_runs_nothing(run: report.Run) -> None:
    page = report.html([run])
    reader = Reader()
    reader.feed(page)
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    for link in reader.links:
        head, _, body = link.partition(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(body)[1:4] == b"PNG"
    assert "default-src 'none'" in page


def test_several_runs_are_compared(run: report.Run, tmp_path: Path) -> None:
    other = read(write(tmp_path / "run.jsonl", step_lines(9, ("x",)), ("x",)))
    runs = [run, report.Run("other", other, {"simulated": True})]
    reader = Reader()
    reader.feed(report.html(runs))
    assert "simulated data" in reader.text
    table = report.markdown(runs, tmp_path / "pictures").split("## Runs")[1]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")][2:4]
    assert [row[1] for row in rows] == ["60", "9"]


def test_markdown_names_the_pictures_it_wrote(run: report.Run, tmp_path: Path) -> None:
    page = report.markdown([run], tmp_path / "pictures")
    named = re.findall(r"!\[.*?\]\(pictures/(.+?)\)", page)
    assert named == [f"{name}.png" for name in PICTURES]
    for name in named:
        assert (tmp_path / "pictures" / name).read_bytes()[1:4] == b"PNG"
    assert "<script>" not in page.replace("\\<script\\>", "")
    for finding in diagnose(run.history).findings:
        assert re.sub(r"\\(.)", r"\1", page).find(finding.text) >= 0


@pytest.mark.parametrize("write_it", [report.html, lambda r: report.markdown(r, Path("nowhere"))])
def test_what_cannot_be_reported_is_said(write_it: Any) -> None:
    with pytest.raises(ValueError, match="at least one, found none"):
        write_it([])
    with pytest.raises(ValueError, match="young holds no steps yet"):
        write_it([report.Run("young", gaba.History(["a"]))])
    assert not Path("nowhere").exists()
