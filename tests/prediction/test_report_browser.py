"""The report in Chromium: mouse, keys, filters, print, and screens of several sizes."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from report_files import (
    FIVE,
    GLIOMA,
    HOSTILE,
    MENINGIOMA,
    failed,
    no_tumor,
    tumor,
    write_results,
)

from cascade.prediction.report import write_report
from cascade.prediction.results import NOTE
from cascade.prediction.slices import SliceResult
from cascade.prediction.volumes import VolumeResult


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    pytest.importorskip("selenium", reason="pip install 'cascade-mri[dev]'")
    from selenium import webdriver

    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for switch in (
        *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"),
        *("disable-background-networking", "disable-component-update"),
        f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(f"--{switch}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    yield driver
    driver.quit()


class Browser:
    """A report in Chromium, and the actions of a user."""

    def __init__(self, driver, out):
        self.driver = driver
        self.command("Emulation.setEmulatedMedia", media="", features=[])
        self.resize(1280, 860)
        driver.get("about:blank")
        driver.get_log("browser")
        driver.get_log("performance")
        driver.get(write_report(out).as_uri())

    def command(self, name, **parameters):
        return self.driver.execute_cdp_cmd(name, parameters)

    def resize(self, width, height):
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def script(self, code, *arguments):
        return self.driver.execute_script(f"return {code}", *arguments)

    def click(self, selector, place=0):
        self.driver.find_elements("css selector", selector)[place].click()

    def type(self, selector, text):
        field = self.driver.find_element("css selector", selector)
        field.clear()
        field.send_keys(text)

    def press(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        for key in keys:
            ActionChains(self.driver).send_keys(getattr(Keys, key) if len(key) > 1 else key).perform()

    def wait(self, condition):
        from selenium.webdriver.support.wait import WebDriverWait

        return WebDriverWait(self.driver, 10).until(lambda driver: driver.execute_script(f"return {condition}"))

    def shown(self):
        """Names of the slices in the gallery and of the failed ones below it."""
        return self.script(
            "[...document.querySelectorAll('.open')].map(open => (open.title || open.innerText).toWellFormed())"
        )

    def details(self):
        """Text of the open details; None when they are closed."""
        return self.script("details.open ? details.innerText : null")

    def focused(self):
        return self.script(
            "document.activeElement.title || document.activeElement.id || document.activeElement.innerText"
        )

    def errors(self):
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self):
        """URLs requested, other than the file of the page and data URLs."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]
        assert any(url.startswith("file:") for url in urls)  # else nothing was listened to
        return [url for url in urls if not url.startswith("data:") and not url.endswith("/report.html")]


@pytest.fixture
def browser(chromium, tmp_path):
    """A report of five slices. Whatever a test does, the page logs no error and loads nothing from the network."""
    browser = Browser(chromium, write_results(tmp_path, FIVE))
    yield browser
    assert browser.errors() == []
    assert browser.requests() == []


def test_a_click_on_a_picture_opens_its_slices_details(browser):
    assert browser.details() is None
    browser.click(".card", 1)
    details = browser.details()
    for told in ("a/2.png", "2 of 5", "glioma\n0.800", "0.150", "0.050", "500 px, 122.5 mm²", "12.5 ms"):
        assert told in details
    assert "x 2.5 to 20.25, y 3 to 30 px" in details
    links = browser.script("[...document.querySelectorAll('#details .links a')].map(link => link.getAttribute('href'))")
    assert links == ["overlays/a/2.png", "masks/a/2.png"]
    widths = browser.script("[...document.querySelectorAll('.track i')].map(bar => parseFloat(bar.style.width))")
    assert widths == pytest.approx([15, 80, 5])
    assert browser.script("document.querySelector('#details img').naturalWidth") == 256
    browser.click("#next")
    browser.click("#next")
    assert "4 of 5" in browser.details()
    assert "uncertain: below 0.60" in browser.details()
    browser.click("#details .close")
    assert browser.details() is None


