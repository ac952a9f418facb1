"""The page in a real browser: Chromium from the system's packages, driven headless."""

import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import edit_description, read_records, tfrecords, write_records
from test_page import HOSTILE, write_detection

import converters

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed (apt-get install chromium)"
)

CUT = """() => [...document.querySelectorAll("svg")].flatMap((svg) => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter((text) => {
    const box = text.getBoundingClientRect();
    return box.width && (box.left < frame.left - 1 || box.right > frame.right + 1
      || box.top < frame.top - 1 || box.bottom > frame.bottom + 1);
  }).map((text) => text.textContent);
})"""
"""The texts of plots that reach beyond their plot, and so are cut."""

WIDE = """() => [...document.querySelectorAll("body *")].filter((element) => {
  const box = element.getBoundingClientRect();
  return box.right > innerWidth + 1 && box.width && !element.closest(".scroll, .skip, nav, dialog")
    && getComputedStyle(element).position !== "absolute";
}).map((element) => element.outerHTML.slice(0, 100))"""
"""What sticks out of the window, but for what can be scrolled."""

OVERLAPS = """() => {
  const boxes = [...document.querySelectorAll("h1, h2, h3, h4, .pic, .plot, form, .group, table")]
    .filter((element) => element.offsetParent && !element.closest("dialog, details"))
    .map((element) => [element, element.getBoundingClientRect()]);
  const found = [];
  for (let one = 0; one < boxes.length; one++) for (let other = one + 1; other < boxes.length; other++) {
    const [first, a] = boxes[one], [second, b] = boxes[other];
    if (!first.contains(second) && a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1
      && b.top < a.bottom - 1) found.push([first, second].map((element) => element.outerHTML.slice(0, 80)));
  }
  return found.slice(0, 5);
}"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    """Opens a page, and fails where the console has anything, a script fails, or anything is asked of a network."""
    said, contexts = [], []

    def open_page(path: Path, width: int = 1280, scheme: str = "light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: said.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_load_state()
        return page

    yield open_page
    for context in contexts:
        context.close()
    asked = [text for text in said if not text.startswith("data:image/")]
    assert [text for text in asked if not text.startswith("file:")] == []
    assert len(asked) == len(contexts)  # the pages themselves, and no other file


@pytest.fixture(scope="module")
def path(sample, tmp_path_factory) -> Path:
    return converters.show(
        sample, out=tmp_path_factory.mktemp("show") / "page.html", labels=sample / "labels"
    ).path


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_pictures_and_plots_are_there_and_nothing_is_cut_or_overlaps(path, visit, tmp_path, width, scheme):
    page = visit(path, width, scheme)
    images = page.evaluate("[...document.images].map((image) => [image.complete, image.naturalWidth])")
    assert len(images) > 60
    assert {tuple(image) for image in images} == {(True, 64)}
    plots = page.locator("svg").evaluate_all(
        "plots => plots.map((plot) => plot.getBoundingClientRect().width)"
    )
    assert len(plots) > 10
    assert min(plots) > 100
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(CUT) == []
    assert page.evaluate(WIDE) == []
    assert page.evaluate(OVERLAPS) == []
    screenshot = page.screenshot(path=tmp_path / f"{width}.png", full_page=True)
    assert len(screenshot) > 100_000


def test_texts_are_readable_in_light_and_dark(path, visit):
    """Of body text, of what is soft, and of plots: WCAG AA asks for a contrast of 4.5."""
    contrast = """(selector) => {
      const light = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255)
          .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
      };
      const style = getComputedStyle(document.querySelector(selector));
      const colour = selector.startsWith("svg") ? style.fill : style.color;
      const pair = [light(colour), light(getComputedStyle(document.body).backgroundColor)];
      return Math.max(...pair) / Math.min(...pair);
    }"""
    for scheme in ("light", "dark"):
        page = visit(path, scheme=scheme)
        for selector in ("body", "figcaption span", "svg text", "summary", "nav a"):
            assert page.evaluate(contrast, selector) >= 4.5, (scheme, selector)


def test_filters(path, visit, truth, label_names):
    page = visit(path)
    config = page.locator("[data-config]").filter(has=page.locator("h3", has_text="multi-label"))
    shown = config.locator(".pic:visible")
    everything = shown.count()
    config.locator("select[name=split]").select_option("test")
    assert 0 < shown.count() < everything
    assert {pic.get_attribute("data-split") for pic in shown.all()} == {"test"}
    assert config.locator("output").text_content() == f"{shown.count()} of {everything} pictures"
    config.get_by_text("Show all").click()
    page.wait_for_function("document.querySelectorAll('.pic[hidden]').length === 0")

    names = label_names["multi-label"]
    record = next(r for r in truth["multi-label", "train"] if len(r.indices) > 1)
    one, other = (names[rank] for rank in record.indices[:2])
    config.locator("select[name=one]").select_option(one)
    with_one = shown.count()
    config.locator("select[name=other]").select_option(other)
    assert 0 < shown.count() <= with_one
    for pic in shown.all():
        assert {one, other} <= set(pic.locator("b").text_content().split(", "))
    # Headings without pictures go too.
    assert config.locator(".sheet:visible").count() <= shown.count()


def test_a_picture_is_enlarged_with_mouse_and_keyboard(path, visit):
    page = visit(path)
    dialog = page.locator("dialog")
    assert not dialog.is_visible()
    first = page.locator(".open").first
    first.focus()
    page.keyboard.press("Enter")
    assert dialog.is_visible()
    assert dialog.locator("img").bounding_box()["width"] > 300
    caption = dialog.locator(".caption").inner_text()
    assert "64 × 64 pixels, jpeg" in caption
    page.keyboard.press("ArrowRight")
    assert dialog.locator(".caption").inner_text() != caption
    page.keyboard.press("ArrowLeft")
    assert dialog.locator(".caption").inner_text() == caption
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert first.evaluate("button => button === document.activeElement")
    page.locator(".open").nth(3).click()
    dialog.get_by_text("Close").click()
    assert not dialog.is_visible()


def test_tables_are_sorted(path, visit):
    page = visit(path)
    table = page.locator("[aria-label='Sets of labels, multi-label'] table")
    page.locator("details").filter(has=table).last.evaluate("details => { details.open = true; }")

    def column(number):
        return table.locator(f"tbody tr > :nth-child({number})").all_text_contents()

    before = column(6)
    assert list(map(int, before)) == sorted(map(int, before), reverse=True)
    table.get_by_role("button", name="labels", exact=True).click()
    up = column(1)
    assert up == table.evaluate("(_, texts) => texts.toSorted((a, b) => a.localeCompare(b))", up) != before
    table.get_by_role("button", name="labels", exact=True).click()
    assert column(1) == up[::-1]
    table.get_by_role("button", name="all", exact=True).click()
    assert column(6) == before
    assert table.locator("th[aria-sort=descending]").inner_text() == "all"


def test_every_picture_and_plot_has_a_text_and_every_control_a_name(path, visit):
    page = visit(path)
    assert page.evaluate("[...document.images].every((image) => image.alt.length > 5)")
    assert page.evaluate(
        "[...document.querySelectorAll('svg')].every((svg) => svg.closest('[role=img][aria-label]'))"
    )
    nameless = "(e) => !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length)"
    assert (
        page.evaluate(f"[...document.querySelectorAll('button, select, a')].filter({nameless}).length") == 0
    )
    levels = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map((head) => +head.tagName[1])")
    assert levels[0] == 1
    assert all(b - a <= 2 for a, b in pairwise(levels))


def test_equal_images_stand_side_by_side(source, visit, tmp_path):
    train, test = (tfrecords(source, "multi-label", split) for split in ("train", "test"))
    write_records(test, read_records(test) + read_records(train)[:10])
    page = visit(converters.show(source, out=tmp_path / "page.html").path)
    groups = page.locator(".group")
    assert groups.count() == 10
    for group in groups.all():
        one, other = (pic.bounding_box() for pic in group.locator("img").all())
        assert one["y"] == other["y"]
        assert one["x"] < other["x"]
    assert page.evaluate(OVERLAPS) == []


@pytest.mark.parametrize("width", [1280, 390])
def test_hostile_texts_run_nothing_and_break_nothing(source, visit, tmp_path, width):
    def change(document):
        document["about"] |= {
            "title": HOSTILE,
            "description": HOSTILE,
            "notes": [HOSTILE],
            "personal_data": True,
        }
        config = document["configs"]["22_emo"]
        names = dict(
            zip(config["label_names"], ["<script>alert(6)</script>", "x" * 10_000, "فرح"], strict=False)
        )
        config["label_names"] = [names.get(name, name) for name in config["label_names"]]
        for split in config["splits"].values():
            split["label_counts"] = {names.get(name, name): n for name, n in split["label_counts"].items()}

    edit_description(source, change)
    page = visit(converters.show(source, out=tmp_path / "page.html").path, width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(CUT) == []
    assert page.evaluate(WIDE) == []
    assert page.evaluate(OVERLAPS) == []
    assert page.locator("nav a").count() == 5
    assert page.locator(".warning").first.inner_text().startswith("This page holds pictures of people.")
    page.locator(".open").first.click()
    assert page.locator("dialog").is_visible()


def test_boxes_lie_where_they_say(visit, tmp_path):
    write_detection(tmp_path / "source")
    page = visit(converters.show(tmp_path / "source", out=tmp_path / "page.html").path)
    page.locator(".open").click()
    frame = page.locator("dialog img").bounding_box()
    box = page.locator("dialog .box").first.bounding_box()
    assert box["x"] == pytest.approx(frame["x"] + frame["width"] / 4, abs=1)
    assert box["y"] == pytest.approx(frame["y"] + frame["height"] / 2, abs=1)
    assert box["width"] == pytest.approx(frame["width"] / 4, abs=1)
    assert page.locator("dialog .box").first.inner_text() == "cat"
    assert frame["width"] > 600


def test_in_a_notebook(path, visit, sample, tmp_path):
    notebook = tmp_path / "notebook.html"
    notebook.write_text(
        f"<!doctype html><meta charset=utf-8>{converters.show(sample)._repr_html_()}", "utf-8"
    )
    page = visit(notebook)
    frame = page.frame_locator("iframe")
    assert frame.locator("h1").inner_text() == "Synthetic sample of the shape of KFER"
    frame.locator("select[name=split]").first.select_option("test")
    assert frame.locator(".pic[hidden]").count() > 0
