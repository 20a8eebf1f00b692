"""A report finds what was planted, claims nothing else, and says what it cannot know."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from _bench_store import Planted, World, world
from gaba.bench import report
from gaba.bench.report._evidence import Evidence
from gaba.bench.report._page import page_of
from gaba.bench.report._regret import regrets
from gaba.bench.report._runs import blocks_of, marked
from gaba.bench.report._words import cautions, conclusions, troubles, verdict
from gaba.bench.store import Store
from gaba.record.page import Table, Text

ROOT = Path(__file__).parents[2]
CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
EVIL = "<script>alert(1)</script>|`*_"
PAPER = "fixed:.0952,1.9048"


def evidence_of(made: World, folder: Path) -> Evidence:
    path = folder / "runs.sqlite"
    problems = made.write(path)
    with Store(path, read_only=True) as store:
        return Evidence(tuple(blocks_of(store.rows(), problems)))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Six problems of five seeds, on which ``inverse`` alone differs from ``uniform``."""
    return evidence_of(world(6, luck=3), tmp_path_factory.mktemp("planted"))


def find(lines: list[str], start: str) -> str:
    found = [line for line in lines if line.startswith(start)]
    assert len(found) == 1, (start, lines)
    return found[0]


# --- what is said --------------------------------------------------------------------------------


def test_a_planted_effect_is_found_and_a_planted_null_is_not_claimed(planted: Evidence) -> None:
    lines = conclusions(planted)
    said = find(lines, "Against equal weights")
    assert re.search(
        r"better: inverse \(−2[12]\.\d %\); worse: none; no difference shown for", said
    )
    assert "no difference shown" in find(lines, "gaba against uniform")
    assert "no difference shown" in find(lines, "gaba against fixed-tuned")
    assert "helps inverse" in find(lines, "Adapting")
    assert "harms nobody" in find(lines, "Adapting")
    assert "the ranks differ" in lines[0]
    assert "inverse has the lowest mean rank, 1.00" in lines[0]


def test_the_planted_size_lies_in_both_intervals(planted: Evidence) -> None:
    assert planted.against_uniform is not None
    (at,) = (c for c in planted.against_uniform.comparisons if c.first == "inverse")
    true = (0.24 - 0.30) / 0.27
    assert true in at.interval
    assert true in at.across
    assert at.wins == (6, 0)
    assert at.p_problems == 2 / 2**6


def test_two_problems_that_agree_are_no_proof(tmp_path: Path) -> None:
    made = replace(world(2), means={"uniform": 0.3, "inverse": 0.2})
    assert "no method may be called best" in conclusions(evidence_of(made, tmp_path))[0]


@pytest.mark.parametrize(
    "luck", [0, *(pytest.param(luck, marks=pytest.mark.slow) for luck in (1, 2, 3))]
)
def test_where_nothing_differs_nothing_is_claimed(tmp_path: Path, luck: int) -> None:
    same = dict.fromkeys(("uniform", "gaba", "inverse", "famo", "fixed-tuned"), 0.3)
    evidence = evidence_of(replace(world(6, luck=luck), means=same), tmp_path)
    lines = conclusions(evidence)
    assert "no method may be called best" in lines[0] or "no other method" in lines[0]
    for line in lines:
        assert "better: none; worse: none" in line or not line.startswith("Against")
        assert "better on these problems" not in line
        assert "worse on these problems" not in line


def test_five_seeds_are_said_to_decide_no_single_problem(planted: Evidence) -> None:
    said = " ".join(cautions(planted))
    assert "is 0.0625: no difference on a single problem can be significant" in said
    assert planted.asked is not None
    assert all(pair.holm > 0.05 for c in planted.asked.comparisons for pair in c.pairs)


def test_one_problem_of_five_seeds_can_show_nothing_and_says_so(tmp_path: Path) -> None:
    evidence = evidence_of(world(1), tmp_path)
    lines = conclusions(evidence)
    assert "There is no ranking" in lines[0]
    assert "too few runs to show anything" in find(lines, "Against equal weights")
    assert evidence.asked is not None
    assert "cannot show a difference" in verdict(evidence.asked.comparisons[0])
    assert "too few for a test over problems" in " ".join(cautions(evidence))


