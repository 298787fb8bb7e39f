"""`doctor --bundle` collects what explains a device, without a secret, and changes nothing else."""

import json
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest
from helpers.certificates import issue
from helpers.device import Device, newest_only, one_sentence
from hypothesis import given
from hypothesis import strategies as st

from mender_oneshot.redaction import REMOVED, Redactor

TOP = "mender-oneshot-doctor"
DEPLOYMENT = "11111111-2222-3333-4444-555555555555"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJqdGkiOiJibHVlIn0.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"

SECRETS = {
    "tenant": "Tenant-0001-zebra",
    "token": "Bearer-0002-zebra",
    "old token": "Bearer-0003-zebra",
    "server password": "Server-0004-zebra",
    "proxy password": "Proxy-0005-zebra",
    "link signature": "Link-0006-zebra",
    "link in a log": "Link-0007-zebra",
    "password in a log": "Log-0008-zebra",
    "login in a log": "Log-0009-zebra",
    "password of a script": "Script-0010-zebra",
    "query in a script": "Script-0011-zebra",
    "header of a script": "Script-0012-zebra",
    "password in the fallback": "Fallback-0013-zebra",
    "token in an unreadable state": "Bearer-0014-zebra",
    "link in the state of another device": "Link-0015-zebra",
    "password in an old log": "Log-0016-zebra",
}


