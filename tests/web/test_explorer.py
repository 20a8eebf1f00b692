"""The explorer as a person uses it: mouse, keyboard, both themes, narrow and wide."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from gaba.methods import METHODS

Open = Callable[..., Page]
BALANCED = "✓ balanced 1.00×"


@pytest.fixture
def explorer(kept_page: Open, address: str) -> Callable[..., Page]:
    def opened(**settings: Any) -> Page:
        return ready(kept_page(address, **settings))

    return opened


def ready(page: Page) -> Page:
    page.wait_for_function("document.documentElement.dataset.ready === 'true'")
    frames(page)
    return page


def frames(page: Page) -> None:
    """Wait until what was asked for has been drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)))")


def card(page: Page, rule: str) -> Locator:
    return page.locator(f"#two-cards [data-rule={rule}]")


def test_the_table_of_the_documentation_stands_on_the_page(explorer: Open) -> None:
    page = explorer()
    for rule, *figures, imbalance in [
        ("uniform", "1.0000 / 1.0000", "0.5000 / 0.5000", "2.500000 / 0.005000", "500.00×"),
        ("sqrt-inverse", "0.9591 / 21.45", "0.0428 / 0.9572", "0.214035 / 0.009572", "22.36×"),
        ("inverse", "0.5010 / 250.5", "0.0020 / 0.9980", "0.009980 / 0.009980", BALANCED),
    ]:
        here = card(page, rule)
        expect(here.locator(".badge")).to_have_text(imbalance)
        expect(here.locator("dd")).to_have_text(figures)
    assert "good" in (card(page, "inverse").get_attribute("class") or "").split()
    assert "good" not in (card(page, "uniform").get_attribute("class") or "").split()


def test_presets_set_norms_and_equal_norms_need_no_balance(explorer: Open) -> None:
    page = explorer(fresh=False)
    page.get_by_role("button", name="Equal norms").first.click()
    for rule in ("uniform", "sqrt-inverse", "inverse"):
        expect(card(page, rule).locator("dd").nth(0)).to_have_text("1.0000 / 1.0000")
        expect(card(page, rule).locator("dd").nth(1)).to_have_text("0.5000 / 0.5000")
        expect(card(page, rule).locator(".badge")).to_have_text(BALANCED)
    page.get_by_role("button", name="The paper's: 5 and 0.01").click()
    expect(card(page, "uniform").locator(".badge")).to_have_text("500.00×")
    expect(page.get_by_label("Norm of task 1, g₁, exact value").first).to_have_value("5")
    expect(page.locator("#two-imbalance")).to_have_text("imbalance 500.00×")
    page.get_by_role("button", name="Go to the crossing").click()
    expect(page.locator("#two-imbalance")).to_have_text("balanced, 1.00×")
    bars = page.locator("#two-bars .bar")
    widths = [bars.nth(k).bounding_box() for k in (0, 1)]
    assert widths[0]
    assert widths[1]
    assert widths[0]["width"] == pytest.approx(widths[1]["width"], abs=0.5)


def test_the_crossing_is_where_the_two_curves_meet(explorer: Open) -> None:
    page = explorer(fresh=False)
    for preset in ("The paper's: 5 and 0.01", "Mild: 3 and 1", "Extreme: 10⁴ and 10⁻⁴"):
        page.get_by_role("button", name=preset).click()
        frames(page)
        gap = page.evaluate(
            """() => {
                const [one, two] = document.querySelectorAll("#two-plot path.curve");
                const at = document.querySelector("#two-plot .crossing");
                const [cx, cy] = [at.cx.baseVal.value, at.cy.baseVal.value];
                const nearest = (path) => {
                    const length = path.getTotalLength();
                    return Math.min(...Array.from({ length: 4001 }, (_, i) => {
                        const p = path.getPointAtLength((length * i) / 4000);
                        return Math.hypot(p.x - cx, p.y - cy);
                    }));
                };
                return [nearest(one), nearest(two)];
            }"""
        )
        assert max(gap) < 1.0, preset


def test_dragging_in_the_plot_moves_the_weight(explorer: Open) -> None:
    page = explorer(fresh=False)
    page.get_by_role("button", name="The paper's: 5 and 0.01").click()
    frames(page)  # the plot is drawn anew
    plot = page.locator("#two-plot svg")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box
    field = page.get_by_label("Weight of task 1, λ, exact value")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 120)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 120, steps=4)
    page.mouse.up()
    assert float(field.input_value()) > 0.9


