"""The page in a browser that can reach nothing but the file."""

import json
import shutil

import pytest

from secateurs.comparing.outcome import Outcome
from tests.comparing.made_up import rows

webdriver = pytest.importorskip("selenium.webdriver")
for _needed in ("jinja2", "matplotlib", "plotly"):
    pytest.importorskip(_needed)
CHROMIUM, DRIVER = (shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver"))
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")
DRAWN = "return document.querySelectorAll('.plot .scatterlayer .trace').length"


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "host-resolver-rules=MAP * ~NOTFOUND"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return Outcome(rows(tasks=("digits", "signs"))).write(tmp_path_factory.mktemp("page")).as_uri()


@pytest.fixture
def page(browser, address):
    """The page, loaded at the size of a desktop, and its first plot drawn."""
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(address)
    wait(browser, f"{DRAWN} == 14")
    return browser


def wait(browser, script):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 30, poll_frequency=0.05).until(lambda b: b.execute_script(script))


def visible(browser, plot):
    return browser.execute_script(
        "return document.querySelectorAll('.plot')[arguments[0]].data.map(t => [t.name, t.visible ?? true])", plot
    )


def press(browser, what):
    browser.execute_script("document.querySelectorAll('.chart')[0].querySelector(arguments[0]).click()", what)


def test_it_opens_from_a_file_without_errors_and_asks_for_nothing_else(page, address):
    assert [entry for entry in page.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith("data:")} == {address}
    assert page.execute_script("return [...document.querySelectorAll('.plot')].map(p => p.data.length)") == [7, 7]


def test_the_legend_switches_a_method_off_and_leaves_the_others(page):
    page.execute_script("""
        const entry = [...document.querySelector('.plot').querySelectorAll('.legend .traces')]
            .find(e => e.textContent.trim() === 'dense').querySelector('.legendtoggle');
        for (const kind of ['mousedown', 'mouseup']) entry.dispatchEvent(new MouseEvent(kind, {bubbles: true}));
    """)
    wait(page, "return document.querySelector('.plot').data[0].visible === 'legendonly'")
    shown = visible(page, 0)
    assert [on for name, on in shown if name == "dense"] == ["legendonly"] * 2  # the band goes with its line
    assert [on for name, on in shown if name != "dense"] == [True] * 5
    assert all(on is True for _, on in visible(page, 1))
    press(page, "button[data-x='1']")  # what is off stays off on another axis
    wait(page, "return document.querySelector('.plot').layout.xaxis.title.text === 'bytes stored'")
    assert visible(page, 0) == shown


def test_the_axes_switch(page):
    before = page.execute_script("return document.querySelector('.plot').data[4].x")
    press(page, "button[data-x='4']")
    wait(page, "return document.querySelector('.plot').layout.xaxis.title.text.startsWith('training cost')")
    plot = page.execute_script("const p = document.querySelector('.plot'); return {x: p.data[4].x, type: p.layout.xaxis.type}")
    assert plot["x"] == pytest.approx([472, 456]) != before and plot["type"] == "linear"
    assert page.execute_script("return document.querySelector('.xtitle').textContent").startswith("training cost")
    press(page, "button[data-y='1']")
    wait(page, "return document.querySelector('.plot').layout.yaxis.type === 'log'")
    low, high = page.execute_script("return document.querySelector('.plot').layout.yaxis.range")
    assert low > high  # the best on top
    pressed = page.execute_script(
        "return [...document.querySelector('.chart').querySelectorAll('[aria-pressed=true]')].map(b => b.textContent)"
    )
    assert pressed == ["training cost", "error (log)"]


def test_a_phone_needs_no_sideways_scrolling(page):
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    page.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    wait(page, "return document.querySelector('.plot .main-svg').getBoundingClientRect().width < 390")
    assert page.execute_script("return [document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    boxes = page.execute_script("return [...document.querySelectorAll('.scroll')].map(e => e.getBoundingClientRect().right)")
    assert len(boxes) > 8 and max(boxes) <= 390
    assert 400 < page.execute_script("return document.querySelector('.plot').getBoundingClientRect().height") < 844


def test_a_dark_page_has_light_ink(page):
    ink = "return document.querySelector('.plot').layout.font.color"
    light = page.execute_script(ink)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
    wait(page, f"return ({ink.removeprefix('return ')}) !== '{light}'")
    assert (light, page.execute_script(ink)) == ("#1f2328", "#e6e8ea")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