def members(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        files = {one.name: archive.extractfile(one) for one in archive.getmembers()}
        return {name: file.read().decode() for name, file in files.items() if file}


def entry(message: str) -> str:
    return json.dumps({"timestamp": "2026-01-01T00:00:00Z", "level": "info", "message": message}) + "\n"


def plant(device: Device) -> dict[str, str]:
    """Put a secret into each place that can hold one, and return all that must not be in a bundle."""
    s = SECRETS
    device.configure(
        TenantToken=s["tenant"],
        Servers=[{"ServerURL": f"https://user:{s['server password']}@mender.example/"}],
        Password="not a setting",
    )
    (device.data / "mender.conf").write_text(
        json.dumps({"Servers": [{"ServerURL": f"http:/x:{s['password in the fallback']}@host"}]})
    )
    device.environment["https_proxy"] = f"http://user:{s['proxy password']}@127.0.0.1:9"
    link = "https://s3.example/artifacts/x?X-Amz-Algorithm=AWS4&X-Amz-Signature="
    state = device.state
    state["token"] |= {"jwt": s["token"]}
    state["deployment"] = {
        "id": DEPLOYMENT, "artifact_id": "1", "artifact_name": "release-2", "uri": link + s["link signature"],
    }  # fmt: skip
    (device.data / "mender-oneshot.json").write_text(json.dumps(state))
    (device.data / "mender-oneshot.json.unreadable").write_text(
        f'{{"token": {{"jwt": "{s["token in an unreadable state"]}", broken'
    )
    (device.data / "mender-oneshot.json.other-device").write_text(
        json.dumps({"deployment": {"uri": link + s["link in the state of another device"]}})
    )
    key = (device.data / "mender-agent.pem").read_text()
    client = issue("client")
    (device.conf / "client.key").write_bytes(client.key_pem)
    device.configure(
        HttpsClient={"Certificate": str(device.conf / "client.pem"), "Key": str(device.conf / "client.key")}
    )
    (device.data / "deployment.log").write_text(
        entry(f"fetching {link}{s['link in a log']} now")
        + entry(f'config: password="{s["password in a log"]}" and more')
        + entry(f"at https://me:{s['login in a log']}@10.0.0.1/path")
        + entry(f"the tokens {s['token']} and {JWT}")
        + "".join(map(entry, key.splitlines()))
        + entry(f"a key on one line {client.key_pem.decode()}")
    )
    (device.data / "sub-updater.log").write_text(
        f"curl -H 'Authorization: Bearer {s['header of a script']}'\n"
        f"PASSWORD={s['password of a script']}\nGET /x?sig={s['query in a script']} 200\n{key}\n"
        f"{s['token in an unreadable state']} secret={s['old token']}\n"
        f"{s['link in the state of another device']} {s['tenant']}\n"
    )
    logs = device.data / "logs"
    logs.mkdir()
    (logs / f"{DEPLOYMENT}.log").write_text(entry(f"api_key: {s['password in an old log']}"))
    device.script(
        "inventory/mender-inventory-x",
        f"#!/bin/sh\necho url=https://u:{s['server password']}@h >&2\nexit 1\n",
    )
    device.script("identity/mender-device-identity", f"#!/bin/sh\necho {s['tenant']} >&2\nexit 1\n")
    keys = [line for line in (key + client.key_pem.decode()).splitlines() if "-----" not in line]
    return s | {"jwt": JWT} | {f"key {number}": line for number, line in enumerate(keys)}


@newest_only
def test_no_part_of_a_bundle_has_a_secret(accepted: Device, tmp_path: Path) -> None:
    secrets = plant(accepted)
    path = tmp_path / "bundle.tar.gz"
    done = accepted.run("doctor", "--bundle", str(path))
    assert "Traceback" not in done.out
    found = members(path)
    for name, secret in secrets.items():
        assert [member for member, text in found.items() if secret in text] == [], name
        assert secret.encode() not in path.read_bytes(), name
    log = found[f"{TOP}/deployment.log"]
    assert f"fetching https://s3.example/artifacts/x?{REMOVED} now" in log
    assert "and more" in log
    assert found[f"{TOP}/state.json"].count("s3.example") == 1
    assert all(json.loads(text) for name, text in found.items() if name.endswith(".json"))


@newest_only
def test_a_bundle_has_what_explains_a_device(accepted: Device, tmp_path: Path) -> None:
    accepted.sub_updater()
    accepted.ok("check-update")
    logs = accepted.data / "logs"
    logs.mkdir(exist_ok=True)
    (logs / f"{DEPLOYMENT}.log").write_text(entry("an old deployment"))
    path = tmp_path / "bundle.tar.gz"
    done = accepted.ok("doctor", "--bundle", str(path), "--json")
    assert done.json["bundle"] == {"file": str(path), "bytes": path.stat().st_size}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = {name.removeprefix(f"{TOP}/"): text for name, text in members(path).items()}
    for name, words in {
        "doctor.txt": "17 of 18 checks passed, 1 skipped.",
        "doctor.json": '"id": "data-directory"',
        "status.txt": "last check",
        "status.json": '"device_type": "board"',
        "history.txt": "No deployment has ended",
        "history.json": "deployments",
        "configuration.json": '"update_poll_interval": 1800',
        "state.json": '"schema": 1',
        "versions.txt": "Python 3",
        "os-release": "",
        "schedule.txt": "",
        "files.txt": "mender-agent.pem",
        "deployment.log": "",
        "sub-updater.log": "There is no ",
        f"logs/{DEPLOYMENT}.log": "an old deployment",
    }.items():
        assert words in found.pop(name), name
    assert found == {}


def tree(device: Device) -> dict[str, Any]:
    paths = {str(path): path.lstat() for path in device.root.rglob("*")}
    return {path: (found.st_mode, found.st_mtime_ns, found.st_ctime_ns) for path, found in paths.items()}


@newest_only
@pytest.mark.parametrize("broken", ["", "{", '{"ServerURL": 1}'])
def test_a_bundle_changes_nothing_else(accepted: Device, tmp_path: Path, broken: str) -> None:
    if broken:
        (accepted.conf / "mender.conf").write_text(broken)
        (accepted.data / "mender-oneshot.json").write_text("{")
    before = tree(accepted)
    done = accepted.run("doctor", "--bundle", str(tmp_path / "bundle.tar.gz"))
    assert done.code == (78 if broken else 0)
    assert done.out.splitlines()[-1].startswith(f"Wrote {tmp_path}/bundle.tar.gz, ")
    assert tree(accepted) == before
    assert f"{TOP}/doctor.txt" in members(tmp_path / "bundle.tar.gz")


@newest_only
def test_an_existing_file_is_never_replaced(accepted: Device, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("precious")
    for name in (path, tmp_path / "link"):
        if name != path:
            name.symlink_to(path)
        one_sentence(accepted.run("doctor", "--bundle", str(name)), 73, "already exists")
    one_sentence(accepted.run("doctor", "--bundle", str(tmp_path / "no/bundle")), 73, "no directory")
    assert path.read_text() == "precious"


@newest_only
def test_a_bundle_that_does_not_fit_leaves_nothing(accepted: Device, tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    limited = ("sh", "-c", 'trap "" XFSZ; ulimit -f 1; exec "$@"', "sh")
    done = accepted.run("doctor", "--bundle", str(path), wrapper=limited)
    one_sentence(done, 73, str(path))
    assert not path.exists()


@newest_only
def test_large_logs_are_cut_to_their_end(accepted: Device, tmp_path: Path) -> None:
    with open(accepted.data / "sub-updater.log", "w") as log:
        log.writelines(f"{number} {os.urandom(40).hex()}\n" for number in range(100_000))
    path = tmp_path / "bundle.tar.gz"
    accepted.run("doctor", "--bundle", str(path))
    text = members(path)[f"{TOP}/sub-updater.log"]
    assert len(text) <= 512 * 1024
    assert text.splitlines()[-1].startswith("99999 ")


@given(secret=st.text("abcdefghijklmnopqrstuvwxyz0123456789+/", min_size=6), around=st.text())
def test_a_known_secret_is_removed_wherever_it_stands(secret: str, around: str) -> None:
    assert secret not in Redactor([secret]).text(f"{around}{secret}{around}").replace(REMOVED, "")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("https://u:p@h:1/x?a=b#c d", f"https://{REMOVED}@h:1/x?{REMOVED} d"),
        ("https://h/x", "https://h/x"),
        ("https://u:p/@w@h/x", f"https://{REMOVED}@h/x"),
        ("Password: 'a b' x", f"Password: {REMOVED} x"),
        ("my_token=abc;x", f"my_token={REMOVED};x"),
        ("bearer abcd.efgh x", f"{REMOVED} x"),
        ("The device has no token; run auth.", "The device has no token; run auth."),
        ("/x?sig=1&b=2 x", f"/x{REMOVED} x"),
        ("-----BEGIN PRIVATE KEY-----\nabc", REMOVED),
    ],
)
def test_what_looks_like_a_secret_is_removed(text: str, cleaned: str) -> None:
    assert Redactor([]).text(text) == cleaned