def visible_sliders(page: Page) -> list[str]:
    return page.evaluate(
        """() => [...document.querySelectorAll("input[type=range]")]
            .filter((one) => one.checkVisibility()).map((one) => one.id)"""
    )


@pytest.mark.parametrize("tasks", [3, pytest.param(12, marks=pytest.mark.slow)])
def test_every_slider_can_be_dragged_and_moved_by_keys(tasks: int, explorer: Open) -> None:
    page = explorer()
    page.locator("#many-count").fill(str(tasks))
    sliders = visible_sliders(page)
    assert len(sliders) == 3 + 1 + tasks + 1 + 8 + 10 + 3
    for name in sliders:
        slider = page.locator(f"#{name}")
        slider.evaluate("(one) => one.scrollIntoView({ block: 'center' })")
        box = slider.bounding_box()
        assert box
        said = [slider.get_attribute("aria-valuetext")]
        y = box["y"] + box["height"] / 2
        part = (
            0.25
            if float(slider.input_value()) > float(slider.get_attribute("max") or 0) / 2
            else 0.7
        )
        page.mouse.move(box["x"] + box["width"] * 0.5, y)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * part, y)
        page.mouse.up()
        said.append(slider.get_attribute("aria-valuetext"))
        assert said[1] != said[0], f"dragging {name} changed nothing"
        slider.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        said.append(slider.get_attribute("aria-valuetext"))
        assert said[2] != said[1], f"keys on {name} changed nothing"
        page.keyboard.press("Home")
        low = slider.get_attribute("aria-valuetext")
        page.keyboard.press("End")
        assert slider.get_attribute("aria-valuetext") != low, f"Home and End on {name}"
        assert page.evaluate("document.activeElement.id") == name, f"{name} lost the focus"


def test_an_exact_value_is_taken_and_a_wrong_one_marked(explorer: Open) -> None:
    page = explorer(fresh=False)
    page.get_by_role("button", name="The paper's: 5 and 0.01").click()
    field = page.get_by_label("Norm of task 1, g₁, exact value").first
    field.fill("0.02")
    field.press("Enter")
    expect(card(page, "uniform").locator(".badge")).to_have_text("2.00×")
    for wrong in ("-1", "1e9", "five", ""):
        field.fill(wrong)
        field.press("Tab")
        expect(field).to_have_attribute("aria-invalid", "true")
    expect(card(page, "uniform").locator(".badge")).to_have_text("2.00×")


def test_with_three_tasks_the_paper_s_formula_stops_equalising(explorer: Open) -> None:
    page = explorer(fresh=False)

    def badges(rule: str) -> list[str]:
        return page.locator(f"#many-rules [data-rule={rule}] .badge").all_inner_texts()

    page.get_by_role("button", name="100, 1, 0.01", exact=True).click()
    page.get_by_role("button", name="Independent").click()
    frames(page)
    assert badges("paper")[0] == "100.00×"
    for rule in ("inverse", "equal-share", "equal-projection"):
        assert badges(rule) == ["✓ 1.00×", "✓ 1.00×"]
    table = page.locator("#many-rules [data-rule=paper] details")
    table.locator("summary").click()
    cells = [row.split("\t") for row in table.locator("tbody tr").all_inner_texts()]
    # the norms sum to 101.01 and the weighted ones to 1: multipliers are 101.01 times the weights
    assert [float(cell[1]) for cell in cells] == pytest.approx([0.505, 50.005, 50.5], rel=2e-4)
    assert [cell[2].strip() for cell in cells] == ["0.0050", "0.4950", "0.5000"]
    assert [cell[3].strip() for cell in cells] == ["0.5000", "0.4950", "0.0050"]
    page.get_by_role("button", name="Two tasks", exact=True).click()
    frames(page)
    assert badges("paper")[0] == "✓ 1.00×"
    assert table.get_attribute("open") is not None
    expect(page.locator("#many-verdict")).to_contain_text("one and the same rule")