def test_the_fixed_weights_of_the_floor_are_told_the_same_or_apart(tmp_path: Path) -> None:
    two = world(4, seeds=10, own=0.1)
    two = replace(two, problems=tuple(Planted(p.name) for p in two.problems))
    for name, mean, place in (("same", 0.30, "same within"), ("other", 0.36, "differ")):
        (tmp_path / name).mkdir()
        made = replace(two, means={"paper": 0.30, "uniform": 0.5, PAPER: mean})
        said = find(conclusions(evidence_of(made, tmp_path / name)), "Is paper distinguishable")
        lists = dict(re.findall(r"(same within|differ)[^:]*: ([^;]+)[;.]", said))
        assert lists[place].count("problem-") == 4
        assert sum(found.count("problem-") for found in lists.values()) == 4


def test_regret_price_and_answer(planted: Evidence) -> None:
    found = {r.method: r for r in regrets(planted.blocks)}
    assert found["inverse"].verdict == "as good"
    assert found["uniform"].verdict == found["gaba"].verdict == "worse"
    assert min(found.values(), key=lambda r: r.comparison.mean).method == "inverse"
    assert 2 * (0.30 - 0.25) / 0.55 in found["uniform"].interval
    assert found["uniform"].sweep_cost == pytest.approx(9 * 2 / 2)
    assert found["inverse"].sweep_cost == pytest.approx(9 * 2 / 3)
    assert found["uniform"].tuning_cost == pytest.approx(9 / 2)
    assert 0.1 < found["uniform"].untuned < 0.25
    assert not {"fixed-tuned", "fixed-sweep", "frozen:gaba", "single:rul"} & set(found)
    said = find(conclusions(planted), "As good as a sweep")
    assert "yes for inverse;" in said
    assert "the sweep cost 6 to 9 runs" in said


def test_delta_m_is_against_single_tasks(planted: Evidence) -> None:
    view = planted.views[0]
    assert view.delta_m("inverse").estimate > 0 > view.delta_m("uniform").estimate
    # RMSE: .25 → .24 is +4 %; a score f with (1 − f)/.7 from .25 to .24 is +.85 %
    assert 0.008 < view.delta_m("inverse").estimate < 0.042


def test_what_diverged_failed_or_is_missing_is_listed_and_counted(tmp_path: Path) -> None:
    made = world(3, diverges=("sqrt-inverse",), fails=("gaba",), optimizers=("adam", "sgd"))
    evidence = evidence_of(made, tmp_path)
    lines = troubles(evidence)
    said = find(lines, "sqrt-inverse diverged")
    assert said.count("(1)") == 6
    assert find(lines, "gaba failed").endswith("ValueError: the solver <gave> up")
    block = evidence.blocks[0]
    assert block.qualities("sqrt-inverse")[0] == 1.0  # as the trivial predictor
    assert sorted(block.qualities("gaba")) == [1, 2, 3, 4]
    assert evidence.seeds == (4, 5)


def test_nothing_amiss_is_said_as_well(planted: Evidence) -> None:
    assert troubles(planted) == ["Nothing diverged, nothing failed, and nothing is missing."]


def test_runs_that_only_warm_up_are_marked(tmp_path: Path) -> None:
    evidence = evidence_of(world(1, warms_up=("gaba",)), tmp_path)
    block = evidence.blocks[0]
    assert block.label("gaba") == "gaba (warm-up only)"
    assert block.label("inverse") == "inverse"
    assert find(troubles(evidence), "gaba gave equal weights throughout on problem-0 · adam") == (
        "gaba gave equal weights throughout on problem-0 · adam: its warm-up of 100 steps is as "
        "long as the run (100). Give it more steps."
    )


def test_a_warm_up_is_no_evidence_of_being_the_same(tmp_path: Path) -> None:
    """In every table, picture and sentence, and never as a small p of equivalence."""
    made = world(2, warms_up=("paper",))
    made = replace(made, means={**made.means, "paper": made.means["uniform"]})
    evidence = evidence_of(made, tmp_path)
    tables = [part for part in page_of(evidence).parts if isinstance(part, Table)]
    rows = [dict(zip(t.head, row, strict=True)) for t in tables for row in t.rows]
    named = [row["method"] for row in rows if row.get("method", "").startswith("paper")]
    assert named
    assert set(named) == {"paper (warm-up only)"}
    warming = [row for row in rows if row.get("comparison", "").startswith("paper (warm-up only)")]
    cells = [row["p of equivalence"] for row in warming if "p of equivalence" in row]
    assert set(cells) == {"still in its warm-up: equal weights by definition"}
    said = [row for row in rows if row.get("comparison", "").startswith("paper ")]
    assert said == warming
    ranking = evidence.views[0].ranking(["paper", "uniform", "gaba"])
    assert ranking.labels["paper"] == "paper (warm-up only)"
    assert find(conclusions(evidence), "paper (warm-up only) against uniform")
    assert not any(line.startswith("Is paper distinguishable") for line in conclusions(evidence))


