"""The live page as a person uses it: in a browser, with the mouse and with the keyboard alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

import gaba
from _contrast import contrasts
from _web_records import append, as_of_0_1, read, step_lines, write
from gaba.web.server import Server

Open = Callable[..., Page]
LONG = 30_000  # milliseconds: this machine may be busy


@contextmanager
def serving(path: Path, port: int = 0, clock: Callable[[], float] = time.time) -> Iterator[Server]:
    server = Server(path, port=port, clock=clock)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    lines = step_lines(400, ("rul", "health", "wear"), cosines=True)
    tasks = ("rul", "health", "wear")
    write(folder / "first" / "history.jsonl", lines, tasks, subset="FD001", method="gaba", seed=0)
    write(folder / "second" / "history.jsonl", step_lines(5000, ("a", "b"), seed=2), simulated=True)
    write(folder / "third.jsonl", [*step_lines(6, ("a", "b")), "{oops}\n"])
    return folder


@pytest.fixture(scope="module")
def live(runs: Path) -> Iterator[str]:
    with serving(runs) as server:
        yield f"{server.address}live"


def run_of(page: Page, name: str) -> Any:
    return page.get_by_role("article", name=f"run {name}")


def has_steps(page: Page, name: str, count: int, state: str = "following") -> None:
    run = run_of(page, name)
    expect(run).to_have_attribute("data-total", str(count), timeout=LONG)
    expect(run).to_have_attribute("data-state", state, timeout=LONG)


def drawn(page: Page, name: str) -> list[str]:
    """The charts that show something: their canvases hold more than one colour."""
    return run_of(page, name).evaluate(
        """(run) => [...run.querySelectorAll("figure")].filter((figure) => {
          const canvas = figure.querySelector("canvas");
          if (!canvas || !canvas.width) return false;
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          const found = new Set(new Uint32Array(data.buffer));
          return found.size > 8;
        }).map((figure) => figure.dataset.chart)"""
    )


# --- what is shown -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "theme"),
    [
        (1440, "light"),
        (375, "dark"),
        pytest.param(1440, "dark", marks=pytest.mark.slow),
        pytest.param(375, "light", marks=pytest.mark.slow),
    ],
)
def test_a_run_is_shown_in_both_themes_and_sizes(
    theme: str, width: int, live: str, open_page: Open, runs: Path, tmp_path: Path
) -> None:
    name = "first/history.jsonl"
    page = open_page(f"{live}?run={name}", width=width, theme=theme)
    has_steps(page, name, 400)
    run = run_of(page, name)
    expect(run.get_by_text("FD001 · gaba · seed 0")).to_be_visible()
    said = gaba.diagnose(read(runs / name))
    expect(run.locator(".verdict")).to_have_text(said.verdict, timeout=LONG)
    expect(run.locator(".conclusion code")).to_have_text(said.code)
    expect(run.locator(".findings li")).to_have_text([found.text for found in said.evidence])
    charts = ["losses", "norms", "multipliers", "contributions", "imbalance", "shares"]
    assert sorted(drawn(page, name)) == sorted([*charts, "cosines", "seconds"])
    verdict = run.locator(".verdict").bounding_box()
    below = [run.locator(what).first.bounding_box() for what in (".figures", "figure", ".findings")]
    assert verdict is not None
    assert all(box is not None and box["y"] > verdict["y"] for box in below)
    history = read(runs / name)
    row = run.get_by_role("row", name=re.compile("^rul")).first
    saturated = history.saturated[:, 0].mean()
    expect(row.get_by_role("cell").last).to_have_text(f"{100 * saturated:.1f} %")
    skipped = int((~history.finite).sum())
    figure = run.locator("dl.figures > div", has_text="Skipped steps").locator("dd")
    expect(figure).to_have_text(str(skipped))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shot = page.screenshot(path=tmp_path / f"{theme}-{width}.png", full_page=True)
    assert len(shot) > 20_000


LOOKS = {"act": "trouble", "watch": "watch", "fine": "fine"}


def test_findings_look_as_their_grades_say(live: str, kept_page: Open, runs: Path) -> None:
    page = kept_page(f"{live}?run=first/history.jsonl", fresh=False)
    run = run_of(page, "first/history.jsonl")
    said = gaba.diagnose(read(runs / "first/history.jsonl"))
    expect(run.locator(".verdict")).to_have_class(f"verdict {LOOKS[said.grade]}", timeout=LONG)
    expect(run.locator(".findings li")).to_have_class([LOOKS[f.grade] for f in said.evidence])
    assert len({found.grade for found in said.evidence}) > 1


def test_the_matrix_shows_the_median_cosines_and_of_how_many_steps(
    live: str, open_page: Open, runs: Path
) -> None:
    names = "first/history.jsonl", "second/history.jsonl"
    page = open_page(f"{live}?run={names[0]}&run={names[1]}")
    history = read(runs / names[0])
    known = history.finite & np.isfinite(history.cosines[:, 0, 1:]).any(axis=1)
    heat = run_of(page, names[0]).locator("table.heat")
    expect(heat.locator("caption")).to_contain_text(f"median of {known.sum()} steps", timeout=LONG)
    for j in (1, 2):
        column = history.cosines[known, 0, j]
        text = f"{np.median(column[np.isfinite(column)]):.2f}"
        expect(heat.locator("tbody tr").first.locator("td").nth(j)).to_have_text(text)
    has_steps(page, names[1], 5000)
    expect(run_of(page, names[1]).locator("table.heat")).to_have_count(0)
    without = run_of(page, names[1]).locator("section", has_text="Who helps whom")
    expect(without.locator(".note")).to_contain_text("Nothing was recorded")
    expect(without.locator("code")).to_have_text("gaba.Observer(tasks, shared)")


def test_no_text_is_faint_and_no_control_without_a_name(live: str, kept_page: Open) -> None:
    for theme in ("light", "dark"):
        page = kept_page(
            f"{live}?run=first/history.jsonl&run=third.jsonl", theme=theme, fresh=theme == "light"
        )
        has_steps(page, "first/history.jsonl", 400)
        has_steps(page, "third.jsonl", 6, "error")
        expect(page.locator(".findings li").first).to_be_visible(timeout=LONG)
        assert [one for one in contrasts(page) if one[0] < 4.5] == []
        assert page.evaluate(NAMELESS) == []
        images = page.get_by_role("img")
        assert images.count() >= 7
        plot = page.locator('figure[data-chart="multipliers"] .plot').first
        label = plot.get_attribute("aria-label")
        assert label is not None
        assert re.match(
            r"Multipliers\. Steps 0 to 399\. Last: rul \S+, health \S+, wear \S+\.$", label
        )


NAMELESS = """() => [...document.querySelectorAll("button, input, a, progress, [tabindex='0']")]
  .filter((e) => e.checkVisibility())
  .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim() ||
    [...(e.labels ?? [])].some((label) => label.textContent.trim())))
  .map((e) => e.outerHTML)"""


def test_losses_below_zero_are_shown_too(tmp_path: Path, open_page: Open) -> None:
    """A logarithmic axis would leave them out."""
    lines = [line.replace('"losses": {"a": ', '"losses": {"a": -') for line in LINES_OF_B]
    write(tmp_path / "run.jsonl", lines)
    with serving(tmp_path) as server:
        page = open_page(f"{server.address}live?run=run.jsonl")
        has_steps(page, "run.jsonl", 60)
        plot = run_of(page, "run.jsonl").locator('figure[data-chart="losses"] .plot')
        expect(plot).to_have_attribute("aria-label", re.compile(r"Last: a -\d"), timeout=LONG)
        page.goto("about:blank")


LINES_OF_B = [line for line in step_lines(80, ("a", "b")) if '"losses": {"a": null' not in line][
    :60
]


def test_a_run_of_version_0_1_is_shown(tmp_path: Path, open_page: Open) -> None:
    lines = as_of_0_1(step_lines(60, ("a", "b")), gain=4.0)
    history = read(write(tmp_path / "run.jsonl", lines))
    with serving(tmp_path) as server:
        page = open_page(f"{server.address}live?run=run.jsonl")
        has_steps(page, "run.jsonl", 60)
        row = run_of(page, "run.jsonl").get_by_role("row", name=re.compile("^b")).first
        weight = history.weights[-1, 1]
        expect(row.get_by_role("cell").nth(2)).to_have_text(f"{4 * weight:.4f}")
        expect(row.get_by_role("cell").nth(3)).to_have_text(f"{weight:.4f}")
        assert {"multipliers", "losses"} <= set(drawn(page, "run.jsonl"))
        page.goto("about:blank")


def test_a_malformed_line_is_told_where_it_is(live: str, kept_page: Open) -> None:
    page = kept_page(f"{live}?run=third.jsonl")
    has_steps(page, "third.jsonl", 6, "error")
    alert = run_of(page, "third.jsonl").get_by_role("alert")
    expect(alert).to_contain_text("third.jsonl, line 8: not a step of the tasks ('a', 'b')")
    expect(run_of(page, "third.jsonl").locator(".state")).to_have_text("Unreadable")
    assert "multipliers" in drawn(page, "third.jsonl")


def test_without_a_folder_the_page_says_how_to_begin(address: str, open_page: Open) -> None:
    page = open_page(f"{address}live")
    expect(page.get_by_text("start with `gaba web RUN_OR_FOLDER`")).to_be_visible(timeout=LONG)


WRITTEN = 1.7e9


def test_the_state_of_a_run_stands_at_the_top(tmp_path: Path, open_page: Open) -> None:
    """The clock is the test's; nothing is waited for but the page."""
    lines = [line for line in step_lines(140, ("a", "b")) if '"finite": true' in line]
    path = write(tmp_path / "run.jsonl", lines[:60], steps=len(lines))
    now = [WRITTEN + 59.0]
    with serving(tmp_path, clock=lambda: now[0]) as server:
        os.utime(path, (WRITTEN, WRITTEN))
        page = open_page(f"{server.address}live?run=run.jsonl", width=375)
        run = run_of(page, "run.jsonl")
        word, said = run.locator(".state"), run.locator(".said")
        expect(word).to_have_text("Running")
        now[0] = WRITTEN + 60
        expect(word).to_have_text("Stalled")
        expect(said).to_contain_text("No new step for more than 60 s")
        top, verdict = word.bounding_box(), run.locator(".verdict").bounding_box()
        assert top is not None
        assert verdict is not None
        assert top["y"] < verdict["y"]
        now[0] = time.time() + 1000
        append(path, lines[60:61])
        os.utime(path, (now[0], now[0]))
        expect(word).to_have_text("Running")
        failed = {"about": {"end": "failed", "error": "ValueError: the loss is NaN"}}
        append(path, [json.dumps(failed) + "\n"])
        expect(word).to_have_text("Failed")
        expect(said).to_contain_text("It ended after ")
        expect(said).to_contain_text("ValueError: the loss is NaN. Fix that, then")
        append(path, ['{"about": {"metric": "euclidean"}}\n', *lines[61:]])  # it was resumed
        expect(word).to_have_text("Finished")
        expect(run.get_by_text("gaba report RUN -o report.html")).to_be_visible()
        page.goto("about:blank")