def test_correlations_part_shares_from_contributions(explorer: Open) -> None:
    page = explorer(fresh=False)
    page.get_by_role("button", name="100, 1, 0.01", exact=True).click()
    page.get_by_role("button", name="Tasks 2 and 3 oppose").click()
    inverse = page.locator("[data-compare=inverse] .measure p")
    equal = page.locator("[data-compare=equal-share] .measure p")
    expect(inverse.nth(0)).to_have_text("contributions 0.333 / 0.333 / 0.333")
    expect(inverse.nth(1)).to_have_text("shares 0.833 / 0.083 / 0.083")
    expect(equal.nth(0)).to_have_text("contributions 0.137 / 0.432 / 0.432")
    expect(equal.nth(1)).to_have_text("shares 0.333 / 0.333 / 0.333")
    page.get_by_role("button", name="Tasks 1 and 2, cosine 0.00").click()
    expect(page.locator("#cos-controls .slider label")).to_have_text("Cosine of tasks 1 and 2")
    # task 1 is independent of 3, and 2 has −0.9 with 3: what is left for 1 and 2 is √(1 − 0.81)
    page.locator("#cos-value").fill("1")
    expect(page.locator("#cos-controls [role=status]")).to_contain_text(
        "lies between −0.44 and 0.44"
    )
    page.locator("#many-count").fill("12")
    page.get_by_role("button", name="Two camps").click()
    frames(page)
    assert page.locator(".cosine").count() == 66
    assert page.locator("#cos-controls select").first.locator("option").count() == 12


def test_every_card_and_preset_of_a_method_has_its_name_of_the_catalogue(explorer: Open) -> None:
    page = explorer(fresh=False)
    named = page.evaluate(
        """() => [...document.querySelectorAll("[data-rule], [data-compare]")].map((card) => {
            const { rule, compare } = card.dataset;
            return [rule ?? compare, card.querySelector("h3, h4").textContent];
        })"""
    )
    assert len(named) == 3 + 8 + 2
    assert [(key, title) for key, title in named if key != title or title not in METHODS] == []
    presets = page.locator("#lab-presets button").all_inner_texts()
    assert [name for name in presets if name.split(",")[0] not in METHODS] == []


def figures(page: Page) -> list[list[str]]:
    """The rows of the step's table: share, revealed, believed, multiplier, asked for."""
    rows = page.locator("#track-table tbody tr").all_inner_texts()
    return [[cell.strip() for cell in row.split("\t")[1:]] for row in rows]


def test_the_controller_is_watched_step_by_step(explorer: Open) -> None:
    """Norms 5, 1, 0.2 sum to 6.2: balanced, each task pulls 6.2/3. Multipliers rise slowly."""
    page = explorer(fresh=False)
    page.get_by_role("button", name="25 to 1").click()
    page.locator("#track-noise").fill("0")
    page.get_by_role("button", name="First step").click()
    said = page.locator("#track-said")
    expect(said).to_contain_text("measures each norm exactly, once")
    asked = [6.2 / 3 / g for g in (5, 1, 0.2)]
    for step in range(3):
        frames(page)
        found = figures(page)
        assert page.locator("output[for=track-step]").inner_text() == str(step)
        used = [min(one, 1.2 ** (step + 1)) for one in asked]
        assert [float(row[3]) for row in found] == pytest.approx(used, rel=1e-3)
        assert [float(row[4]) for row in found] == pytest.approx(asked, rel=1e-3)
        assert [float(row[2]) for row in found] == pytest.approx([5, 1, 0.2], rel=1e-3)
        pulls = [(m * g) ** 2 for m, g in zip(used, (5, 1, 0.2), strict=True)]
        parts = [f"{100 * pull / sum(pulls):.1f} %" for pull in pulls]
        assert [row[0] for row in found] == parts
        page.get_by_role("button", name="One step on").click()
    page.locator("#track-step").fill("79")
    expect(said).to_contain_text("each task has about a third of the update")
    label = page.locator("#track-shares").get_attribute("aria-label") or ""
    assert label.endswith("up to step 79: task 1 33.3 %, task 2 33.3 %, task 3 33.3 %.")
    page.get_by_role("button", name="Beyond the limit").click()
    expect(said).to_contain_text("Its multiplier is at the limit of 8: more is not allowed.")
    page.get_by_role("button", name="Two tasks in conflict").click()
    page.locator("#track-step").fill("1")
    expect(said).to_contain_text("task 3 works against the update, so its belief falls")
    assert figures(page)[2][0].startswith("−")


