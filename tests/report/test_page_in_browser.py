"""The page in headless Chromium: offline, readable at any width, usable by keyboard and screen reader, and safe."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from planner.report.page import page as page_of
from planner.units import shorten
from tests.helpers.frames import front, what_ifs
from tests.helpers.hostile import CLASSES, HOSTILE_DEVICES, LONG, hostile

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Seven of the plan, N-1 and a front; importance is one of the seven, the table of devices has no plot.
PLOTS = ("time", "fleet", "classes", "kept", "memory", "importance", "without", "front-accuracy")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, from $CHROMIUM or the PATH."""
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if name and (found := shutil.which(name))), None)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have a Chromium; none by $CHROMIUM or on the PATH")
        pytest.skip("no Chromium by $CHROMIUM or on the PATH")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a plan with hostile names, also in its rows and points."""
    plan, profile, fleet = hostile()
    rows = what_ifs(*((f"without {name}", "optimal", 11_000.0, 1000.0, None) for name in HOSTILE_DEVICES))
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page_of(plan, profile, fleet, without=rows, fronts=[front()]), encoding="utf-8")
    return path


class Visit:
    """An opened page, with its console messages and requests."""

    def __init__(self, context: BrowserContext, file: Path) -> None:
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page: Page = context.new_page()
        self.page.on("console", lambda message: self.messages.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.messages.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: self.messages.append(f"dialog: {dialog.message}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())
        self.page.wait_for_function(f"document.querySelectorAll('.plot .main-svg').length >= {len(PLOTS)}")


@pytest.fixture(scope="module", params=[400, 1400])
def visit(browser: Browser, file: Path, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """The page on a phone and on a desktop, offline."""
    context = browser.new_context(viewport={"width": request.param, "height": 900}, offline=True)
    yield Visit(context, file)
    context.close()


def test_it_asks_for_nothing_and_complains_of_nothing(visit: Visit, file: Path) -> None:
    """The page requests only its own file and writes nothing to the console."""
    assert visit.requests == [file.as_uri()]
    assert visit.messages == []


def test_every_plot_is_drawn(visit: Visit) -> None:
    """Each plot fills its place and has text."""
    for name in PLOTS:
        plot = visit.page.locator(f"#{name}-plot")
        box, drawing = plot.bounding_box(), plot.locator(".main-svg").first.bounding_box()
        assert box is not None
        assert drawing is not None
        assert drawing["width"] == pytest.approx(box["width"], abs=1), name
        assert drawing["height"] == pytest.approx(box["height"], abs=1), name
        assert plot.locator("svg text").count() > 3, name


def test_nothing_runs_over_the_sides(visit: Visit) -> None:
    """The page does not scroll sideways, on a desktop no table does, and no text of a plot is cut off."""
    page = visit.page
    assert page.evaluate("document.scrollingElement.scrollWidth <= window.innerWidth")
    wide = page.evaluate(
        """() => [...document.querySelectorAll(".scroll")].filter(e => e.scrollWidth > e.clientWidth)
            .map(e => `${e.querySelector("caption").textContent}: ${e.scrollWidth} > ${e.clientWidth}`)"""
    )
    assert wide == [] or page.evaluate("window.innerWidth") < 1400
    cut = page.evaluate(
        """() => [...document.querySelectorAll(".plot")].flatMap(plot => {
            const edge = plot.getBoundingClientRect();
            return [...plot.querySelectorAll("svg text")].filter(text => {
                const box = text.getBoundingClientRect();
                return box.width && (box.left < edge.left - 1 || box.right > edge.right + 1
                    || box.top < edge.top - 1 || box.bottom > edge.bottom + 1);
            }).map(text => plot.id + ": " + text.textContent);
        })"""
    )
    assert cut == []


def test_text_is_large_enough(visit: Visit) -> None:
    """No text of a plot is smaller than 11 px, none of the page smaller than 14 px."""
    sizes = visit.page.evaluate(
        """() => [".plot svg text", "main p, main td, main th, main dd, main summary, nav a"].map(where =>
            Math.min(...[...document.querySelectorAll(where)].map(e => parseFloat(getComputedStyle(e).fontSize))))"""
    )
    assert sizes[0] >= 11
    assert sizes[1] >= 13.9


def test_names_are_shown_and_never_run(visit: Visit) -> None:
    """Names of classes and devices stay text, in the page and in its plots."""
    page = visit.page
    assert page.evaluate("window.ran") is None
    text = page.locator("body").inner_text() + " ".join(page.locator("details").all_text_contents())
    for name in (*CLASSES, *HOSTILE_DEVICES):
        assert name in text, name
    drawn = {part for label in page.locator("#classes-plot svg text").all_text_contents() for part in [label]}
    for name in CLASSES:
        assert any(shorten(name, 14) in label for label in drawn), name
    drawn = set(page.locator("#time-plot svg text").all_text_contents())
    for name in {a.device for a in hostile()[0].assignments}:
        assert any(shorten(name) in label for label in drawn), name
    assert page.locator("svg a").count() == 0
    assert page.locator("img").count() == 0


def test_every_part_has_a_name_to_be_heard(visit: Visit) -> None:
    """Landmarks, ordered headings, descriptions of plots and table headers serve screen readers."""
    page = visit.page
    for role in ("banner", "main", "contentinfo"):
        assert page.get_by_role(role).count() == 1, role
    assert page.get_by_role("navigation", name="On this page").count() == 1
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert set(levels[1:]) == {2}
    names = [plot.get_attribute("aria-label") or "" for plot in page.get_by_role("img").all()]
    assert len(names) == len(PLOTS)
    assert all(name.startswith("Plot: ") and len(name) > 30 for name in names)
    assert page.evaluate(
        "[...document.querySelectorAll('table')].every(t => t.caption && t.querySelector('th[scope]'))"
    )
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.title().startswith("<u>fleet</u> & co: one image in ")


def test_it_can_be_used_by_keyboard(visit: Visit) -> None:
    """Tab reaches the link to the plan first, then everything that opens, each with a visible focus."""
    page = visit.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    box = page.locator(".skip").bounding_box()
    assert box is not None
    assert box["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    reached = 0
    for _ in range(80):
        page.keyboard.press("Tab")
        at = page.evaluate(
            "(e => [e.tagName, e === document.body ? '' : getComputedStyle(e).outlineStyle])(document.activeElement)"
        )
        if at[0] == "BODY":
            break
        assert at[1] == "solid", at
        reached += at[0] == "SUMMARY"
    assert reached == page.locator("summary").count()
    summary = page.locator("summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None
    assert page.locator("details table").first.is_visible()
    page.keyboard.press("Enter")


def test_it_is_drawn_anew_for_paper(visit: Visit) -> None:
    """Plots are as wide as a sheet in print, and as before afterwards."""
    page = visit.page
    widths = "[...document.querySelectorAll('.plot')].map(p => p.querySelector('.main-svg').clientWidth)"
    before = page.evaluate(widths)
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert set(page.evaluate(widths)) == {680}
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    page.wait_for_function(f"JSON.stringify({widths}) === '{before}'.replaceAll(' ', '')")


def test_no_other_script_would_run(browser: Browser, file: Path) -> None:
    """The policy refuses an injected script and a request."""
    context = browser.new_context()
    visit = Visit(context, file)
    visit.page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.ran = 1";
            document.body.append(script);
        }"""
    )
    assert visit.page.evaluate("window.ran") is None
    refused = "fetch('https://example.org/').then(() => 'sent', () => 'refused')"
    assert visit.page.evaluate(refused) == "refused"
    assert sum("Content Security Policy" in messages for messages in visit.messages) >= 2
    context.close()


def test_a_name_of_200_characters_is_whole_in_the_page(visit: Visit) -> None:
    """A long name is shortened in plots only, and does not widen its column beyond the screen."""
    cell = visit.page.locator("#devices tbody th span", has_text=HOSTILE_DEVICES[-1]).first
    box = cell.bounding_box()
    assert box is not None
    assert box["width"] < 400
    assert len(LONG) == 200