DASHED = """(run) => {
  const canvas = run.querySelector('figure[data-chart="multipliers"] canvas');
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  const ink = getComputedStyle(run.querySelector(".muted")).color.match(/\\d+/g).map(Number);
  const same = (at) => ink.every((value, c) => Math.abs(data[at + c] - value) < 12);
  return Array.from({ length: height }, (_, y) => Array.from({ length: width },
    (_, x) => same(4 * (y * width + x))).filter(Boolean).length / width)
    .map((part, y) => (part > 0.3 ? y : -1)).filter((y) => y >= 0);
}"""


def test_the_limits_of_the_multipliers_are_drawn(tmp_path: Path, open_page: Open) -> None:
    about = json.dumps({"about": {"method": "gaba", "limit": "64"}}) + "\n"
    write(tmp_path / "limited.jsonl", [about, *step_lines(50, ("a", "b"))])
    write(tmp_path / "free.jsonl", step_lines(50, ("a", "b")))
    with serving(tmp_path) as server:
        page = open_page(f"{server.address}live?run=limited.jsonl&run=free.jsonl")
        for name in ("limited.jsonl", "free.jsonl"):
            has_steps(page, name, 50)
            expect(run_of(page, name).locator(".verdict")).to_be_visible()
        rows = run_of(page, "limited.jsonl").evaluate(DASHED)
        assert len({y // 4 for y in rows}) == 2  # 64 above, and 1/64 far below
        assert max(rows) - min(rows) > 80
        assert run_of(page, "free.jsonl").evaluate(DASHED) == []
        page.goto("about:blank")


# --- what a person does --------------------------------------------------------------------------


def test_runs_are_chosen_and_stand_side_by_side(live: str, kept_page: Open) -> None:
    page = kept_page(live)
    first = page.get_by_role("checkbox", name="first")
    expect(first).to_be_checked(timeout=LONG)
    page.get_by_role("checkbox", name="second").check()
    has_steps(page, "first/history.jsonl", 400)
    has_steps(page, "second/history.jsonl", 5000)
    expect(run_of(page, "second/history.jsonl").get_by_text("simulated data")).to_be_visible()
    both = ("first/history.jsonl", "second/history.jsonl")
    boxes = [run_of(page, name).bounding_box() for name in both]
    left, right = [box for box in boxes if box is not None]
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    charts = [
        run_of(page, name).locator('figure[data-chart="multipliers"]').bounding_box()
        for name in both
    ]
    assert len({box["y"] for box in charts if box is not None}) == 1
    assert page.url.endswith("?run=first%2Fhistory.jsonl&run=second%2Fhistory.jsonl")
    first.uncheck()
    expect(run_of(page, "first/history.jsonl")).to_have_count(0)
    page.reload()
    has_steps(page, "second/history.jsonl", 5000)
    expect(page.get_by_role("article")).to_have_count(1)


def shown(page: Page, name: str) -> tuple[int, int]:
    text = run_of(page, name).locator(".toolbar output").inner_text()
    found = [int(part.replace(",", "")) for part in re.findall(r"[\d,]+", text)]
    return (found[0], found[1]) if found else (0, -1)


def test_a_stretch_is_looked_at_closely_with_the_mouse(live: str, kept_page: Open) -> None:
    name = "second/history.jsonl"
    page = kept_page(f"{live}?run={name}")
    has_steps(page, name, 5000)
    over = run_of(page, name).locator('figure[data-chart="norms"] .u-over')
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.50 * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.55 * box["width"], y, steps=5)
    with page.expect_response(lambda answer: "/api/range" in answer.url) as answer:
        page.mouse.up()
    buckets = answer.value.json()["buckets"]
    assert buckets["stride"] == 1  # steps are merged on the page, and not in a close look
    low, high = shown(page, name)
    assert 2400 <= low <= 2600
    assert 2650 <= high <= 2850
    page.mouse.move(box["x"] + box["width"] / 2, y)
    reading = run_of(page, name).locator('figure[data-chart="norms"] .reading')
    expect(reading).to_contain_text(re.compile(r"^step 2,[67]\d\d: a "))
    over.dblclick()
    assert shown(page, name) == (0, -1)


def test_everything_can_be_done_with_the_keyboard(live: str, open_page: Open) -> None:
    name = "first/history.jsonl"
    page = open_page(f"{live}?run={name}")
    has_steps(page, name, 400)
    seen: list[str] = []
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the runs"
    for _ in range(25):
        page.keyboard.press("Tab")
        label = page.evaluate(
            "(e => e.getAttribute('aria-label') || e.value || e.textContent.trim())"
            "(document.activeElement)"
        )
        seen.append(label)
        if label == f"Zoom in, {name}":
            page.keyboard.press("Enter")
            page.keyboard.press("Enter")
        if label == f"Later steps, {name}":
            page.keyboard.press("Space")
            break
        if label == "second/history.jsonl":
            page.keyboard.press("Space")
    assert f"Show all steps, {name}" in seen
    low, high = shown(page, name)
    assert (high - low) == pytest.approx(100, abs=3)
    assert low == pytest.approx(200, abs=3)
    has_steps(page, "second/history.jsonl", 5000)
    expect(page.get_by_role("checkbox", name="second")).to_be_checked()
    page.get_by_role("radio", name="Dark").focus()
    page.keyboard.press("Space")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert "multipliers" in drawn(page, name)


# --- while it is written -------------------------------------------------------------------------


def test_a_page_loses_nothing_when_the_server_goes_and_comes_back(
    tmp_path: Path, chromium: Browser
) -> None:
    path = write(tmp_path / "run.jsonl", step_lines(50, ("a", "b")))
    context = chromium.new_context()  # its console tells of the lost connection, as it should
    with serving(tmp_path) as server:
        page = context.new_page()
        page.goto(f"{server.address}live?run=run.jsonl")
        has_steps(page, "run.jsonl", 50)
        append(path, step_lines(10, ("a", "b"), first=50))
        has_steps(page, "run.jsonl", 60)
    append(path, step_lines(40, ("a", "b"), first=60))
    expect(page.get_by_text("no connection: trying again")).to_be_visible(timeout=LONG)
    with serving(tmp_path, port=server.port):
        has_steps(page, "run.jsonl", 100)
        expect(page.get_by_text("connected", exact=True)).to_be_visible(timeout=LONG)
        append(path, step_lines(2, ("a", "b"), first=100))
        has_steps(page, "run.jsonl", 102)
        plot = run_of(page, "run.jsonl").locator('figure[data-chart="losses"] .plot')
        expect(plot).to_have_attribute("data-points", "102", timeout=LONG)
        context.close()


TRAIN = ["train", "turbofan", "--subset", "simulated", "--steps", "30", "--steps-per-epoch", "10"]
START = "import sys; from gaba.cli import main; sys.exit(main())"


def test_a_real_training_run_is_followed_from_before_its_first_step(
    tmp_path: Path, open_page: Open
) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    with serving(folder) as server:
        page = open_page(f"{server.address}live")
        expect(page.get_by_text("There is no record yet")).to_be_visible(timeout=LONG)
        words = [*TRAIN, "--batch-size", "8", "--run-dir", str(folder / "mine")]
        with subprocess.Popen(
            [sys.executable, "-c", START, *words],
            env={**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as training:
            run = run_of(page, "mine/history.jsonl")
            expect(run).to_be_visible(timeout=3 * LONG)
            expect(run).to_have_attribute("data-total", re.compile(r"^[1-9]"), timeout=3 * LONG)
            said, _ = training.communicate(timeout=180)
            assert training.returncode == 0, said
        has_steps(page, "mine/history.jsonl", 30)
        expect(run.get_by_text("simulated data · gaba · small · seed 0")).to_be_visible()
        history = read(folder / "mine" / "history.jsonl")
        for k, task in enumerate(history.tasks):
            row = run.get_by_role("row", name=re.compile(f"^{task}")).first
            weight = f"{history.weights[-1, k]:.4f}"
            expect(row.get_by_role("cell").nth(3)).to_have_text(weight)
        assert {"losses", "norms", "multipliers", "shares", "seconds"} <= set(
            drawn(page, "mine/history.jsonl")
        )
        expect(run.locator(".state")).to_have_text("Finished")
        expect(run.locator("header pre").first).to_have_text(
            f"gaba report {folder / 'mine'} -o report.html"
        )
        page.goto("about:blank")