def test_the_controller_plays_and_pauses(explorer: Open) -> None:
    page = explorer(fresh=False)
    page.get_by_role("button", name="First step").click()
    step = page.locator("output[for=track-step]")
    expect(step).to_have_text("0")
    page.get_by_role("button", name="Play", exact=True).click()
    expect(step).not_to_have_text("0")
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()
    assert page.locator("#track-said").get_attribute("aria-live") == "polite"
    page.locator("#track-step").fill("79")
    page.get_by_role("button", name="Play", exact=True).click()  # from the beginning
    expect(step).not_to_have_text("79")
    page.locator("#track-limit").fill("1")
    expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()


def test_the_floor_of_the_paper_s_preset_binds_and_is_shaded(explorer: Open) -> None:
    page = explorer(fresh=False)
    page.get_by_role("button", name="paper", exact=True).click()
    expect(page.locator("#lab-fact-saturated")).to_have_text("83.4 %")
    expect(page.locator("#lab-fact-first")).to_have_text("first in step 333")
    expect(page.locator("#lab-fact-remaining")).to_have_text("25.05×")
    expect(page.locator("#lab-fact-reached")).to_have_text("never")
    expect(page.locator("#lab-verdict")).to_contain_text("fixed weighting")
    frames(page)
    pixels = page.evaluate(
        """() => {
            const canvas = document.querySelector("#lab-weights canvas");
            const [left, right] = [60, canvas.width - 30];
            const row = canvas.getContext("2d")
                .getImageData(left, Math.round(canvas.height * 0.4), right - left, 1).data;
            return [0.1, 0.6].map((part) => {
                const counts = new Map();
                for (let d = 0; d < 15; d += 1) {
                    const at = 4 * (Math.round(part * (right - left)) + d);
                    const c = row.slice(at, at + 4).join();
                    counts.set(c, (counts.get(c) ?? 0) + 1);
                }
                return [...counts].sort((a, b) => b[1] - a[1])[0][0];
            });
        }"""
    )
    assert pixels == ["0,0,0,0", "246,223,176,255"]  # clear, and the colour of --saturated
    page.locator("#lab-floorAt").fill("0")
    page.get_by_label("Log-norms").check(force=True)
    expect(page.locator("#lab-fact-saturated")).to_have_text("0 %")
    expect(page.locator("#lab-fact-remaining")).to_have_text("1.00×")
    expect(page.locator("#lab-fact-reached")).to_have_text("100 steps")
    expect(page.locator("#lab-fact-tau")).to_contain_text("99.5 steps")


def test_other_noise_is_other_noise_and_repeats(explorer: Open) -> None:
    page = explorer(fresh=False)
    page.get_by_role("button", name="paper, noisy").click()
    frames(page)
    facts = page.locator("#lab-fact-before")
    first = facts.inner_text()
    page.get_by_role("button", name="Draw other noise").click()
    expect(facts).not_to_have_text(first)
    page.reload()
    expect(facts).to_have_text(first)


def test_the_default_holds_what_the_limit_allows(explorer: Open) -> None:
    page = explorer(fresh=False)
    page.get_by_role("button", name="gaba", exact=True).click()
    page.get_by_label("Bursts").fill("0")  # in a burst of the quiet task it needs no more
    expect(page.locator("#lab-fact-saturated")).to_have_text("100 %")
    expect(page.locator("#lab-verdict")).to_contain_text("multiplied or divided by more than 64")
    expect(page.locator("#lab-fact-tau")).to_have_text(
        "adapts: noise is averaged over up to 100 steps"
    )
    page.get_by_label("Limit L").fill("1")
    expect(page.locator("#lab-fact-saturated")).not_to_have_text("0 %")
    expect(page.locator("#lab-verdict")).to_contain_text("multiplied or divided by more than 10")
    page.get_by_label("Limit L").fill("4")
    expect(page.locator("#lab-fact-saturated")).to_have_text("0 %")
    page.get_by_role("button", name="gaba, a drift that crosses over").click()
    expect(page.locator("#lab-verdict")).to_contain_text("The recovery holds a task back")
    page.get_by_label("Recovery R").fill("4")
    expect(page.locator("#lab-verdict")).to_contain_text("The weights follow the norms")


