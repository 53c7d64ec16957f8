"""The report is one file that loads nothing, shows names as they are, and is looked through with mouse and keys."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image

from cascade.contract import Box
from cascade.errors import CascadeError
from cascade.report import pictures, write_report
from cascade.results import NOTE, ResultsFolder, SliceResult

MENINGIOMA, GLIOMA, UNSURE_GLIOMA = (0.9, 0.06, 0.04), (0.15, 0.8, 0.05), (0.3, 0.5, 0.2)
HOSTILE = (
    "</script><script>window.hacked=1</script>.png",
    '"><img src=x onerror=window.hacked=1>.png',
    "<!--<script>.png",
    "it's & 100% #1?.png",
    "Füße ‮gnp.脑.png",
    "not UTF-8 \udcff.png",
)


def tumor(name, probabilities=GLIOMA, **more):
    return SliceResult(
        name,
        "tumor",
        probabilities=probabilities,
        box=Box(2.5, 3, 20.25, 30),
        **{"mask_pixels": 100, "mask_mm2": 24.5, "latency_ms": 12.5} | more,
    )


def no_tumor(name):
    return SliceResult(name, "no_tumor", mask_pixels=0, mask_mm2=0.0, latency_ms=12.5)


def failed(name, problem="a.png: is blank", fix="leave blank slices out"):
    return SliceResult(name, "error", problem=problem, fix=fix)


FIVE = [
    tumor("a/1.png", MENINGIOMA, mask_pixels=300, mask_mm2=73.5),
    tumor("a/2.png", GLIOMA, mask_pixels=500, mask_mm2=122.5),
    tumor("b/10.png", UNSURE_GLIOMA),
    no_tumor("b/9.png"),
    failed("b/0.png"),
]


def write_results(out, rows, *, complete=True, inputs="/data"):
    """A results folder as a run leaves it: slices of 400 x 300 pixels, their overlays with a caption of 20 rows."""
    folder = ResultsFolder(
        out, Path(inputs), overlays=True, models={"segmenter": "a" * 64}, backend="ONNX Runtime", uncertain_below=0.6
    )
    saved = []
    for row in rows:
        if row.status != "error":
            mask, overlay = folder.mask(row.name), folder.overlay(row.name)
            for path, height in ((mask, 300), (overlay, 320)):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (400, height), 90).save(path)
            row = replace(row, mask=mask.relative_to(out).as_posix(), overlay=overlay.relative_to(out).as_posix())
        saved.append(row)
    folder.save(saved, complete=complete)
    return out


def change(out, **changes):
    """Rewrites keys of the first slice of results.json."""
    path = out / "results.json"
    results = json.loads(path.read_text())
    results["slices"][0] |= changes
    path.write_text(json.dumps(results))


class Page(HTMLParser):
    """The page taken apart: its elements' attributes, the text of all that is no script or style, and its data."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text("utf-8")
        self.elements, self.text, self.inline = [], "", {"script": [], "style": []}
        self.inside = ""
        self.feed(self.source)
        self.data = json.loads(self.inline["script"][0])
        self.slices = self.data["slices"]
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside in self.inline:
            self.inline[self.inside].append(data)
        else:
            self.text += f" {data}"

    def attributes(self, name):
        return [attributes[name] for _, attributes in self.elements if name in attributes]

    def policy(self):
        (policy,) = (a["content"] for _, a in self.elements if a.get("http-equiv") == "Content-Security-Policy")
        return dict(directive.split(" ", 1) for directive in policy.split("; "))


def page_of(out):
    return Page(write_report(out))


def test_the_page_tells_the_run_and_counts_what_was_found(tmp_path):
    page = page_of(write_results(tmp_path, FIVE))
    assert page.text.startswith(f"{tmp_path.name}: cascade report")
    assert NOTE in page.text
    assert "backend ONNX Runtime segmenter aaaaaaaaaaaa cascade" in page.text
    assert "inputs /data" in page.text
    counts = "1 meningioma 2 glioma 0 pituitary tumor 1 no tumor 1 failed 1 uncertain"
    assert counts in page.text
    assert "did not get to its end" not in page.text


def test_a_slice_has_all_that_results_json_tells_of_it(tmp_path):
    write_results(tmp_path, FIVE)
    change(tmp_path, input="a.nii.gz", index=0, notes="resampled")
    page = page_of(tmp_path)
    first, _, last = page.slices[:3]
    assert first.pop("picture").startswith("data:image/webp;base64,")
    assert first == {
        "name": "a/1.png",
        "place": 0,
        "kind": "meningioma",
        "probability": 0.9,
        "probabilities": {"meningioma": 0.9, "glioma": 0.06, "pituitary tumor": 0.04},
        "uncertain": False,
        "box": {"left": 2.5, "top": 3, "right": 20.25, "bottom": 30},
        "mask_pixels": 300,
        "mask_mm2": 73.5,
        "latency_ms": 12.5,
        "input": "a.nii.gz",
        "index": 0,
        "notes": ["resampled"],
        "problem": None,
        "fix": None,
        "mask": "masks/a/1.png",
        "overlay": "overlays/a/1.png",
    }
    assert (last["kind"], last["problem"], last["fix"]) == ("failed", "a.png: is blank", "leave blank slices out")
    assert last["picture"] is last["mask"] is last["probability"] is None


