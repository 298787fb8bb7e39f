"""Who the device is, and how the server lets it in."""

import json
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from helpers.device import Device
from helpers.permissions import mode

from mender_oneshot.devserver import DevServer, Seen


def auth_requests(server: DevServer) -> list[Seen]:
    return [seen for seen in server.requests if seen.path.endswith("/auth_requests")]


def test_bootstrap_makes_a_key_once(device: Device) -> None:
    device.run("bootstrap")
    key = (device.data / "mender-agent.pem").read_bytes()
    assert mode(device.data / "mender-agent.pem") == 0o600
    assert "nothing to do" in device.ok("bootstrap").out
    assert (device.data / "mender-agent.pem").read_bytes() == key
    device.ok("bootstrap", "--force")
    assert (device.data / "mender-agent.pem").read_bytes() != key


@pytest.mark.parametrize(
    "words", [("-F", "bootstrap"), ("bootstrap", "-F"), ("bootstrap", "--forcebootstrap")]
)
def test_the_old_spellings_of_force(accepted: Device, words: tuple[str, ...]) -> None:
    key = (accepted.data / "mender-agent.pem").read_bytes()
    accepted.ok(*words)
    assert (accepted.data / "mender-agent.pem").read_bytes() != key
    assert not accepted.token


def test_key_and_state_are_private_whatever_the_umask(device: Device, server: DevServer) -> None:
    device.run("auth", umask=0)
    server.accept()
    assert device.run("auth", umask=0).code == 0
    assert mode(device.data / "mender-agent.pem") == 0o600
    assert mode(device.data / "mender-oneshot.json") == 0o600


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_new_keys_are_of_the_configured_type(device: Device, server: DevServer, kind: str) -> None:
    device.configure(KeyType=kind)
    device.run("auth")
    server.accept()
    device.ok("auth")
    key = serialization.load_pem_private_key((device.data / "mender-agent.pem").read_bytes(), None)
    assert kind in type(key).__name__.lower()


@pytest.mark.parametrize("form", ["TraditionalOpenSSL", "PKCS8"])
@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_keys_made_elsewhere_are_used_as_they_are(
    device: Device, server: DevServer, kind: str, form: str
) -> None:
    key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        getattr(serialization.PrivateFormat, form),
        serialization.NoEncryption(),
    )
    (device.data / "mender-agent.pem").write_bytes(pem)
    assert device.run("auth").code == 77
    server.accept()
    device.ok("auth")
    assert (device.data / "mender-agent.pem").read_bytes() == pem


def test_a_configured_key_is_used_and_never_made(device: Device, server: DevServer, tmp_path: Path) -> None:
    device.configure(Security={"AuthPrivateKey": str(tmp_path / "own.pem")})
    for words in (["bootstrap"], ["bootstrap", "--force"], ["auth"]):
        done = device.run(*words)
        assert done.code == 78
        assert "AuthPrivateKey" in done.err
    assert not (tmp_path / "own.pem").exists()


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 500, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_damaged_key_is_never_replaced_by_itself(device: Device, content: bytes) -> None:
    (device.data / "mender-agent.pem").write_bytes(content)
    for words in (["auth"], ["bootstrap"], ["run", "--force"]):
        done = device.run(*words)
        assert done.code == 78
        assert "bootstrap --force" in done.err
    assert (device.data / "mender-agent.pem").read_bytes() == content


def test_a_token_is_kept_until_it_is_near_its_end(accepted: Device, server: DevServer) -> None:
    accepted.ok("auth")
    assert len(auth_requests(server)) == 2
    accepted.ok("auth", "--fresh")
    assert len(auth_requests(server)) == 3
    accepted.expire_token()
    accepted.ok("check-update")
    # The expired token was not shown: the real server would delete its successor with it.
    assert [seen.status for seen in server.requests[-3:]] == [200, 404, 204]


def test_a_refused_token_costs_one_authorization_and_the_step_goes_on(
    accepted: Device, server: DevServer
) -> None:
    server.revoke_tokens()
    asked = len(server.requests)
    assert accepted.ok("check-update").out == "There is no update for this device.\n"
    assert [seen.status for seen in server.requests[asked:]] == [401, 200, 404, 204]


def test_a_rejected_device_says_so_and_does_not_hammer(accepted: Device, server: DevServer) -> None:
    server.reject()
    asked = len(server.requests)
    done = accepted.run("send-inventory")
    assert done.code == 77
    assert "accept it under" in done.err
    assert [seen.status for seen in server.requests[asked:]] == [401, 401]
    accepted.run("run")
    accepted.run("run", "--all")
    assert len(server.requests) == asked + 2
    server.accept(server.device().id)
    accepted.ok("send-inventory")


def test_a_server_that_never_takes_a_token_ends_the_run(accepted: Device, server: DevServer) -> None:
    server.faults.add(match="PUT */attributes", count=None, status=401)
    asked = len(server.requests)
    assert accepted.run("send-inventory").code == 77
    assert [seen.status for seen in server.requests[asked:]] == [401, 200, 401]


