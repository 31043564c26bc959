"""A run's page in headless Chromium: it fits, can be read in light and dark, complains of nothing, and prints."""

import base64
import math
import shutil

import pytest

from tests.run import tiny
from tests.run.pages import made, score

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install -e '.[browser]'")
CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (Debian: chromium-driver)"),
]

WIDTHS, SCHEMES = (390, 1280), ("light", "dark")
LEAST_CONTRAST = 4.5  # of texts, as WCAG 2 has it (AA)
LONG_WORD = "Donaudampfschifffahrt" * 20

OPEN_ALL = "document.querySelectorAll('details').forEach(one => { one.open = true; })"
ROOT = "document.documentElement"
BEYOND = f"""
return [...document.querySelectorAll('body *')]
  .filter(one => !one.closest('.wide, svg') && one.getBoundingClientRect().right > {ROOT}.clientWidth + 1)
  .map(one => one.outerHTML.slice(0, 200));
"""
CONTRASTS = """
const known = text => text.match(/[\\d.]+/g).map(Number);
const light = rgb => {
  const [r, g, b] = rgb.map(one => one / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = element => {
  for (let one = element; one; one = one.parentElement) {
    const found = known(getComputedStyle(one).backgroundColor);
    if (found.length < 4 || found[3] > 0) return found.slice(0, 3);
  }
  return null;  // nothing is painted: as the browser likes
};
const found = [];
for (const element of document.body.querySelectorAll('*')) {
  const told = [...element.childNodes].some(one => one.nodeType === Node.TEXT_NODE && one.data.trim());
  if (!told || !element.getClientRects().length || element.tagName === 'title') continue;
  const style = getComputedStyle(element), drawn = element instanceof SVGElement;
  const ink = known(drawn ? style.fill : style.color), paper = behind(element);
  const [low, high] = [light(ink.slice(0, 3)), light(paper)].sort((a, b) => a - b);
  found.push([(high + 0.05) / (low + 0.05), element.textContent.trim().slice(0, 40)]);
}
return found;
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A run's page, and one of texts and names that are hard to place."""
    folder = tmp_path_factory.mktemp("pages")
    tiny.train(folder / "run", "--config.eval.further", "--config.editor.full_curve", "--config.eval.generated=3")
    example = {"prompt": LONG_WORD, "target": "x " * 300, "before": LONG_WORD, "after": "y " * 300}
    names = [f"{LONG_WORD}.json row {m}" for m in range(240)]
    shares = [m % 3 / 2 for m in range(240)]
    rows = [
        {
            "phase": "edit",
            "batch": j,
            "ES": j / 2,
            "shift_norm": [{f"model.layers.{s}.{LONG_WORD}": j for s in range(30)}],
        }
        for j in range(60)
    ]
    summary = {
        "scores": {"unedited": {"ES": 1.0, "perplexity": 1e9}, "edited": {"ES": 100.0, "perplexity": math.inf}},
        "intervals": {"unedited": {"ES": [0.0, 2.0], "perplexity": [1e8, 1e10]}, "edited": {"ES": [100.0, 100.0]}},
        "items": {"unedited": {"ES": 240, "perplexity": 10**9}},
        "edits": 240,
        "seconds": {"train": 1e6, "edit": 0.001, "score": 5.0, "compile": 3.0, "total": 1e6 + 9},
        "peaks_mb": {"train": {"host": 123456.7, "device": 76543.2}},
        "examples": [example] * 3,
    }
    scores = {"unedited": {"ES": score(*shares, names=names)}, "edited": {"ES": score(*shares, names=names)}}
    made(folder / "hard", summary, scores, rows, **{"num_seq": 60, "model.name_or_path": f"/models/{LONG_WORD}"})
    return {name: (folder / name / "report.html").as_uri() for name in ("run", "hard")}


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(flag)
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield found
    found.quit()


def opened(browser, page, width, scheme):
    """Opens the page, all of it unfolded, on a screen of that width in that colour scheme."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(page)
    browser.execute_script(OPEN_ALL)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["run", "hard"])
def test_a_page_fits_the_screen_and_complains_of_nothing(browser, pages, name, width, scheme):
    opened(browser, pages[name], width, scheme)
    assert browser.execute_script(BEYOND) == []
    inner, outer = browser.execute_script(f"return ['scrollWidth', 'clientWidth'].map(one => {ROOT}[one])")
    assert inner == outer > width - 20  # (a scroll bar)
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["run", "hard"])
def test_every_text_can_be_read(browser, pages, name, width, scheme):
    opened(browser, pages[name], width, scheme)
    paper = browser.execute_script("return getComputedStyle(document.documentElement).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    found = browser.execute_script(CONTRASTS)
    assert len(found) > 100
    assert [one for one in found if one[0] < LEAST_CONTRAST] == []


@pytest.mark.parametrize("name", ["run", "hard"])
def test_a_page_prints_on_white(browser, pages, name):
    opened(browser, pages[name], WIDTHS[1], "dark")
    given = {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", given)
    assert browser.execute_script("return getComputedStyle(document.body).color") == "rgb(27, 31, 36)"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") >= 2
    assert browser.get_log("browser") == []
