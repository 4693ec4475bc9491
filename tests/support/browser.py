"""Headless Chromium for tests: what a page has logged and requested, and how wide it is."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = "chromium-headless-shell"
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
#: Runs in a copy of a page without its policy: it measures, and leaves what it found in the title.
_PROBE = """<script>
const wide = [...document.body.querySelectorAll('*')].filter(each => {
  const box = each.getBoundingClientRect();
  return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1);
});
document.title = 'PROBE' + JSON.stringify({
  scroll: document.documentElement.scrollWidth, inner: innerWidth,
  wide: wide.slice(0, 5).map(each => each.tagName + '.' + each.className + ' ' + each.textContent.slice(0, 40)),
  page: getComputedStyle(document.body).backgroundColor, text: getComputedStyle(document.body).color,
  rows: document.querySelectorAll('.matrix tbody tr').length,
  empty: [...document.querySelectorAll('.matrix td')].filter(each => each.getBoundingClientRect().width < 3).length,
  dangers: document.querySelectorAll('img, iframe, object, embed, link, [onerror], [onload]').length,
  scripts: document.scripts.length,
}) + 'END';
</script>"""


def find_browser() -> str:
    """Return the path of the browser; without one the test is skipped, or fails in CI."""
    path = shutil.which(PROGRAM)
    if path is None:
        message = f"THIS TEST DID NOT RUN: there is no {PROGRAM} on this machine (Debian: apt install {PROGRAM})"
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(message)
        pytest.skip(message)
    return path


@dataclass(frozen=True, slots=True)
class Visit:
    """What a page did.

    Args:
        dom: the document after it was loaded.
        console: messages of the console, the violations of a policy among them.
        requests: requests that left the browser.
    """

    dom: str
    console: tuple[str, ...]
    requests: tuple[str, ...]


class _Proxy(http.server.BaseHTTPRequestHandler):
    """Takes every request of the browser, and answers none."""

    seen: list[str]

    def _take(self) -> None:
        self.seen.append(f"{self.command} {self.path}")
        self.send_error(502)

    do_GET = do_CONNECT = do_POST = do_HEAD = _take  # noqa: N815 - names of the standard library

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@contextmanager
def _proxy() -> Iterator[tuple[int, list[str]]]:
    seen: list[str] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Proxy", (_Proxy,), {"seen": seen}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1], seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def visit(page: Path, *, width: int = 1400, is_dark: bool = False) -> Visit:
    """Open a page; all requests but that for its file go to a proxy that notes them."""
    with _proxy() as (port, seen):
        done = subprocess.run(
            [
                find_browser(),
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--enable-logging=stderr",
                f"--user-data-dir={page.parent / 'profile'}",
                f"--proxy-server=127.0.0.1:{port}",
                "--proxy-bypass-list=<-loopback>",
                f"--blink-settings=preferredColorScheme={0 if is_dark else 1}",
                f"--window-size={width},900",
                "--dump-dom",
                page.as_uri(),
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
    console = tuple(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return Visit(done.stdout, console, tuple(seen))


def measure(page: Path, *, width: int, is_dark: bool = False) -> dict[str, Any]:
    """Return how a page looks at a width, from a script in a copy without a policy."""
    copy = page.with_name(f"probe-{page.name}")
    copy.write_text(_POLICY.sub("", page.read_text("utf-8")) + _PROBE, "utf-8")
    found = re.search(r"PROBE(.*?)END", visit(copy, width=width, is_dark=is_dark).dom, re.DOTALL)
    assert found is not None
    measured: dict[str, Any] = json.loads(unescape(found[1]))
    return measured
