"""A real Chromium, and pages in it that say what went wrong in them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 60_000
"""Milliseconds that anything a page is to show or to do may take."""


@contextmanager
def chromium() -> Iterator[Any]:
    """Chromium without a window, for the block's length; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    playwright.expect.set_options(timeout=PATIENCE)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium for the tests of a module."""
    with chromium() as started:
        yield started


@contextmanager
def opened(browser: Any, **more: Any) -> Iterator[Any]:
    """A page of a fresh profile, for the block's length. What is thrown in Corral's own scripts fails the block."""
    context = browser.new_context(**more)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    thrown: list[str] = []
    page.on("pageerror", lambda error: thrown.append(error.stack) if "/ui/assets/" in error.stack else None)
    try:
        yield page
    finally:
        context.close()
    assert thrown == []