def test_a_warm_up_on_some_problems_is_counted(tmp_path: Path) -> None:
    blocks = evidence_of(world(2, warms_up=("gaba",)), tmp_path).blocks
    (tmp_path / "other").mkdir()
    others = evidence_of(world(1), tmp_path / "other").blocks
    assert marked("gaba", blocks + others) == "gaba (warm-up only on 2 of 3)"
    assert marked("inverse", blocks + others) == "inverse"


# --- a store of 0.1.0 ----------------------------------------------------------------------------


def test_the_evidence_of_0_1_0_is_reported_in_the_names_of_today() -> None:
    with Store(ROOT / "docs/results/benchmark.sqlite", read_only=True) as store:
        rows, edition = store.rows(problem="turbofan-fd002"), store.edition
        assert len(store) == 2291
    evidence = Evidence(tuple(blocks_of(rows, {})), edition)
    assert edition == 0
    assert {"paper", "inverse", "fixed:0.0476,0.9524"} <= set(evidence.methods)
    assert "gaba" not in evidence.methods
    first = page_of(evidence).parts[0]
    assert isinstance(first, Text)
    assert first.text.startswith("Measured with gaba 0.1.0")
    assert "paper was called gaba" in first.text
    assert "inverse was the default" in first.text
    assert "now it pulls as hard as their sum" in first.text
    assert evidence.asked is not None
    titles = [c.title for c in evidence.asked.comparisons]
    assert titles == ["paper against uniform", "paper against fixed:0.0476,0.9524"]


def test_a_method_that_was_removed_is_shown(tmp_path: Path) -> None:
    """Its runs are ranked, compared and drawn as those of any other method."""
    made = world(2)
    gone = {"inverse-sketch": 0.2, "frozen:inverse-sketch": 0.2}
    made = replace(made, means={**made.means, **gone})
    problems = made.write(tmp_path / "runs.sqlite")
    path = report.write(tmp_path / "runs.sqlite", tmp_path / "report.md", "md", problems=problems)
    text = path.read_text(encoding="utf-8")
    assert ("other", "2") in re.findall(
        r"^\| inverse-sketch \| (\w+) \| (\d) \|", text, re.MULTILINE
    )
    assert "| inverse-sketch against uniform |" in text
    assert "| frozen:inverse-sketch |" in text
    with Store(tmp_path / "runs.sqlite", read_only=True) as store:
        block = blocks_of(store.rows(), problems)[0]
    assert block.quality("inverse-sketch") == pytest.approx(0.2, rel=0.1)


def test_the_removed_methods_of_the_evidence_of_0_1_0_are_shown() -> None:
    with Store(ROOT / "docs/results/benchmark.sqlite", read_only=True) as store:
        rows = store.rows(problem="conflict-toy")
    evidence = Evidence(tuple(blocks_of(rows, {})), 0)
    assert "inverse-sketch" in evidence.methods
    shown = [part for part in page_of(evidence).parts if isinstance(part, Table)]
    assert any(row[0] == "inverse-sketch" for table in shown for row in table.rows)


# --- views ---------------------------------------------------------------------------------------


def test_with_two_optimizers_validation_chooses(tmp_path: Path) -> None:
    evidence = evidence_of(world(2, optimizers=("adam", "sgd")), tmp_path)
    chosen, adam, sgd = evidence.views
    for problem in chosen.problems:
        best = min(
            evidence.blocks,
            key=lambda b: (
                sum(r.chosen_by for r in b.final["gaba"].values())
                if b.problem == problem
                else float("inf")
            ),
        )
        assert chosen.block(problem, "gaba") is best
    assert adam.title == "with adam"
    assert {b.optimizer for b in sgd.blocks} == {"sgd"}