def test_a_failed_slice_is_in_a_table_with_problem_and_fix(browser):
    row = browser.script("document.querySelector('#failed tbody').innerText")
    assert row.split("\t") == ["b/0.png", "a.png: is blank", "leave blank slices out"]
    browser.click("#failed .open")
    assert "problem\na.png: is blank\nsuggested fix\nleave blank slices out" in browser.details()
    assert browser.script("document.querySelector('#details img')") is None


def test_the_arrow_keys_move_through_the_slices_of_a_volume_and_j_to_the_next_card(chromium, tmp_path):
    """A volume of 200 slices was 200 cards. Its first slice shows nothing, and the second what the volume rejects."""
    rows = [tumor(f"head.nii/{index}", index=index, accepted_pixels=100) for index in range(4)]
    rows[0] = SliceResult("head.nii/0", "no_tumor", 0, mask_pixels=0, mask_mm2=0.0, accepted_pixels=0)
    rows[1] = tumor("head.nii/1", index=1, accepted_pixels=0)
    rows[2] = replace(rows[2], probability_map="probabilities/head.nii.gz")
    head = VolumeResult(
        "head.nii", "tumor", 4, 2, 2, GLIOMA, support=9.5, volume_ml=12.34, longest_mm=30.0, perpendicular_mm=20.0
    )
    out = write_results(tmp_path, [*rows, no_tumor("z.png")], volumes=[head])
    (out / "probabilities").mkdir()
    (out / "probabilities/head.nii.gz").write_bytes(b"map")
    browser = Browser(chromium, out)
    assert browser.shown() == ["head.nii", "z.png"]
    browser.click(".card", 0)
    details = browser.details()
    for told in ("glioma\n0.800", "12.3 ml", "30.0 x 20.0 mm", "tumor in 2 of 4", "slice 3 of 4 (index 2): tumor"):
        assert told in details
    links = browser.script("[...document.querySelectorAll('#details .links a')].map(link => link.getAttribute('href'))")
    assert (links[0], links[-1]) == ("overlays/head.nii/2.dicom.png", "probabilities/head.nii.gz")
    browser.press("ARROW_RIGHT")
    assert "slice 4 of 4 (index 3): tumor" in browser.details()
    browser.press("ARROW_LEFT", "ARROW_LEFT")
    assert "slice 2 of 4 (index 1): glioma, which the volume does not support" in browser.details()
    browser.press("ARROW_LEFT")
    assert "slice 1 of 4 (index 0): no tumor" in browser.details()
    browser.press("ENTER")  # in the slider, it led to the first result, as in the search
    assert "slice 1 of 4 (index 0): no tumor" in browser.details()
    browser.press("j")
    assert "2 of 2" in browser.details()
    browser.press("k")
    assert "slice 3 of 4 (index 2): tumor" in browser.details()
    browser.click("[aria-label='Next result']")  # the buttons lead to the next card, and were labeled "Next slice"
    assert "2 of 2" in browser.details()
    browser.click("[aria-label='Previous result']")
    assert "1 of 2" in browser.details()
    browser.press("ESCAPE")
    assert browser.details() is None
    assert browser.focused() == "head.nii"
    assert browser.errors() == []


def test_a_volume_is_sorted_by_its_tumor_and_found_by_the_files_of_its_slices(chromium, tmp_path):
    """What the volume rejects counted as its area, and was named "tumor" beside its tumor."""
    stray = [tumor(f"a/{index}", index=index, accepted_pixels=0) for index in (0, 1)]
    seen = [tumor(f"b/{index}", MENINGIOMA, index=index, accepted_pixels=60, file="study/IM77") for index in (0, 1)]
    volumes = [VolumeResult("a", "no_tumor", 2, 0), VolumeResult("b", "tumor", 2, 2, 0, GLIOMA)]
    small = tumor("small.png", mask_pixels=50, mask_mm2=12.0)
    browser = Browser(chromium, write_results(tmp_path, [*stray, *seen, small], volumes=volumes))
    browser.driver.find_element("css selector", "#order").send_keys("area, l")
    assert browser.shown() == ["b", "small.png", "a"]
    browser.type("#search", "im77")
    assert browser.shown() == ["b"]
    browser.click(".card", 0)
    assert "tumor; the volume does not support all outlines; this slice alone: meningioma" in browser.details()
    assert browser.errors() == []