def test_the_next_server_is_asked_when_one_is_dead(device: Device, server: DevServer) -> None:
    device.settings.pop("ServerURL")
    device.configure(Servers=[{"ServerURL": "https://127.0.0.1:9"}, {"ServerURL": server.url}])
    assert device.run("auth").code == 77
    server.accept()
    assert device.ok("auth", "--json").json["server"] == server.url
    device.ok("check-update")


def test_a_device_that_waits_for_one_server_exits_with_77_although_another_is_dead(
    device: Device, server: DevServer
) -> None:
    device.settings.pop("ServerURL")
    device.configure(Servers=[{"ServerURL": server.url}, {"ServerURL": "https://127.0.0.1:9"}])
    done = device.run("auth")
    assert done.code == 77
    assert "accept it under" in done.err


def test_a_token_of_20_kb_is_rejected(device: Device, server: DevServer) -> None:
    token = f"{'h' * 8000}.{'p' * 8000}.{'s' * 4000}"
    server.faults.add(match="POST */auth_requests", status=200, body=token)
    assert device.run("auth").code == 76
    assert not device.token


def test_a_token_is_never_shown_to_another_server(
    accepted: Device, server: DevServer, tmp_path: Path
) -> None:
    with DevServer(tmp_path / "other") as other:
        accepted.configure(ServerURL=other.url, ServerCertificate=str(other.ca))
        assert accepted.run("check-update").code == 77
        assert all(seen.path.endswith("/auth_requests") for seen in other.requests)


@pytest.mark.parametrize(
    ("traces", "setting", "expected"),
    [
        ((), None, "de:ad:be:ef:00:01"),
        (("mender-agent.pem", "deployment.log"), None, ["de:ad:be:ef:00:01"]),
        (("mender-agent.pem", "deployment.log", "mender-store"), None, "de:ad:be:ef:00:01"),
        (("mender-agent.pem",), None, "de:ad:be:ef:00:01"),
        (("mender-agent.pem", "deployment.log"), "string", "de:ad:be:ef:00:01"),
        ((), "list", ["de:ad:be:ef:00:01"]),
    ],
    ids=["fresh", "python client", "reference client", "only a key", "setting string", "setting list"],
)
def test_the_identity_keeps_the_form_the_server_knows(
    device: Device, server: DevServer, traces: tuple[str, ...], setting: str | None, expected: object
) -> None:
    if traces:
        device.ok("bootstrap")
        for ours in ("mender-oneshot.json", "mender-oneshot.lock"):
            (device.data / ours).unlink()
    for name in traces[1:]:
        (device.data / name).touch()
    if setting:
        device.configure(IdentityFormat=setting)
    device.run("auth")
    # Our own log and state must not be taken for traces the second time.
    (device.data / "deployment.log").touch()
    device.run("auth")
    identities = [json.loads(json.loads(seen.body)["id_data"]) for seen in auth_requests(server)]
    assert identities == [{"mac": expected}] * 2
    assert len(server.devices) == 1


@pytest.mark.parametrize(
    ("remains", "lock_file_is_lost"),
    [
        (bytes(500), False),
        (b'{"schema": 1, "identity_format": "list", ', False),
        (b'{"schema": 1, "identity_format": "list", ', True),
    ],
    ids=["zeros", "cut short", "cut short, and the lock file is lost"],
)
def test_a_device_that_loses_its_state_stays_the_same_device(
    device: Device, server: DevServer, remains: bytes, lock_file_is_lost: bool
) -> None:
    device.ok("bootstrap")
    for ours in ("mender-oneshot.json", "mender-oneshot.lock"):
        (device.data / ours).unlink()
    (device.data / "deployment.log").touch()  # with the key, a trace of mender-python-client
    device.run("auth")
    (device.data / "mender-oneshot.json").write_bytes(remains)
    if lock_file_is_lost:
        (device.data / "mender-oneshot.lock").unlink()
    device.run("auth")
    identities = [json.loads(json.loads(seen.body)["id_data"]) for seen in auth_requests(server)]
    assert identities == [{"mac": ["de:ad:be:ef:00:01"]}] * 2
    assert len(server.devices) == 1


def test_a_pause_one_server_asks_for_is_kept_where_no_other_helps(device: Device, server: DevServer) -> None:
    del device.settings["ServerURL"]
    device.configure(Servers=[{"ServerURL": server.url}, {"ServerURL": "https://127.0.0.1:9"}])
    server.faults.add(match="POST */auth_requests", retry_after=600)
    assert device.run("auth").code == 75
    asked = len(server.requests)
    assert "asked for a pause" in device.run("auth").err
    assert len(server.requests) == asked


def test_why_a_second_authorization_fails_is_said(accepted: Device, server: DevServer) -> None:
    server.revoke_tokens()
    server.faults.add(match="POST */auth_requests", drop_before=True)
    assert "the connection was lost" in accepted.run("check-update").err


def test_several_values_of_a_key_are_a_list_in_both_forms(device: Device, server: DevServer) -> None:
    device.script("identity/mender-device-identity", "#!/bin/sh\necho mac=a\necho mac=b\necho serial=1=2\n")
    device.run("auth")
    assert server.devices[0].identity == {"mac": ["a", "b"], "serial": "1=2"}