def test_slices_are_in_the_order_people_count_in(tmp_path):
    names = ["s_10.png", "s_2.png", "B/1.png", "a/1.png", "s_1.png", "7.png"]
    page = page_of(write_results(tmp_path, [no_tumor(name) for name in names]))
    assert [found["name"] for found in page.slices] == ["7.png", "a/1.png", "B/1.png", "s_1.png", "s_2.png", "s_10.png"]


def test_the_page_holds_all_it_needs_and_may_load_nothing(tmp_path):
    page = page_of(write_results(tmp_path, FIVE))
    assert page.attributes("src") == []
    assert page.attributes("href") == ["data:,"]
    assert page.attributes("style") == []
    assert not re.search(r"https?:|//[a-z]|url\(|@import|\bimport\b|fetch|XMLHttp|innerHTML", page.source)
    policy = page.policy()
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["img-src"] == "data:"
    for kind, content in (("script", page.inline["script"][1]), ("style", page.inline["style"][0])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy[f"{kind}-src"] == f"'sha256-{digest}'"


def test_whatever_a_name_holds_it_ends_neither_data_nor_markup(tmp_path):
    out = tmp_path / HOSTILE[1]
    write_results(out, [tumor(name) for name in HOSTILE] + [failed(HOSTILE[0] + "x", *HOSTILE[:2])], inputs=HOSTILE[1])
    (out / "run.json").write_text(json.dumps({HOSTILE[2]: HOSTILE[1], "started": HOSTILE[1], "odd": HOSTILE[5]}))
    page = page_of(out)
    assert {found["name"] for found in page.slices} == {*HOSTILE, HOSTILE[0] + "x"}
    tags = [tag for tag, _ in page.elements]
    assert (tags.count("script"), tags.count("img"), tags.count("style")) == (2, 0, 1)
    assert page.text.count(HOSTILE[1]) == 5  # title, start, inputs and twice in the run in full
    overlays = [unquote(found["overlay"], errors="surrogateescape") for found in page.slices if found["overlay"]]
    assert len(overlays) == len(HOSTILE)
    assert all((out / overlay).is_file() for overlay in overlays)


@pytest.mark.parametrize("link", ["../outside.png", "/etc/hostname", "//host/a.png", "https://host/a.png", "gone.png"])
def test_only_files_below_the_folder_are_linked_or_shown(tmp_path, link):
    Image.new("L", (20, 20)).save(tmp_path / "outside.png")
    out = write_results(tmp_path / "out", FIVE)
    change(out, overlay=link, mask=link)
    found = page_of(out).slices[0]
    assert found["overlay"] is found["mask"] is found["picture"] is None


def test_a_file_named_like_a_scheme_is_still_linked_as_a_file(tmp_path):
    write_results(tmp_path, FIVE)
    shutil.copy(tmp_path / "overlays/a/1.png", tmp_path / "javascript:hacked()")
    change(tmp_path, overlay="javascript:hacked()")
    link = page_of(tmp_path).slices[0]["overlay"]
    assert urlsplit(link).scheme == ""
    assert unquote(link) == "javascript:hacked()"


def test_pictures_are_small_and_leave_the_caption_out(tmp_path):
    found = page_of(write_results(tmp_path, FIVE)).slices[0]
    content = base64.b64decode(found["picture"].removeprefix("data:image/webp;base64,"))
    with Image.open(io.BytesIO(content)) as picture:
        assert (picture.format, picture.size) == ("WEBP", (256, 192))  # of 400 x 300, not 400 x 320


def test_without_the_mask_the_picture_is_the_whole_overlay(tmp_path):
    write_results(tmp_path, FIVE)
    (tmp_path / "masks/a/1.png").unlink()
    found = page_of(tmp_path).slices[0]
    assert (found["mask"], found["overlay"]) == (None, "overlays/a/1.png")
    assert found["picture"]


def test_an_overlay_that_cannot_be_read_leaves_its_slice_without_a_picture(tmp_path):
    write_results(tmp_path, FIVE)
    overlay = tmp_path / "overlays/a/1.png"
    overlay.write_bytes(overlay.read_bytes()[:60])
    (tmp_path / "overlays/a/2.png").unlink()
    damaged, gone, _, whole = page_of(tmp_path).slices[:4]
    assert (damaged["picture"], damaged["overlay"]) == (None, "overlays/a/1.png")
    assert (gone["picture"], gone["overlay"]) == (None, None)
    assert whole["picture"]


def test_of_too_many_pictures_those_with_a_tumor_come_first_and_the_page_says_so(tmp_path, monkeypatch):
    write_results(tmp_path, [no_tumor("1.png"), tumor("2.png"), no_tumor("3.png"), tumor("4.png")])
    assert "are in this page" not in page_of(tmp_path).text
    monkeypatch.setattr(pictures, "MAX_PICTURES", 3)
    page = page_of(tmp_path)
    assert [bool(found["picture"]) for found in page.slices] == [True, True, False, True]
    assert all(found["overlay"] for found in page.slices)
    assert "Pictures of 3 of 4 slices are in this page" in page.text


def test_run_json_is_told_where_there_is_one(tmp_path):
    write_results(tmp_path, FIVE)
    os.utime(tmp_path / "results.json", (1_700_000_000, 1_700_000_000))
    assert "written 2023-11-1" in page_of(tmp_path).text
    (tmp_path / "run.json").write_text("{not JSON")
    assert "written 2023-11-1" in page_of(tmp_path).text
    run = {
        "started": "2025-01-02 03:04",
        "seconds": 1234.56,
        "options": {"batch_size": 8, "overlays": True, "out": None},
    }
    (tmp_path / "run.json").write_text(json.dumps(run))
    page = page_of(tmp_path)
    assert "started 2025-01-02 03:04 took 1,234.6 s" in page.text
    assert "options batch_size 8 options overlays true options out null" in page.text
    assert "written" not in page.text


def test_an_unfinished_run_is_told(tmp_path):
    assert "The run did not get to its end" in page_of(write_results(tmp_path, FIVE[:2], complete=False)).text


def test_a_slice_of_a_volume_has_its_picture_though_its_mask_is_none(tmp_path):
    out = write_results(tmp_path, [tumor("head.nii.gz/07", index=7)])
    (tmp_path / "masks/volume.nii.gz").write_bytes(b"of all slices")
    change(out, mask="masks/volume.nii.gz")
    (record,) = page_of(out).slices
    assert record["picture"].startswith("data:image/webp")


def test_unknown_and_missing_keys_and_nan_are_tolerated(tmp_path):
    write_results(tmp_path, [])
    content = {
        "schema": "cascade results 2",
        "slices": [{"slice": "a", "status": "tumor", "new": [1]}, {"slice": "b", "mask_mm2": float("nan")}],
    }
    (tmp_path / "results.json").write_text(json.dumps(content))
    page = page_of(tmp_path)
    assert [found["kind"] for found in page.slices] == ["tumor", "None"]
    assert page.slices[1]["mask_mm2"] is None
    assert "NaN" not in page.inline["script"][0]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "there is no such file"),
        ("{not JSON", "holds no results"),
        ("[]", "holds no results"),
        ('{"schema": "another", "slices": []}', "holds no results"),
        ('{"schema": "cascade results 2"}', "holds no results"),
        ('{"schema": "cascade results 2", "slices": [{"slice": 1}]}', "holds no results"),
        ('{"schema": "cascade results 2", "slices": [[]]}', "holds no results"),
    ],
)
def test_without_readable_results_there_is_no_report(tmp_path, content, problem):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(CascadeError, match=rf"results\.json: {problem}") as raised:
        write_report(tmp_path)
    assert "cascade predict" in raised.value.fix
    assert not (tmp_path / "report.html").exists()