def test_tiles_filter_by_what_was_found_and_add_up(browser):
    browser.click('[data-kind="glioma"].tile')
    assert browser.shown() == ["a/2.png", "b/10.png"]
    assert browser.script("document.getElementById('shown').innerText") == "2 of 5 shown"
    browser.click('[data-kind="no tumor"].tile')
    assert browser.shown() == ["a/2.png", "b/9.png", "b/10.png"]
    browser.click(".tile[data-uncertain]")
    assert browser.shown() == ["b/10.png"]
    browser.click(".controls .reset")
    assert len(browser.shown()) == 5
    browser.click('[data-kind="failed"].tile')
    assert browser.shown() == ["b/0.png"]
    assert browser.script("gallery.hidden")


def test_the_range_of_probability_includes_both_ends(browser):
    browser.type("#min-probability", "0.8")
    assert browser.shown() == ["a/1.png", "a/2.png"]
    browser.type("#max-probability", "0.8")
    assert browser.shown() == ["a/2.png"]


def test_search_accepts_words_in_any_order_and_an_empty_gallery_offers_to_reset(browser):
    browser.press("/")
    assert browser.focused() == "search"
    browser.type("#search", "PNG b/")
    assert browser.shown() == ["b/9.png", "b/10.png", "b/0.png"]
    browser.type("#search", "nowhere")
    assert browser.shown() == []
    assert browser.script("empty.innerText").startswith("No result matches")
    browser.press("ESCAPE", "j", "ENTER", "?")  # keys that have nothing to go to
    browser.press("ESCAPE")
    browser.click("#empty .reset")
    assert len(browser.shown()) == 5
    assert browser.script("document.getElementById('search').value") == ""


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("name", ["a/1.png", "a/2.png", "b/9.png", "b/10.png"]),
        ("probability, h", ["a/1.png", "a/2.png", "b/10.png", "b/9.png"]),
        ("probability, l", ["b/10.png", "a/2.png", "a/1.png", "b/9.png"]),
        ("area, l", ["a/2.png", "a/1.png", "b/10.png", "b/9.png"]),
        ("area, s", ["b/9.png", "b/10.png", "a/1.png", "a/2.png"]),
    ],
)
def test_slices_are_sorted_with_the_failed_ones_last(browser, order, names):
    browser.driver.find_element("css selector", "#order").send_keys(order)
    assert browser.shown() == [*names, "b/0.png"]


def test_keys_move_through_the_slices_shown(browser):
    browser.click('[data-kind="glioma"].tile')
    browser.press("j")
    assert browser.focused() == "a/2.png"
    browser.press("ARROW_RIGHT")
    assert browser.focused() == "b/10.png"
    browser.press("j")  # no further
    assert browser.focused() == "b/10.png"
    browser.press("ENTER")
    assert "2 of 2" in browser.details()
    browser.press("k")
    assert "a/2.png" in browser.details()
    browser.press("ARROW_RIGHT")
    assert "b/10.png" in browser.details()
    browser.press("ARROW_LEFT", "ESCAPE")
    browser.wait("!details.open && document.activeElement.title === 'a/2.png'")  # not the one it was opened on
    browser.press("?")
    assert browser.script("help.open")
    for half in ("mousePressed", "mouseReleased"):
        browser.command("Input.dispatchMouseEvent", type=half, x=5, y=5, button="left", clickCount=1)
    browser.wait("!help.open")  # by a click beside it
    browser.press("/", "j")
    assert browser.script("document.getElementById('search').value") == "j"
    browser.press("ESCAPE")
    assert browser.focused() != "search"


def test_enter_in_the_search_opens_the_first_result(browser):
    browser.type("#search", "b/")
    browser.press("ENTER")
    assert browser.focused() == "b/9.png"


