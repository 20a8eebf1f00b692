"""The live page with long runs: first paint, memory, delay of a new step; writes docs/benchmarks/live.md.

A record of so many steps of 2 tasks is written, served by a process of its own, and opened in
headless Chromium. Cold means that the server has read nothing of it yet, warm that it has read all.
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright

DOCS = Path(__file__).parents[1] / "docs" / "benchmarks"
SERVE = (
    "import sys; from gaba.web.server import Server; server = Server(sys.argv[1], port=0); "
    "print(server.address, flush=True); server.run()"
)
TASKS = ("rul", "health")
CHART = "document.querySelector('.uplot canvas')?.width"
TOTAL = "Number(document.querySelector('article.run')?.dataset.total ?? 0)"
STATE = "document.querySelector('article.run')?.dataset.state"
HEAP = "performance.memory.usedJSHeapSize"


@final
@dataclass(frozen=True)
class Result:
    """Of one record; times in seconds, memory in MB."""

    steps: int
    megabytes: float
    cold_paint: float
    cold_chart: float
    cold_whole: float
    warm_paint: float
    warm_chart: float
    new_step: float
    closer: float
    server_before: float
    server_peak: float
    page_heap: float


def write_record(path: Path, steps: int) -> None:
    """A made-up run, in pieces so that it may be long."""
    rng = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"gaba": "0", "tasks": TASKS, "meta": {"note": "made up"}}) + "\n")
        for first in range(0, steps, 10_000):
            count = min(10_000, steps - first)
            losses = np.exp(rng.normal((5, 0), 0.3, (count, 2)) - first / steps)
            norms = np.exp(rng.normal((4, -1), 0.5, (count, 2)))
            for i in range(count):
                file.write(line(first + i, losses[i].tolist(), norms[i].tolist()))


def line(step: int, losses: list[float], norms: list[float]) -> str:
    """A step as the record of a run holds it."""
    multipliers = [sum(norms) / 2 / norm for norm in norms]
    pulls = [m * g for m, g in zip(multipliers, norms, strict=True)]

    def named(values: list[float]) -> dict[str, float]:
        return dict(zip(TASKS, values, strict=True))

    found = {
        "step": step,
        "measured": True,
        "combined": "by-hand",
        "finite": step % 5000 != 17,
        "losses": named(losses),
        "norms": named(norms),
        "multipliers": named(multipliers),
        "contributions": named(pulls),
        "saturated": {"rul": step % 100_000 > 80_000, "health": False},
        "imbalance": max(pulls) / min(pulls),
        "time": 1.7e9 + 0.05 * step,
    }
    return json.dumps(found) + "\n"


def memory(pid: int, what: str) -> float:
    """MB of a process: VmRSS now, or VmHWM at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(text.split()[1]) / 1024 for text in lines if text.startswith(what))


def wait(page: Page, condition: str) -> float:
    """Until the condition holds on the page; the seconds since it was asked for."""
    loop = f"while (!({condition})) await new Promise(requestAnimationFrame);"
    return page.evaluate(f"async () => {{ {loop} return performance.now(); }}") / 1000


