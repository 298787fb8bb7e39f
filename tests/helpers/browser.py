"""Drives a real Chromium over the WebDriver protocol, with `http.client`."""

import base64
import contextlib
import http.client
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.waiting import until

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_VISIBLE = """
return [...document.querySelectorAll(arguments[0])]
    .filter((found) => found.checkVisibility())
    .map((found) => found.innerText)
    .join("\\n");
"""
ENTER = "\ue007"
TAB = "\ue004"
CONTROL = "\ue009"


class WebDriverError(Exception):
    """The driver answered with an error."""


class Browser:
    """One window of Chromium."""

    def __init__(self, port: int, profile: Path, *arguments: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        options = {
            "binary": shutil.which("chromium"),
            "args": [
                "--headless=new",
                "--no-sandbox",  # Chromium cannot run as root without this
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--no-first-run",
                f"--user-data-dir={profile}",
                *arguments,
            ],
        }
        always = {
            "browserName": "chrome",
            "acceptInsecureCerts": True,  # the CA of the server is not known to the browser
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        self._path = ""
        created = self._call("POST", "/session", {"capabilities": {"alwaysMatch": always}})
        self._path = f"/session/{created['sessionId']}"

    def close(self) -> None:
        """End the browser."""
        with contextlib.closing(self._connection):
            self._call("DELETE", "")

    def open(self, url: str) -> None:
        """Load a page, and wait until it is loaded."""
        self._call("POST", "/url", {"url": url})

    def size(self, width: int, height: int) -> None:
        """Set the size of the page itself, in CSS pixels."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def devtools(self, command: str, **parameters: Any) -> Any:
        """Send a command of the DevTools protocol, and return its result."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a function body in the page and return what it returns; a promise is awaited."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def text(self, selector: str) -> str:
        """Return the visible text of all elements that match a CSS selector."""
        found: str = self.run(_VISIBLE, selector)
        return found

    def wait(self, selector: str, *words: str) -> str:
        """Wait until the visible text of a selector contains all words, and return it."""
        text = ""

        def there() -> bool:
            nonlocal text
            text = self.text(selector)
            return bool(text) and all(word in text for word in words)

        try:
            until(there, f"{selector} with {words}")
        except AssertionError as error:
            raise AssertionError(f"{error}; there is {text!r}; console: {self.console()}") from None
        return text

    def click(self, selector: str) -> None:
        """Click on the first element that matches a CSS selector and is visible, once there is one."""
        self.wait(selector)
        self._call("POST", f"/element/{self._find(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        """Send keys to an element; to the chooser of files, a path."""
        self._call("POST", f"/element/{self._find(selector)}/value", {"text": text})

    def press(self, keys: str, hold: str = "") -> None:
        """Press keys, one after the other, in the element that has the focus; meanwhile hold another one."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        if hold:
            actions = [{"type": "keyDown", "value": hold}, *actions, {"type": "keyUp", "value": hold}]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def console(self) -> list[str]:
        """Return what was written to the console since the last call, violations of the policy included."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"})]

    def picture(self) -> bytes:
        """Return the window as PNG."""
        return base64.b64decode(self._call("GET", "/screenshot"))

    def _find(self, selector: str) -> str:
        """Return the reference of the first visible element that matches a CSS selector."""
        script = (
            "return [...document.querySelectorAll(arguments[0])].find((found) => found.checkVisibility())"
        )
        return str(self.run(script, selector)[_ELEMENT])

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Content-Type": "application/json"}
        sent = None if body is None else json.dumps(body)
        self._connection.request(method, self._path + path, sent, headers)
        value = json.loads(self._connection.getresponse().read())["value"]
        if isinstance(value, dict) and "error" in value and "stacktrace" in value:
            raise WebDriverError(f"{method} {path}: {value['message']}")
        return value


@contextlib.contextmanager
def driver() -> Iterator[int]:
    """Run chromedriver, and yield its port; skip the test if it or Chromium is not installed."""
    missing = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    with subprocess.Popen(
        ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        try:
            for line in process.stdout:
                started = re.search(r"started successfully on port (\d+)", line)
                if started:
                    yield int(started[1])
                    break
        finally:
            process.terminate()
