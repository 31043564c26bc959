"""The page to edit by hand in a real browser: Chromium, without a window, before the program itself."""

import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from tests.run import tiny

pytest.importorskip("starlette", reason="the page needs the extra `serve`: pip install -e '.[serve]'")
pytest.importorskip("selenium", reason="a browser is driven by the extra `browser`: pip install -e '.[browser]'")

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = pytest.mark.long
PROGRAMS = [shutil.which(name) for name in ("chromium", "chromedriver")]
PATIENCE = 300  # seconds: programs are compiled
WIDTHS = (390, 1280)
ODD = 'The <b id="made">Eiffel</b> Tower is in'
FLAGS = [
    f"--config={tiny.ROOT / 'configs/common.py'}:editor=ultraedit,iters=1",
    f"--config.model.name_or_path={tiny.MODEL}",
    "--config.model.edit_modules=('model.layers.{3..4}.mlp.gate_proj',)",
    "--config.editor.lr=0.05",  # large enough that a random model's answers change
    "--config.eval.max_new_tokens=4",
    "--noconfig.compile_cache",
]


@pytest.fixture
def program(tmp_path):
    """(the running program, the address of its page)."""
    command = [sys.executable, str(tiny.ROOT / "launch.py"), "--mode=serve", *FLAGS, "--port=0"]
    command.append(f"--workdir={tmp_path / 'kept'}")
    with subprocess.Popen(command, cwd=tiny.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as done:
        assert done.stdout is not None
        said = ""
        for line in done.stdout:
            said += line
            if line.startswith("page "):
                break
        found = re.search(r"^page +(\S+)", said, re.MULTILINE)
        assert found, said
        yield done, found[1]
        done.kill()


@pytest.fixture
def browser():
    if None in PROGRAMS:
        pytest.skip("there is no Chromium: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location, driver = map(str, PROGRAMS)
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):  # it may be the superuser's, in a box
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options=options, service=Service(driver))
    yield made
    made.quit()


def wide(browser, width: int) -> None:
    """A window so wide, of a phone where it is narrow; windows themselves have a least width."""
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def fits(browser) -> bool:
    """Whether nothing stands out to the right."""
    return browser.execute_script(
        "const root = document.documentElement; return root.scrollWidth <= root.clientWidth"
        " && [...document.querySelectorAll('main *')].every("
        "one => one.getBoundingClientRect().right <= root.clientWidth + 1)"
    )


def part(browser, css: str):
    return browser.find_element(By.CSS_SELECTOR, css)


def until(browser, css: str, wanted: str) -> None:
    """Waits until a part of the page holds these words."""
    WebDriverWait(browser, PATIENCE).until(lambda page: wanted in part(page, css).text)


def words(browser, css: str) -> list[str]:
    return [one.text for one in browser.find_elements(By.CSS_SELECTOR, css)]


def test_a_person_edits_asks_and_takes_back(browser, program, tmp_path):
    running, address = program
    with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(address.split("?")[0]):
        pass
    assert refused.value.code == 403
    refused.value.close()

    browser.get(address)
    until(browser, "#about", "ultraedit")
    assert "token" not in browser.current_url
    assert "No edit is in force" in part(browser, "#report-empty").text
    assert browser.execute_script("return document.cookie") == ""  # no script may read it
    for width in WIDTHS:
        wide(browser, width)
        assert fits(browser)

    part(browser, "#prompt").send_keys(ODD, Keys.TAB, "Rome")  # by keyboard
    part(browser, "#more summary").click()
    part(browser, "#wordings").send_keys("Where is the Eiffel Tower?\n\nThe Eiffel Tower stands in")
    part(browser, "#answer").send_keys(Keys.ENTER)
    assert part(browser, "#status").is_displayed()
    assert part(browser, "#write button").get_attribute("aria-disabled") == "true"
    until(browser, "#edits", "Undo")
    WebDriverWait(browser, PATIENCE).until(lambda page: not part(page, "#status").is_displayed())
    assert part(browser, "#prompt").get_attribute("value") == ""
    assert words(browser, "#edits .written") == [f"{ODD} → Rome"]
    assert words(browser, "#report h3") == [f"{ODD} → Rome"]
    assert browser.find_elements(By.ID, "made") == []  # text, not markup
    assert "likeliest" in part(browser, "#summary").text
    assert words(browser, "#report .checks li")[:2] == [
        "✗\nWhere is the Eiffel Tower?",
        "✗\nThe Eiffel Tower stands in",
    ]
    assert browser.switch_to.active_element.get_attribute("id") == "report-title"
    assert not part(browser, "#report-empty").is_displayed()
    before, after = words(browser, "#report .pair .words")
    assert before != after
    assert part(browser, "#question").get_attribute("value") == ODD

    part(browser, "#question").send_keys(Keys.ENTER)
    until(browser, "#answers", "with 1 fact in force")
    before, after = words(browser, "#answers .pair .words")
    assert before != after
    for width in WIDTHS:
        wide(browser, width)
        assert fits(browser)

    part(browser, "#save").click()
    until(browser, "#kept", str(tmp_path / "kept"))
    assert (tmp_path / "kept" / "session.json").is_file()
    browser.refresh()  # with the cookie
    until(browser, "#unsaved", "Everything is saved")
    assert words(browser, "#report h3") == [f"{ODD} → Rome"]

    part(browser, "#edits button").click()
    until(browser, "#summary", "taken back")
    assert words(browser, "#edits li") == []
    until(browser, "#unsaved", "1 change")
    part(browser, "#question").send_keys(ODD, Keys.ENTER)
    until(browser, "#answers", "with no edits in force")
    before, after = words(browser, "#answers .said:first-child .words")
    assert before == after
    assert browser.get_log("browser") == []

    part(browser, "#export button").click()  # of nothing
    until(browser, "#error", "nothing to export")
    part(browser, "#examples button").click()
    part(browser, "#prompt").send_keys("Typed meanwhile")
    until(browser, "#edits", "Lyon")
    assert part(browser, "#prompt").get_attribute("value") == "Typed meanwhile"
    assert not part(browser, "#error").is_displayed()

    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0, said
    assert "unsaved  'The capital of France is' -> 'Lyon'" in said
    assert "Traceback" not in said
    part(browser, "#ask button").click()
    until(browser, "#error", "does not answer")


def test_a_page_without_the_token_is_refused(browser, program):
    _, address = program
    for url in (address.split("?")[0], f"{address}x"):
        browser.get(url)
        assert "403" in part(browser, "body").text
        assert browser.find_elements(By.ID, "write") == []
    browser.get(address.replace("127.0.0.1", "localhost"))
    until(browser, "#about", "ultraedit")