def test_the_page_files_are_part_of_the_package():
    root = Path(__file__).parent.parent
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    files = [path.name for path in (root / "cascade/report").iterdir() if path.suffix in {".html", ".css", ".js"}]
    assert sorted(settings["package-data"]["cascade.report"]) == sorted(files)
    assert "cascade.report" in settings["packages"]


# In a browser


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    pytest.importorskip("selenium", reason="pip install 'cascade[dev]'")
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
    """A report in Chromium, and what a person does with it."""

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
        """URLs asked for, but the page's own file and data URLs."""
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
    """Of five slices; whatever a test does, it must log no error and ask the network for nothing."""
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
    assert "uncertain: less than 0.60" in browser.details()
    browser.click("#details .close")
    assert browser.details() is None


def test_a_failed_slice_is_in_a_table_with_problem_and_fix(browser):
    row = browser.script("document.querySelector('#failed tbody').innerText")
    assert row.split("\t") == ["b/0.png", "a.png: is blank", "leave blank slices out"]
    browser.click("#failed .open")
    assert "problem\na.png: is blank\nfix\nleave blank slices out" in browser.details()
    assert browser.script("document.querySelector('#details img')") is None


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


def test_the_probabilitys_range_filters_with_both_ends_in_it(browser):
    browser.type("#least", "0.8")
    assert browser.shown() == ["a/1.png", "a/2.png"]
    browser.type("#most", "0.8")
    assert browser.shown() == ["a/2.png"]