def test_keys_with_ctrl_or_alt_are_left_to_the_browser(browser):
    for key in ("ctrlKey", "altKey", "metaKey"):
        untouched = (
            f"document.dispatchEvent(new KeyboardEvent('keydown', {{ key: '/', {key}: true, cancelable: true }}))"
        )
        assert browser.script(untouched)


def test_search_finds_accents_however_the_file_system_spells_them(chromium, tmp_path):
    browser = Browser(chromium, write_results(tmp_path, [no_tumor("fu\u0308r.png"), no_tumor("fur.png")]))
    browser.type("#search", "f\u00fcr")
    assert browser.shown() == ["fu\u0308r.png"]


def test_up_and_down_move_by_rows_and_into_the_table(browser):
    browser.resize(400, 800)  # two cards a row
    browser.press("j", "ARROW_DOWN")
    assert browser.focused() == "b/9.png"
    browser.press("ARROW_UP", "ARROW_RIGHT", "ARROW_DOWN")
    assert browser.focused() == "b/10.png"
    browser.press("ARROW_DOWN")
    assert browser.focused() == "b/0.png"
    browser.press("ENTER")
    assert "5 of 5" in browser.details()


def test_one_press_of_tab_skips_the_whole_gallery(browser):
    assert browser.script("document.querySelectorAll('.open[tabindex=\"0\"]').length") == 1
    browser.press("j", "j")
    assert browser.script("[...document.querySelectorAll('.open[tabindex=\"0\"]')].map(open => open.title)") == [
        "a/2.png"
    ]


CONTRASTS = """(() => {
    const channels = (color) => color.match(/[\\d.]+/g).map(Number);
    const luminance = (color) => channels(color).slice(0, 3).map((value) => value / 255)
        .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
        .reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
    const ground = (element) => {
        const color = getComputedStyle(element).backgroundColor;
        return channels(color)[3] === 0 ? ground(element.parentElement) : color;
    };
    const contrasts = {};
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest(":disabled")) continue;
        const [low, high] = [getComputedStyle(element).color, ground(element)].map(luminance).sort((a, b) => a - b);
        contrasts[walker.currentNode.data] = (high + 0.05) / (low + 0.05);
    }
    return contrasts;
})()"""
"""Contrast of every visible text, as WCAG 2.2 defines it; disabled elements are exempt there too."""


@pytest.mark.parametrize(("scheme", "lightness"), [("light", range(200, 256)), ("dark", range(60))])
def test_every_text_has_enough_contrast_in_light_and_dark_mode(browser, scheme, lightness):
    browser.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    page = browser.script("getComputedStyle(document.documentElement).backgroundColor")
    assert all(int(value) in lightness for value in re.findall(r"\d+", page))
    seen = browser.script(CONTRASTS)
    for opener in (".card:has(.badge)", "#failed .open"):
        browser.click(opener)
        seen |= browser.script(CONTRASTS)
        browser.press("ESCAPE")
        browser.wait("!details.open")
    browser.press("?")
    seen |= browser.script(CONTRASTS)
    assert {NOTE, "glioma", "uncertain", "1.png", "a.png: is blank", "Open the mask", "Show this help"} < seen.keys()
    assert {text: contrast for text, contrast in seen.items() if contrast < 4.5} == {}


def test_the_page_fits_the_screen_of_a_phone(browser):
    browser.resize(360, 740)
    assert browser.script("document.documentElement.scrollWidth <= 360")
    browser.click(".card")
    assert browser.script("details.scrollWidth <= details.clientWidth")
    assert browser.script("details.getBoundingClientRect().right <= 360")


def test_hostile_names_are_shown_as_they_are(chromium, tmp_path):
    out = write_results(tmp_path / HOSTILE[1], [*map(tumor, HOSTILE), failed("x" + HOSTILE[0], *HOSTILE[:2])])
    browser = Browser(chromium, out)
    names = {name.replace("\udcff", "�") for name in [*HOSTILE, "x" + HOSTILE[0]]}
    assert set(browser.shown()) == names
    seen = set()
    browser.press("j", "ENTER")
    for _ in names:
        seen.add(browser.script("document.getElementById('details-name').innerText.toWellFormed()"))
        browser.script("document.getElementById('next').click()")
    assert seen == names
    assert browser.script("window.hacked") is None
    browser.press("ESCAPE")
    assert browser.errors() == []
    assert browser.requests() == []