def test_the_default_rises_step_by_step_and_the_paper_at_once(explorer: Open) -> None:
    page = explorer(fresh=False)
    page.get_by_role("button", name="paper, noisy").click()
    rise = page.get_by_label("Rise of a multiplier in one step")
    value = page.locator("output[for=lab-rising]")
    expect(value).to_have_text("at once")
    page.get_by_role("button", name="gaba", exact=True).click()
    expect(value).to_have_text("1.20×")
    page.get_by_label("Limit L").fill("4")
    reached = page.locator("#lab-fact-reached")
    expect(reached).not_to_have_text("never")
    slow = int(reached.inner_text().split()[0])
    rise.fill("1")
    expect(value).to_have_text("at once")
    frames(page)
    assert int(reached.inner_text().split()[0]) <= slow
    rise.fill("0.01")
    expect(value).to_have_text("1.02×")
    frames(page)
    assert int(reached.inner_text().split()[0]) > slow


def test_hovering_reads_a_step(explorer: Open) -> None:
    page = explorer(fresh=False)
    plot = page.locator("#lab-weights .u-over")
    plot.hover()
    expect(page.locator("#lab-readout")).to_contain_text(
        re.compile(r"step \d+: norms .*multipliers .*weights")
    )


def test_the_update_size_lab_shows_sgd_slow_and_adam_not(explorer: Open) -> None:
    page = explorer()

    def lengths(scale: str) -> list[float]:
        cells = page.locator(f"#size-lengths [data-scale={scale}] .num").all_inner_texts()
        return [float(cell.rstrip("×")) for cell in cells]

    assert lengths("plain") == [1, 1]
    assert lengths("simplex")[0] < 0.01
    for scale in ("sum", "geometric", "max", "anchor"):
        assert lengths("simplex")[1] == pytest.approx(lengths(scale)[1], abs=0.01)
    page.locator("#size-ratio").fill("0")
    frames(page)
    assert lengths("simplex") == pytest.approx([0.5, 1], abs=0.01)
    for scale in ("sum", "geometric", "max", "anchor"):
        assert lengths(scale) == pytest.approx([1, 1], abs=0.01)
    expect(page.locator("#size-verdict")).to_contain_text("only halves the update")


def test_the_decision_aid_asks_for_figures_and_gives_a_snippet(explorer: Open) -> None:
    page = explorer()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    code = page.locator("#choose-code")
    expect(code).to_contain_text('metric="optimizer"')
    page.get_by_label("Optimizer", exact=True).select_option("sgd")
    expect(code).to_contain_text('method="gaba"')
    expect(code).not_to_contain_text("metric")
    page.get_by_label("Number of tasks", exact=True).fill("3")
    page.get_by_label("Lowest cosine between two tasks").fill("-0.8")
    expect(code).to_contain_text('method="equal-share"')
    page.get_by_role("button", name="Copy the snippet").click()
    expect(page.locator("#choose-copied")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == code.text_content()
    page.get_by_label("Lowest cosine between two tasks").fill("0")
    page.get_by_label("Ratio of the norms").fill("1.5")
    expect(page.locator("#choose-title")).to_have_text("Keep the plain sum")
    page.get_by_label("Ratio of the norms").fill("0.5")
    expect(page.get_by_text("Give a number from 1 to 1000000000000.")).to_be_visible()
    expect(page.locator("#choose-result")).to_be_hidden()


def test_the_page_can_be_used_by_keyboard_alone(explorer: Open) -> None:
    page = explorer()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the first section")).to_be_focused()
    page.keyboard.press("Enter")
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Equal norms":
            break
    page.keyboard.press("Enter")
    expect(page.locator("#two-imbalance")).to_have_text("balanced, 1.00×")
    button = card(page, "sqrt-inverse").get_by_role("button")
    button.focus()
    page.keyboard.press("Enter")
    frames(page)
    # the cards are drawn anew, and the button keeps the focus
    assert "sqrt-inverse" in page.evaluate("document.activeElement.ariaLabel")
    page.get_by_label("Light").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.evaluate(
        "() => { window.seen = []; addEventListener('focusin', (e) => seen.push(e.target.id)); }"
    )
    for _ in range(135):
        page.keyboard.press("Tab")
    seen = set(page.evaluate("seen"))
    wanted = {"two-g1", "two-weight", "many-g3", "cos-value", "track-g1", "track-step", "lab-decay"}
    assert wanted | {"size-ratio", "choose-tasks", "choose-optimizer", "choose-copy"} <= seen


def test_the_choice_of_theme_is_kept(explorer: Open) -> None:
    page = explorer(theme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_label("Dark").check(force=True)
    dark = page.evaluate(background)
    assert dark != light
    ready(page)
    page.reload()
    assert page.evaluate(background) == dark
    page.get_by_label("Auto", exact=True).check(force=True)
    assert page.evaluate(background) == light