# --- the pages -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small store as HTML and Markdown; one of its problems, of 40 tasks, has an evil name."""
    folder = tmp_path_factory.mktemp("pages")
    made = world(2, fails=("gaba",), diverges=("inverse",))
    forty = Planted(EVIL, [f"t{i:02}" for i in range(40)])
    made = replace(made, problems=(made.problems[0], forty))
    problems = made.write(folder / "runs.sqlite")
    for name in ("report.html", "again.html", "report.md"):
        kind = "html" if name.endswith("html") else "md"
        path = report.write(folder / "runs.sqlite", folder / name, kind, problems=problems)
        assert path == folder / name
    return folder


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            assert not name.startswith("on")
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "xlink:href", "src"):
                self.links.append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_one_file_that_runs_nothing(pages: Path) -> None:
    text = (pages / "report.html").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    assert not {"script", "link", "iframe", "object", "img"} & set(reader.tags)
    assert reader.tags["svg"] == reader.tags["figure"] > 8
    assert len(reader.ids) == len(set(reader.ids))
    for link in reader.links:
        assert link[0] == "#"
        assert link[1:] in reader.ids
    assert EVIL in reader.text
    assert "ValueError: the solver <gave> up" in reader.text
    assert len(text) < 3_000_000
    assert "#1c1f26" not in text.partition("</style>")[2]  # every colour is the page's own


def test_the_same_store_gives_the_same_page(pages: Path) -> None:
    assert (pages / "report.html").read_bytes() == (pages / "again.html").read_bytes()


def test_markdown_names_the_pictures_it_wrote(pages: Path) -> None:
    text = (pages / "report.md").read_text(encoding="utf-8")
    named = re.findall(r"!\[.*?\]\(report-pictures/(.+?)\)", text)
    there = sorted(path.name for path in (pages / "report-pictures").iterdir())
    assert sorted(named) == there
    for name in named:
        assert (pages / "report-pictures" / name).read_bytes()[1:4] == b"PNG"
    assert "<script>" not in text.replace("\\<script\\>", "")
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    for table in tables:
        rows = [re.sub(r"\\\|", "", line).count("|") for line in table.splitlines()]
        assert len(set(rows)) == 1


def test_the_tables_hold_what_the_store_holds(pages: Path) -> None:
    text = (pages / "report.md").read_text(encoding="utf-8")
    section = text.split("## problem-0 · adam")[1].split("## ")[0]
    row = next(line for line in section.splitlines() if line.startswith("| uniform |"))
    cells = [cell.strip().replace("\\", "") for cell in row.strip("|").split("|")]
    with Store(pages / "runs.sqlite", read_only=True) as store:
        rows = store.rows(problem="problem-0", method="uniform", stage="final")
    mean = sum(row.result["test"]["rmse_rul"] for row in rows) / len(rows)
    found = re.fullmatch(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", cells[1])
    assert found is not None
    value, low, high = map(float, found.groups())
    assert value == pytest.approx(mean, abs=0.01)
    assert low < value < high
    assert cells[-2] == str(len(rows))
    assert "5 (1 diverged)" in next(r for r in section.splitlines() if r.startswith("| inverse |"))
    assert "single:rul" in section


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    if not CHROMIUM.exists():
        pytest.skip(f"no Chromium at {CHROMIUM}: install it, or name one in $CHROMIUM")
    from playwright.sync_api import sync_playwright

    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1440])
def test_the_page_fits_and_follows_the_theme(
    pages: Path, browser: object, width: int, theme: str
) -> None:
    from playwright.sync_api import Browser

    assert isinstance(browser, Browser)
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if theme == "dark" else "light",
    )
    page = context.new_page()
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto((pages / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    ink = page.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
    light = sum(map(int, re.findall(r"\d+", ink)[:3])) > 3 * 128
    assert light == (theme == "dark")
    assert page.evaluate("document.querySelectorAll('figure svg').length") > 8
    context.close()
    assert not troubles


# --- what is refused -----------------------------------------------------------------------------


def test_what_cannot_be_reported_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no store of results"):
        report.write(tmp_path / "none.sqlite", tmp_path / "out.html")
    with Store(tmp_path / "empty.sqlite"):
        pass
    with pytest.raises(ValueError, match="store must hold final runs, found none among 0"):
        report.write(tmp_path / "empty.sqlite", tmp_path / "out.html")
    world(1).write(tmp_path / "runs.sqlite")
    with pytest.raises(ValueError, match="problems must tell by what 'problem-0' is judged"):
        report.write(tmp_path / "runs.sqlite", tmp_path / "out.html")
    with pytest.raises(ValueError, match="format must be html or md, found 'pdf'"):
        report.write(tmp_path / "runs.sqlite", tmp_path / "out", "pdf")  # pyright: ignore[reportArgumentType]
    assert not (tmp_path / "out.html").exists()
