"""The web page in a real Chromium: with real devices, a real terminal, and hostile ones."""

import base64
import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.artifacts import make_artifact
from helpers.browser import CONTROL, ENTER, TAB, Browser, driver
from helpers.device import Device
from helpers.raw_device import ATTRIBUTES, RawDevice
from helpers.update_module import Recorder
from helpers.waiting import until

from mender_oneshot.devserver import DevServer

pytestmark = pytest.mark.real

DEVICE, DEPLOYMENT, TERMINAL = "#devices .card", "#deployments .card", "#terminal"
SCREEN = "#terminal .xterm-rows"
# The texts whose contrast with their background is below 4.5, the least that the WCAG ask for.
PALE = """
const channel = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const parts = (color) => color.match(/[0-9.]+/g).map(Number);
const background = (found) => {
    for (; found; found = found.parentElement) {
        const color = parts(getComputedStyle(found).backgroundColor);
        if (color.length === 3) return color;
    }
    return [255, 255, 255];
};
return [...document.querySelectorAll("body *")]
    .filter((found) => found.checkVisibility() && !found.disabled)
    .filter((found) => [...found.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    .filter((found) => {
        const [text, behind] = [parts(getComputedStyle(found).color), background(found)].map(light);
        return (Math.max(text, behind) + 0.05) / (Math.min(text, behind) + 0.05) < 4.5;
    })
    .map((found) => found.outerHTML);
"""
OVERHANG = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser for which `rebound.example` is this machine."""
    with driver() as port:
        profile = tmp_path_factory.mktemp("browser")
        browser = Browser(port, profile, "--host-resolver-rules=MAP rebound.example 127.0.0.1")
        yield browser
        browser.close()


@pytest.fixture
def browser(window: Browser) -> Iterator[Browser]:
    """An empty window, 1280 pixels wide; nothing may be left in its console, such as a violated policy."""
    window.open("about:blank")
    window.size(1280, 900)
    window.devtools("Emulation.setEmulatedMedia", features=[])
    window.console()
    yield window
    left = window.console()
    window.open("about:blank")
    assert left == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DevServer]:
    """A server; when it has stopped, none of its threads is left, although the page may still be open."""
    before = threading.active_count()
    with DevServer(tmp_path / "server") as server:
        yield server
    assert threading.active_count() == before


@pytest.fixture
def device(tmp_path: Path, server: DevServer) -> Device:
    """A device that has not asked the server yet."""
    made = Device(tmp_path / "device", sys.executable)
    made.use_server(server)
    return made


@pytest.fixture
def module(device: Device) -> Recorder:
    """An update module of the device."""
    return Recorder(device)


@pytest.fixture
def page(browser: Browser, server: DevServer) -> Browser:
    """The page of the server, which is loaded."""
    browser.open(f"{server.url}/")
    browser.wait("#connection", "Connected")
    return browser


def accept(device: Device, page: Browser) -> None:
    """Have the page accept a new device."""
    assert device.run("auth").code == 77
    page.wait(DEVICE, "mac=de:ad:be:ef:00:01", "pending")
    page.click(f"{DEVICE} [data-is=accept]")
    page.wait(DEVICE, "accepted")
    device.ok("auth")


def deploy(page: Browser, artifact: str) -> None:
    """Have the page upload and deploy an artifact."""
    page.type("#file", artifact)
    page.wait("#artifacts .card", "release-2", "For board")
    page.click("#deploy button:enabled")
    page.wait(DEPLOYMENT, "release-2", "waits for the next check of the device")


def phases(page: Browser) -> dict[str, str]:
    """The phases of the deployment, each with its state."""
    script = "return [...document.querySelectorAll('.phases li')].map((li) => [li.innerText, li.className])"
    return dict(page.run(script))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits_into_the_window_and_has_contrast(
    browser: Browser, server: DevServer, tmp_path: Path, width: int, scheme: str
) -> None:
    for number in range(3):
        RawDevice(server, identity={"mac": f"02:00:00:00:00:0{number}", "serial": "x" * 40}).accepted()
    server.upload(make_artifact(tmp_path / "release.mender", name="release-" + "2" * 60))
    server.deploy("release-" + "2" * 60)
    browser.size(width, 900)
    browser.devtools(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )
    browser.open(f"{server.url}/")
    browser.wait(DEPLOYMENT, "waits for the next check")
    assert browser.run(OVERHANG) == 0
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(16, 23, 27)") == (scheme == "dark")
    assert browser.run(PALE) == []


def test_every_control_has_a_name(page: Browser, server: DevServer) -> None:
    RawDevice(server).accepted()
    page.wait(DEVICE, "accepted")
    nodes = page.devtools("Accessibility.getFullAXTree")["nodes"]
    controls = {
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if node.get("role", {}).get("value") in ("button", "combobox", "checkbox", "textbox", "progressbar")
    }
    assert {("button", "Deploy"), ("combobox", "Artifact"), ("combobox", "Devices")} < controls
    assert [control for control in controls if not control[1]] == []


def test_a_device_is_accepted_and_updated_while_the_page_shows_each_phase(
    page: Browser, device: Device, module: Recorder, server: DevServer, tmp_path: Path
) -> None:
    accept(device, page)
    device.ok("send-inventory")
    page.wait(DEVICE, "release-1", "board")
    page.click(f"{DEVICE} summary")
    page.wait(f"{DEVICE} table", "artifact_name", "release-1", "mac")

    deploy(page, module.artifact(device))
    os.mkfifo(tmp_path / "gate")
    module.at("ArtifactInstall", f"read line <{tmp_path}/gate")
    device.ok("run", "--all", "--force")
    page.wait(f"{DEPLOYMENT} .phases .now", "installing")
    shown = phases(page)
    assert [shown[name] for name in ("waiting", "downloading", "rebooting", "result")] == [
        "done",
        "done",
        "",
        "",
    ]
    assert "in progress" in page.text(f"{DEPLOYMENT} .badge")
    (tmp_path / "gate").write_text("\n")
    page.wait(f"{DEPLOYMENT} .badge", "success")
    assert phases(page)["success"] == "done"
    assert page.text(f"{DEPLOYMENT} [data-is=abort]") == ""


def test_the_log_of_a_failed_deployment_is_shown_as_soon_as_it_is_there(
    page: Browser, device: Device, module: Recorder
) -> None:
    accept(device, page)
    deploy(page, module.artifact(device))
    module.at("ArtifactInstall", "echo the lamp is broken; exit 1")
    device.ok("run", "--all", "--force")
    page.wait(f"{DEPLOYMENT} .badge", "failure")
    assert phases(page)["failure"] == "failed"
    until(lambda: device.run("run", "--all").code == 0, "the log is sent")
    page.wait(f"{DEPLOYMENT} pre", "the lamp is broken")


def test_a_deployment_is_aborted_with_the_keyboard_alone(
    page: Browser, device: Device, module: Recorder
) -> None:
    accept(device, page)
    deploy(page, module.artifact(device))
    page.run("document.querySelector('#deploy button').focus()")
    page.press(TAB + ENTER)
    page.wait(f"{DEPLOYMENT} .badge", "aborted")
    assert page.run("return document.activeElement.innerText") == "release-2"
    device.ok("check-update")
    assert "aborted" in page.text(DEPLOYMENT)


def test_a_rejected_device_can_be_accepted_later(page: Browser, server: DevServer) -> None:
    device = RawDevice(server)
    assert device.authorize().status == 401
    page.click(f"{DEVICE} [data-is=reject]")
    page.wait(DEVICE, "rejected")
    page.click(f"{DEVICE} [data-is=accept]")
    page.wait(DEVICE, "accepted")
    assert device.authorize().status == 200


def test_a_file_that_is_dropped_beside_the_target_is_uploaded_too(page: Browser, tmp_path: Path) -> None:
    content = base64.b64encode(make_artifact(tmp_path / "a.mender").read_bytes()).decode()
    drop = """
        const bytes = Uint8Array.from(atob(arguments[0]), (character) => character.charCodeAt(0));
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([bytes], "a.mender"));
        const event = new DragEvent("drop", {dataTransfer, bubbles: true, cancelable: true});
        document.querySelector("h1").dispatchEvent(event);
        return event.defaultPrevented;
    """
    assert page.run(drop, content) is True
    page.wait("#artifacts .card", "release-2", "For board")


def test_what_the_server_rejects_is_shown_with_its_reason(page: Browser, tmp_path: Path) -> None:
    (tmp_path / "not.mender").write_bytes(b"not an artifact")
    page.type("#file", str(tmp_path / "not.mender"))
    page.wait("#message", "The server rejects this: not.mender: ")
    assert "400" in page.console()[0]
    page.click("#message button")
    assert page.text("#message") == ""


def test_a_shell_of_the_device_runs_in_the_page(page: Browser, device: Device, server: DevServer) -> None:
    accept(device, page)
    (device.conf / "mender-connect.conf").write_text(
        json.dumps({"RemoteTerminal": True, "ShellCommand": "/bin/sh"})
    )
    terminal = device.start("terminal", "--wait", "0")
    try:
        page.click(f"{DEVICE} [data-is=open]")
        page.wait("#terminal-state", "Connected")
        page.press(f"echo $((6 * 7))-$(stty size | cut -d' ' -f2){ENTER}")
        columns = page.wait(SCREEN, "42-").partition("42-")[2].split()[0]
        page.press(f"printf '\\303'; sleep 0; printf '\\244\\342\\202\\254'{ENTER}")
        page.wait(SCREEN, "\u00e4\u20ac")
        page.size(700, 900)
        page.press(f"echo now-$(stty size | cut -d' ' -f2)-{ENTER}")
        until(lambda: re.search(r"now-\d+-", page.text(SCREEN)), "the new size")
        size = re.search(r"now-(\d+)-", page.text(SCREEN))
        assert size
        assert 20 < int(size[1]) < int(columns)
        page.press("]", hold=CONTROL)
        assert page.run("return document.activeElement.id") == "terminal-close"
        page.click(f"{DEVICE} [data-is=open]")
        page.press(f"exit{ENTER}")
        page.wait("#terminal-state", "The shell has ended")

        with server.terminal(user="developer@example.com") as other:
            other.new()
            page.click(f"{DEVICE} [data-is=open]")
            page.wait("#terminal-state", "The device starts no shell: ", "MaxPerUser")
            other.stop()
        page.click(f"{DEVICE} [data-is=open]")
        page.wait("#terminal-state", "Connected")
        server.disconnect(code=1001)
        page.wait("#terminal-state", "disconnected")
        page.click("#terminal-close")
        assert page.text(TERMINAL) == ""
    finally:
        terminal.terminate()
        terminal.communicate(timeout=60)


HOSTILE = {
    "markup": "<img src=x onerror='window.hit=1'><script>window.hit=1</script>",
    "attribute": "\" onmouseover='window.hit=1' x=\"",
    "link": "javascript:window.hit=1",
    "control": "a\x1b[31m\x00\x07\r\nb",
    "reordered": "abc\u202egnp.exe\u200b",
    "huge": "h" * 5000,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_a_hostile_device_sends_is_shown_as_text(
    page: Browser, server: DevServer, tmp_path: Path, kind: str
) -> None:
    text = HOSTILE[kind]
    device = RawDevice(server, identity={"mac": text, text[:200]: "x"}).accepted()
    sent = [{"name": "artifact_name", "value": text}, {"name": "device_type", "value": text}]
    assert device.call("PATCH", ATTRIBUTES, [*sent, {"name": "extra", "value": [text]}]).status == 200
    server.upload(make_artifact(tmp_path / "a.mender", name="release", device_types=["board", text[:900]]))
    deployment = server.deploy("release")
    server.mark_offered(deployment)
    with server.model.lock:
        found = server.model.deployments
        found.report(deployment, server.device().id, "failure", text[:200])
        stamp = "2026-01-01T00:00:00Z"
        found.put_log(deployment, server.device().id, [{"timestamp": stamp, "level": text, "message": text}])
    page.wait(f"{DEPLOYMENT} pre", "2026-01-01")
    page.click(f"{DEVICE} summary")
    page.wait(f"{DEVICE} table", "extra")
    shown = page.text("body") + page.run("return document.body.textContent")
    assert not [sign for sign in "\x00\x07\x1b\u202e\u200b" if sign in shown]
    assert "h" * 4001 not in shown
    if kind == "markup":
        assert "<img src=x onerror=" in page.text(f"{DEVICE} h3")
    assert page.run("return window.hit") is None
    assert page.run("return document.querySelectorAll('img, script').length") == 2
    assert page.run(OVERHANG) == 0


def test_the_policy_keeps_an_injected_script_and_style_from_running(page: Browser) -> None:
    page.run(
        """
        const script = document.createElement("script");
        try { script.textContent = "window.hit = 1"; } catch { script.append("window.hit = 1"); }
        document.head.append(script);
        const style = document.createElementNS("http://www.w3.org/1999/xhtml", "style");
        style.textContent = "body { display: none }";
        document.head.append(style);
        """
    )
    assert page.run("return window.hit") is None
    assert page.run("return getComputedStyle(document.body).display") == "block"
    violations = "\n".join(page.console())
    assert "TrustedScript" in violations
    assert "style-src 'self'" in violations


def test_a_page_under_another_name_gets_nothing(browser: Browser, tmp_path: Path) -> None:
    with DevServer(tmp_path / "plain", tls=False) as server:
        browser.open(server.url.replace("127.0.0.1", "rebound.example"))
        assert "unknown host name" in browser.text("body")
        script = "return fetch('/api/management/v1/useradm/auth/login', {method: 'POST', headers: "
        script += "{Authorization: 'Basic ' + btoa('a@b:c')}}).then((answer) => answer.status)"
        assert browser.run(script) == 403
        assert {seen.status for seen in server.requests} == {403}
    assert all("403" in line for line in browser.console())


def test_a_page_of_another_origin_can_do_nothing(browser: Browser, server: DevServer, tmp_path: Path) -> None:
    RawDevice(server).accepted()
    before = len(server.requests)
    with DevServer(tmp_path / "other") as other:
        browser.open(f"{other.url}/nothing")
        attempts = """
            const [server, device] = arguments;
            const login = server + "/api/management/v1/useradm/auth/login";
            const headers = {Authorization: "Basic " + btoa("a@b:c")};
            const connect = `wss${server.slice(5)}/api/management/v1/deviceconnect/devices/${device}/connect`;
            const outcome = (promise) => promise.then((answer) => answer.type, () => "blocked");
            return Promise.all([
                outcome(fetch(login, {method: "POST", headers})),
                outcome(fetch(server + "/devserver/page/overview")),
                outcome(fetch(login, {method: "POST", mode: "no-cors", body: "x"})),
                outcome(fetch(server + "/devserver/faults", {method: "DELETE"})),
                new Promise((done) => {
                    const socket = new WebSocket(connect, ["bearer-token", "x"]);
                    socket.onopen = () => done("open");
                    socket.onerror = () => done("blocked");
                }),
            ]);
        """
        outcomes = browser.run(attempts, server.url, server.device().id)
    assert outcomes == ["blocked", "blocked", "opaque", "blocked", "blocked"]
    assert {seen.status for seen in server.requests[before:]} == {403}
    assert browser.console()


def test_a_server_with_a_password_asks_for_it(browser: Browser, tmp_path: Path) -> None:
    with DevServer(tmp_path / "closed", user=("me", "s\u00e9cret")) as server:
        browser.open(f"{server.url}/")
        browser.wait("#login", "Log in")
        assert browser.text("#main") == ""
        browser.press(f"me{TAB}wrong{ENTER}")
        browser.wait("#message", "unauthorized")
        browser.run("document.querySelector('[name=password]').value = ''")
        browser.type("[name=password]", f"s\u00e9cret{ENTER}")
        browser.wait("#main", "No device yet", server.url)
        assert browser.text("#login") == ""
        stored = "return [document.cookie, localStorage.length, sessionStorage.length].join()"
        assert browser.run(stored) == ",0,0"
    assert "401" in browser.console()[0]


def test_the_page_follows_a_server_that_is_started_again(browser: Browser, tmp_path: Path) -> None:
    directory = tmp_path / "again"
    with DevServer(directory) as server:
        port = int(server.url.rpartition(":")[2])
        browser.open(f"{server.url}/")
        browser.wait("#connection", "Connected")
    browser.wait("#connection", "does not respond")
    with DevServer(directory, port=port) as server:
        browser.wait("#connection", "Connected")
        RawDevice(server).accepted()
        browser.wait(DEVICE, "accepted")
        browser.open("about:blank")
    browser.console()