def test_search_takes_words_in_any_order_and_an_empty_gallery_offers_a_way_back(browser):
    browser.press("/")
    assert browser.focused() == "search"
    browser.type("#search", "PNG b/")
    assert browser.shown() == ["b/9.png", "b/10.png", "b/0.png"]
    browser.type("#search", "nowhere")
    assert browser.shown() == []
    assert browser.script("empty.innerText").startswith("No slice matches.")
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


def test_keys_go_through_the_slices_that_are_shown(browser):
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


def test_enter_in_the_search_goes_to_the_first_slice_found(browser):
    browser.type("#search", "b/")
    browser.press("ENTER")
    assert browser.focused() == "b/9.png"


def test_keys_with_ctrl_or_alt_stay_the_browsers(browser):
    for key in ("ctrlKey", "altKey", "metaKey"):
        untouched = (
            f"document.dispatchEvent(new KeyboardEvent('keydown', {{ key: '/', {key}: true, cancelable: true }}))"
        )
        assert browser.script(untouched)


def test_search_finds_accents_however_the_file_system_spells_them(chromium, tmp_path):
    browser = Browser(chromium, write_results(tmp_path, [no_tumor("fu\u0308r.png"), no_tumor("fur.png")]))
    browser.type("#search", "f\u00fcr")
    assert browser.shown() == ["fu\u0308r.png"]


def test_up_and_down_go_by_rows_and_into_the_table(browser):
    browser.resize(400, 800)  # two cards a row
    browser.press("j", "ARROW_DOWN")
    assert browser.focused() == "b/9.png"
    browser.press("ARROW_UP", "ARROW_RIGHT", "ARROW_DOWN")
    assert browser.focused() == "b/10.png"
    browser.press("ARROW_DOWN")
    assert browser.focused() == "b/0.png"
    browser.press("ENTER")
    assert "5 of 5" in browser.details()


def test_one_press_of_tab_goes_over_the_whole_gallery(browser):
    assert browser.script("document.querySelectorAll('.open[tabindex=\"0\"]').length") == 1
    browser.press("j", "j")
    assert browser.script("[...document.querySelectorAll('.open[tabindex=\"0\"]')].map(open => open.title)") == [
        "a/2.png"
    ]


CONTRASTS = """(() => {
    const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const luminance = (colour) => channels(colour).slice(0, 3).map((value) => value / 255)
        .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
        .reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
    const ground = (element) => {
        const colour = getComputedStyle(element).backgroundColor;
        return channels(colour)[3] === 0 ? ground(element.parentElement) : colour;
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
"""Of every text in sight, as WCAG 2.2 defines it; what is disabled is exempt there too."""


@pytest.mark.parametrize(("scheme", "lightness"), [("light", range(200, 256)), ("dark", range(60))])
def test_every_text_stands_out_in_light_and_in_dark(browser, scheme, lightness):
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
    assert {NOTE, "glioma", "uncertain", "1.png", "a.png: is blank", "mask", "these keys"} < seen.keys()
    assert {text: contrast for text, contrast in seen.items() if contrast < 4.5} == {}


def test_the_page_fits_a_telephone(browser):
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


def test_even_a_script_that_got_in_could_load_nothing(chromium, tmp_path):
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


def test_cards_are_made_as_they_are_scrolled_to_and_all_for_print(chromium, tmp_path):
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


def test_the_details_go_on_beyond_the_cards_made_so_far(chromium, tmp_path):
    browser = Browser(chromium, write_results(tmp_path, [no_tumor(f"{number}.png") for number in range(400)]))
    browser.press("j", "ENTER")
    browser.script("Array.from({ length: 350 }, () => document.getElementById('next').click())")
    assert "351 of 400" in browser.details()
    browser.press("ESCAPE")
    browser.wait("document.activeElement.title === '350.png'")
    assert browser.errors() == []


def test_print_has_no_controls_and_is_light(browser):
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.command("Emulation.setEmulatedMedia", media="print", features=dark)
    assert browser.script("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert min(browser.script(CONTRASTS).values()) >= 4.5
    assert not browser.script("document.querySelector('.controls').checkVisibility()")
    assert browser.script("document.querySelector('.tile').checkVisibility()")


def test_a_slice_of_which_nothing_is_known_can_be_opened(chromium, tmp_path):
    write_results(tmp_path, [])
    content = {"schema": "cascade results 2", "slices": [{"slice": "a", "status": "tumor"}, {"slice": "b"}]}
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
