"""YARN's pages in a real browser that knows no host name of the cluster: links are clicked from page to page."""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import element_to_be_clickable, text_to_be_present_in_element
from selenium.webdriver.support.ui import WebDriverWait

from tests.conftest import ROOT

from .lab import why_not
from .yarn_jobs import Workstation

_CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_DRIVER = shutil.which("chromedriver")
_WHY_NOT = why_not() or (None if _CHROMIUM and _DRIVER else "no chromium with its chromedriver")
pytestmark = [pytest.mark.integration, pytest.mark.skipif(_WHY_NOT is not None, reason=_WHY_NOT or "")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = Options()
    options.binary_location = _CHROMIUM or ""
    # A laptop: it knows no name of the cluster.
    rules = "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--host-resolver-rules={rules}"):
        options.add_argument(word)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('browser')}")
    chrome = webdriver.Chrome(options=options, service=Service(_DRIVER))
    chrome.set_page_load_timeout(60)
    try:
        yield chrome
    finally:
        chrome.quit()


@pytest.fixture(scope="module")
def addresses(station: Workstation) -> Iterator[dict[str, str]]:
    command = [sys.executable, "-m", "replayctl", "--output", "json", "port-forward", "yarn", "history"]
    running = subprocess.Popen(
        [*command, "--port", "auto"], cwd=ROOT, env=station.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert running.stdout
        yield json.loads(running.stdout.readline())["data"]["forwards"]
    finally:
        running.terminate()
        running.communicate(timeout=30)


def click(browser: webdriver.Chrome, text: str) -> None:
    """Clicks the first link with such a text, when the page's scripts have made it."""
    loaded_again(browser, element_to_be_clickable((By.PARTIAL_LINK_TEXT, text))).click()


def reads(browser: webdriver.Chrome, words: str) -> None:
    """Waits for words on the page."""
    loaded_again(browser, text_to_be_present_in_element((By.TAG_NAME, "body"), words))


def loaded_again(browser: webdriver.Chrome, there: Callable[[webdriver.Chrome], Any]) -> Any:
    """What is `there`; a page may come before the log or the application that it is to show, and stands still then."""
    # An application waits for those before it in the queue.
    for _ in range(11):
        with contextlib.suppress(TimeoutException):
            return WebDriverWait(browser, 20).until(there)
        browser.refresh()
    return WebDriverWait(browser, 20).until(there)


def test_from_yarns_page_to_the_log_of_an_ended_application(
    browser: webdriver.Chrome, addresses: dict[str, str], jobs: dict[str, str]
) -> None:
    browser.get(f"{addresses['yarn']}/cluster/apps/FINISHED")
    click(browser, jobs["succeeds"])
    click(browser, "Logs")
    reads(browser, "the answer is 499500")
    assert browser.current_url.startswith("http://127.0.0.1:")


def test_from_yarns_page_to_the_log_of_a_running_application(
    browser: webdriver.Chrome, addresses: dict[str, str], jobs: dict[str, str]
) -> None:
    browser.get(f"{addresses['yarn']}/cluster/apps/RUNNING")
    click(browser, jobs["long"])
    click(browser, "Logs")
    click(browser, "stdout")
    reads(browser, "tick 1")


def test_from_sparks_history_to_the_log_of_an_executor(
    browser: webdriver.Chrome, addresses: dict[str, str], jobs: dict[str, str]
) -> None:
    browser.get(f"{addresses['yarn']}/cluster/app/{jobs['succeeds']}")
    click(browser, "History")
    click(browser, "Executors")
    click(browser, "stderr")
    reads(browser, "SparkContext")
    assert browser.current_url.startswith("http://127.0.0.1:")