def test_no_secret_is_ever_said(accepted: Device, server: DevServer, tmp_path: Path) -> None:
    token = accepted.token
    log = tmp_path / "log"
    server.faults.add(match="*/next", status=500)
    said = ""
    for words in (
        ["auth", "--fresh"],
        ["check-update"],
        ["send-inventory"],
        ["status"],
        ["status", "--json"],
    ):
        done = accepted.run("-l", "debug", "-L", str(log), *words)
        said += done.out + done.err
    said += log.read_text()
    secrets = {token, accepted.token} | {line for line in _lines(accepted) if len(line) > 40}
    assert not [secret for secret in secrets if secret in said]
    assert "Bearer" not in said


def _lines(device: Device) -> list[str]:
    return (device.data / "mender-agent.pem").read_text().splitlines()


def test_the_headers_of_each_request(device: Device, server: DevServer) -> None:
    device.run("auth")
    server.accept()
    device.ok("auth")
    device.ok("send-inventory")
    device.ok("check-update")
    signed, inventory, new, old = server.requests[-4:]
    token = f"Bearer {device.state['token']['jwt']}"
    names = ("Accept", "Content-Type", "Authorization")
    sent = [tuple(seen.headers[name] for name in names) for seen in (signed, inventory, new, old)]
    assert sent == [
        ("application/json", "application/json", None),
        ("application/json", "application/json", token),
        ("application/json", "application/json", token),
        ("application/json", None, token),
    ]
    assert signed.headers["X-MEN-Signature"]
    assert (new.method, old.method) == ("POST", "GET")
    assert old.query == {"artifact_name": "release-1", "device_type": "board"}


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        ("dev auth: unauthorized", "has not accepted this device yet (dev auth: unauthorized)"),
        ("signature verification failed", "check the device key"),
    ],
)
def test_why_a_device_is_not_accepted(device: Device, server: DevServer, reason: str, sentence: str) -> None:
    body = json.dumps({"error": reason, "request_id": "1"})
    server.faults.add(match="POST */auth_requests", status=401, body=body)
    done = device.run("auth")
    assert (done.code, sentence in done.err) == (77, True), done.err


@pytest.mark.parametrize("token", ["only.two", "a.b.c.d", "a b.c.d", "a.b.c\nd", "", "ä.b.c", ".b.c"])
def test_what_is_not_a_token_is_not_kept(device: Device, server: DevServer, token: str) -> None:
    server.faults.add(match="POST */auth_requests", status=200, body=token)
    done = device.run("auth")
    assert (done.code, "instead of a token" in done.err) == (76, True), done.err
    assert "token" not in device.state


def test_a_token_with_a_line_break_behind_it_is_kept(device: Device, server: DevServer) -> None:
    server.faults.add(match="POST */auth_requests", status=200, body="a-_.b.\n")
    device.ok("auth")
    assert device.state["token"]["jwt"] == "a-_.b."


def test_the_life_of_a_token_is_read_from_it(accepted: Device) -> None:
    token = accepted.state["token"]
    assert token["lifetime"] == 604800
    assert 604790 < token["expires"] - token["at"] < 604810


def test_the_body_of_the_request_for_a_token(device: Device, server: DevServer) -> None:
    device.configure(TenantToken="tenant-1", DeviceTier="micro")
    device.run("auth")
    (seen,) = auth_requests(server)
    body = json.loads(seen.body)
    assert sorted(body) == ["id_data", "pubkey", "tenant_token", "tier"]
    assert (body["tenant_token"], body["tier"]) == ("tenant-1", "micro")
    assert body["pubkey"].startswith("-----BEGIN PUBLIC KEY-----")


@pytest.mark.parametrize("token", ["a.b.c", "a.e30.c", "a.eyJleHAiOjEsImlhdCI6Mn0.c"])
def test_a_token_without_usable_times_is_kept(device: Device, server: DevServer, token: str) -> None:
    server.faults.add(match="POST */auth_requests", status=200, body=token)
    device.ok("auth")
    known = device.state["token"]
    assert (known["jwt"], known["server"]) == (token, server.url)
    assert (known["lifetime"], known["expires"]) == (0, 0)
    assert known["at"] > 0


def test_a_run_by_hand_is_not_held_up_by_an_earlier_rejection(device: Device, server: DevServer) -> None:
    assert device.run("auth").code == 77
    server.accept()
    assert device.ok("run", "--all").out == ""  # a timer backs off
    on_terminal = ["script", "-qec", f"{device.command()} run --all", "/dev/null"]
    done = subprocess.run(
        on_terminal, env=device.env(), stdin=subprocess.DEVNULL, capture_output=True, check=True
    )
    assert b"has accepted this device" in done.stdout


def test_a_failed_login_is_forgotten_when_the_token_of_an_earlier_one_is_accepted(accepted: Device) -> None:
    accepted.fail("auth", times=3, why="No answer from the server that a new system named.")
    accepted.fail("send-inventory")
    accepted.ok("check-update")
    assert accepted.failures == {"send-inventory": 1}