def test_the_links_lead_to_the_files(chromium, tmp_path):
    browser = Browser(chromium, write_results(tmp_path, [*map(tumor, HOSTILE)]))
    browser.press("j", "ENTER")
    for _ in HOSTILE:
        links = browser.script("[...document.querySelectorAll('#details .links a')].map(link => link.href)")
        assert len(links) == 2
        assert all(Path(unquote(urlsplit(link).path, errors="surrogateescape")).is_file() for link in links)
        browser.click("#next")


def test_an_injected_script_could_load_nothing(chromium, tmp_path):
    Browser(chromium, write_results(tmp_path, FIVE))
    blocked = chromium.execute_async_script(
        """const done = arguments[0], blocked = [];
        document.addEventListener("securitypolicyviolation", (event) => {
            blocked.push(event.effectiveDirective);
            if (blocked.length === 3) done(blocked.sort());
        });
        document.body.append(Object.assign(new Image(), { src: "http://127.0.0.1:9/a.png" }));
        fetch("http://127.0.0.1:9/").catch(() => 0);
        try { document.body.innerHTML = "<b>"; } catch {}"""
    )
    assert blocked == ["connect-src", "img-src", "require-trusted-types-for"]


@pytest.mark.slow
def test_cards_are_created_on_scrolling_and_all_of_them_for_print(chromium, tmp_path):
    browser = Browser(chromium, write_results(tmp_path, [no_tumor(f"{number}.png") for number in range(400)]))
    browser.wait("document.querySelectorAll('.card img').length >= 60")
    assert len(browser.shown()) < 400
    before = len(browser.shown())
    browser.script("scrollTo(0, document.body.scrollHeight)")
    browser.wait(f"document.querySelectorAll('.card').length > {before}")
    assert len(browser.shown()) < 400
    browser.command("Page.printToPDF")
    browser.wait("document.querySelectorAll('.card').length === 400")
    assert browser.errors() == []


def test_the_details_continue_beyond_the_cards_created_so_far(chromium, tmp_path):
    browser = Browser(chromium, write_results(tmp_path, [no_tumor(f"{number}.png") for number in range(150)]))
    browser.press("j", "ENTER")
    browser.script("Array.from({ length: 130 }, () => document.getElementById('next').click())")
    assert "131 of 150" in browser.details()
    browser.press("ESCAPE")
    browser.wait("document.activeElement.title === '130.png'")
    assert browser.errors() == []


def test_print_has_no_controls_and_is_light(browser):
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.command("Emulation.setEmulatedMedia", media="print", features=dark)
    assert browser.script("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert min(browser.script(CONTRASTS).values()) >= 4.5
    assert not browser.script("document.querySelector('.controls').checkVisibility()")
    assert browser.script("document.querySelector('.tile').checkVisibility()")


def test_the_details_of_a_slice_without_values_can_be_opened(chromium, tmp_path):
    write_results(tmp_path, [])
    content = {"schema": "cascade results 3", "slices": [{"slice": "a", "status": "tumor"}, {"slice": "b"}]}
    (tmp_path / "results.json").write_text(json.dumps(content))
    browser = Browser(chromium, tmp_path)
    browser.click(".card")
    assert "a" in browser.details()
    browser.press("j")
    assert "2 of 2" in browser.details()
    assert browser.errors() == []


def test_a_run_without_slices_says_so(chromium, tmp_path):
    browser = Browser(chromium, write_results(tmp_path, []))
    assert browser.script("document.getElementById('shown').innerText") == "0 of 0 shown"
    assert browser.script("empty.checkVisibility()")
    browser.press("j", "ENTER")
    assert browser.details() is None
    assert browser.errors() == []
