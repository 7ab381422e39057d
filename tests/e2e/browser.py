"""A headless Chromium for tests that look at pages; where there is none they are skipped."""

from __future__ import annotations

import base64
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars"),
)
Found = TypeVar("Found")


@contextmanager
def browser(profile: Path, width: int, height: int) -> Iterator[webdriver.Chrome]:
    """A browser window of this size, inside.

    Args:
        profile: a new folder, made for it.
    """
    binary = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    chromedriver = shutil.which("chromedriver")
    if binary is None or chromedriver is None:
        missing = "Chromium" if binary is None else "chromedriver"
        pytest.skip(f"no {missing} here; Debian: apt install chromium chromium-driver")
    options = Options()
    options.binary_location = binary
    for option in (*OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(option)
    driver = webdriver.Chrome(options, Service(chromedriver))
    try:
        # Not by --window-size: a headless window is not narrower than 500 pixels.
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        driver.set_page_load_timeout(120)
        yield driver
    finally:
        driver.quit()


def wait_for(found: Callable[[], Found], what: str, seconds: float = 120) -> Found:
    """What `found` gives once it is true; a page that is still being built raises on the way."""
    from selenium.common.exceptions import WebDriverException

    end = time.monotonic() + seconds
    while True:
        try:
            if value := found():
                return value
        except WebDriverException:
            pass
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.25)


def text_of(driver: webdriver.Chrome) -> str:
    """What the page says."""
    return str(driver.execute_script("return document.body.innerText"))


def picture(driver: webdriver.Chrome, path: Path, *, whole: bool = False) -> None:
    """A screenshot of the window, or of the whole page."""
    found = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": whole})
    path.write_bytes(base64.b64decode(found["data"]))


def printed(driver: webdriver.Chrome, path: Path) -> None:
    """The page as a PDF, as it is printed."""
    found = driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    path.write_bytes(base64.b64decode(found["data"]))