def opened(browser: Browser, address: str) -> tuple[Page, float, float]:
    """The page, and the seconds until its first paint and its first chart."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(address, wait_until="commit")
    chart = wait(page, CHART)
    script = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    return page, page.evaluate(script) / 1000, chart


def measure(steps: int, browser: Browser) -> Result:
    """Write, serve, open, and look."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.jsonl")
        write_record(path, steps)
        write_record(Path(folder, "short.jsonl"), 300)
        size = path.stat().st_size / 1e6
        server = subprocess.Popen(
            [sys.executable, "-c", SERVE, folder], stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            address = f"{server.stdout.readline().strip()}live"
            warm, _, _ = opened(browser, f"{address}?run=short.jsonl")  # the browser is warm
            warm.close()
            before = memory(server.pid, "VmRSS")
            begun = time.monotonic()
            page, cold_paint, cold_chart = opened(browser, f"{address}?run=run.jsonl")
            wait(page, f"{STATE} === 'following' && {TOTAL} === {steps}")
            whole = time.monotonic() - begun
            page.close()
            page, warm_paint, warm_chart = opened(browser, f"{address}?run=run.jsonl")
            wait(page, f"{TOTAL} === {steps}")
            page.wait_for_timeout(1000)
            heap = page.evaluate(HEAP) / 1e6
            begun = time.monotonic()
            with path.open("a", encoding="utf-8") as file:
                file.write(line(steps, [1.0, 1.0], [1.0, 1.0]))
            wait(page, f"{TOTAL} === {steps + 1}")
            new_step = time.monotonic() - begun
            middle = steps // 2
            query = f"/api/range?run=run.jsonl&from={middle}&to={middle + 2000}"
            closer = page.evaluate(
                "async (query) => { const begun = performance.now(); "
                "await (await fetch(query)).json(); return performance.now() - begun; }",
                query,
            )
            peak = memory(server.pid, "VmHWM")
            page.close()
        finally:
            server.kill()
            server.communicate()
    return Result(
        *(steps, size, cold_paint, cold_chart, whole, warm_paint, warm_chart),
        *(new_step, closer / 1000, before, peak, heap),
    )


def page_of(results: list[Result], load: str, quick: bool) -> str:
    """docs/benchmarks/live.md."""
    rows = [
        ("first paint, cold", lambda r: f"{r.cold_paint:.2f} s"),
        ("first chart, cold", lambda r: f"{r.cold_chart:.2f} s"),
        ("all steps read and shown", lambda r: f"{r.cold_whole:.1f} s"),
        ("first paint, warm", lambda r: f"{r.warm_paint:.2f} s"),
        ("first chart with all steps, warm", lambda r: f"{r.warm_chart:.2f} s"),
        ("a new step is shown after", lambda r: f"{r.new_step:.2f} s"),
        ("2,000 steps looked at closely", lambda r: f"{r.closer:.2f} s"),
        ("memory of the server before", lambda r: f"{r.server_before:.0f} MB"),
        ("memory of the server, peak", lambda r: f"{r.server_peak:.0f} MB"),
        ("memory of the page (JavaScript)", lambda r: f"{r.page_heap:.0f} MB"),
    ]
    head = ["", *(f"{r.steps:,} steps ({r.megabytes:.0f} MB)" for r in results)]
    table = [head, ["---"] * len(head), *([name, *(f(r) for r in results)] for name, f in rows)]
    lines = "\n".join("| " + " | ".join(row) + " |" for row in table)
    warning = "**A trial run: not to be cited.**\n\n" if quick else ""
    return f"""# The live page with long runs

{warning}A record of 2 tasks, opened in headless Chromium at 1440 × 900. Cold: the server has read
nothing of it yet and the page is drawn while it reads on. Warm: it has read all. The browser has
shown another, short run before.

{lines}

The server holds a run in at most 16,384 buckets of equal numbers of steps (least, mean and greatest
of every series, exact) and the latest 50,000 steps whole; when the buckets are full, every two
become one. The page holds at most 2,048 buckets, and after each look the server sends those that
changed. A stretch that is chosen on the page is read again from the file, step by step. So neither
memory grows with the run; the time for reading a record from the beginning does.

Measured by `python benchmarks/live.py` on {os.cpu_count()} CPUs ({platform.machine()}), Python
{platform.python_version()}; {load} processes were running when it began.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--quick", action="store_true", help="a trial with short runs")
    parser.add_argument("--out", type=Path, default=DOCS)
    parser.add_argument("--chromium", default=os.environ.get("CHROMIUM", "/usr/bin/chromium"))
    asked = parser.parse_args()
    load = f"{os.getloadavg()[0]:.1f} other"
    results: list[Result] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=asked.chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        for steps in [500, 3000] if asked.quick else asked.steps:
            results.append(measure(steps, browser))
            print(results[-1], flush=True)
        browser.close()
    asked.out.mkdir(parents=True, exist_ok=True)
    found = [asdict(result) for result in results]
    (asked.out / "live.json").write_text(json.dumps(found, indent=1) + "\n")
    (asked.out / "live.md").write_text(page_of(results, load, asked.quick))


if __name__ == "__main__":
    main()
