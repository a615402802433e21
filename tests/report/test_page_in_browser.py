"""The page in headless Chromium: whole without a network, readable at any width, by keyboard and by ear; never run."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from planner.report.page import page as page_of
from planner.units import short
from tests.helpers.frames import front, what_ifs
from tests.helpers.hostile import CLASSES, DEVICES, LONG, hostile

FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
FLAGS += ("--disable-component-update", "--disable-sync")
# Seven of the plan, N-1 and a front; importance is one of the seven, the table of devices has no picture.
PICTURES = ("time", "fleet", "classes", "kept", "memory", "importance", "without", "front-accuracy")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, by $CHROMIUM or from the PATH."""
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
    """The page of a plan with hostile names, and rows and points likewise."""
    plan, profile, fleet = hostile()
    rows = what_ifs(*((f"without {name}", "optimal", 11_000.0, 1000.0, None) for name in DEVICES))
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page_of(plan, profile, fleet, without=rows, fronts=[front()]), encoding="utf-8")
    return path


class Visit:
    """A page that is looked at, with what it said and asked for on the way."""

    def __init__(self, context: BrowserContext, file: Path) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page: Page = context.new_page()
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: self.said.append(f"dialog: {dialog.message}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())
        self.page.wait_for_function(f"document.querySelectorAll('.plot .main-svg').length >= {len(PICTURES)}")


@pytest.fixture(scope="module", params=[400, 1400])
def visit(browser: Browser, file: Path, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """The page on a phone and on a desk, with the network off."""
    context = browser.new_context(viewport={"width": request.param, "height": 900}, offline=True)
    yield Visit(context, file)
    context.close()


def test_it_asks_for_nothing_and_complains_of_nothing(visit: Visit, file: Path) -> None:
    """One request, for the file itself; not a word on the console."""
    assert visit.asked == [file.as_uri()]
    assert visit.said == []


def test_every_picture_is_drawn(visit: Visit) -> None:
    """Each has its place's full width, and text in it."""
    for name in PICTURES:
        plot = visit.page.locator(f"#{name}-plot")
        box, drawing = plot.bounding_box(), plot.locator(".main-svg").first.bounding_box()
        assert box is not None
        assert drawing is not None
        assert drawing["width"] == pytest.approx(box["width"], abs=1), name
        assert drawing["height"] == pytest.approx(box["height"], abs=1), name
        assert plot.locator("svg text").count() > 3, name


def test_nothing_runs_over_the_sides(visit: Visit) -> None:
    """The page does not scroll sideways, and no text of a picture is cut off at its edges."""
    page = visit.page
    assert page.evaluate("document.scrollingElement.scrollWidth <= window.innerWidth")
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
    """No text of a picture is smaller than 11 px, none of the page smaller than 14 px."""
    sizes = visit.page.evaluate(
        """() => [".plot svg text", "main p, main td, main th, main dd, main summary, nav a"].map(where =>
            Math.min(...[...document.querySelectorAll(where)].map(e => parseFloat(getComputedStyle(e).fontSize))))"""
    )
    assert sizes[0] >= 11
    assert sizes[1] >= 13.9


def test_names_are_shown_and_never_run(visit: Visit) -> None:
    """Every class and device is text, in the page and in its pictures; templates and markup stay what they are."""
    page = visit.page
    assert page.evaluate("window.ran") is None
    text = page.locator("body").inner_text() + " ".join(page.locator("details").all_text_contents())
    for name in (*CLASSES, *DEVICES):
        assert name in text, name
    drawn = {part for label in page.locator("#classes-plot svg text").all_text_contents() for part in [label]}
    for name in CLASSES:
        assert any(short(name, 14) in label for label in drawn), name
    drawn = set(page.locator("#time-plot svg text").all_text_contents())
    for name in {a.device for a in hostile()[0].assignments}:
        assert any(short(name) in label for label in drawn), name
    assert page.locator("svg a").count() == 0
    assert page.locator("img").count() == 0


def test_every_part_has_a_name_to_be_heard(visit: Visit) -> None:
    """Landmarks, headings in order, pictures in words, tables with headers."""
    page = visit.page
    for role in ("banner", "main", "contentinfo"):
        assert page.get_by_role(role).count() == 1, role
    assert page.get_by_role("navigation", name="On this page").count() == 1
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert set(levels[1:]) == {2}
    names = [picture.get_attribute("aria-label") or "" for picture in page.get_by_role("img").all()]
    assert len(names) == len(PICTURES)
    assert all(name.startswith("Picture: ") and len(name) > 30 for name in names)
    assert page.evaluate(
        "[...document.querySelectorAll('table')].every(t => t.caption && t.querySelector('th[scope]'))"
    )
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.title().startswith("<u>fleet</u> & co: one image in ")


def test_it_can_be_used_by_keyboard(visit: Visit) -> None:
    """Tab first reaches the way to the plan, then everything that opens, each with a visible mark."""
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
    """Printing makes every picture as wide as a sheet; afterwards it has its place again."""
    page = visit.page
    widths = "[...document.querySelectorAll('.plot')].map(p => p.querySelector('.main-svg').clientWidth)"
    before = page.evaluate(widths)
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert set(page.evaluate(widths)) == {680}
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    page.wait_for_function(f"JSON.stringify({widths}) === '{before}'.replaceAll(' ', '')")


def test_no_other_script_would_run(browser: Browser, file: Path) -> None:
    """The policy holds: a script that found its way into the page is refused, and so is a request."""
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
    assert sum("Content Security Policy" in said for said in visit.said) >= 2
    context.close()


def test_a_name_of_200_characters_is_whole_in_the_page(visit: Visit) -> None:
    """It is shortened in pictures only, and does not widen its column beyond the screen."""
    cell = visit.page.locator("#devices tbody th span", has_text=DEVICES[-1]).first
    box = cell.bounding_box()
    assert box is not None
    assert box["width"] < 400
    assert len(LONG) == 200
