"""Whom the client trusts: the same with every version of Python, and for every connection."""

import fcntl
import json
import os
import pty
import ssl
import subprocess
import termios
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from helpers.certificates import CLIENT, LONG_AGO, LOOPBACK, SOME_DAY, Issued, issue, showing, weak_key
from helpers.device import Device, Run, patch_python
from helpers.real_daemon import need
from helpers.terminal_peer import need_the_extra

from mender_oneshot.devserver import DevServer

ROOT = issue("Acme Root", ca=True)
MIDDLE = issue("Acme Devices", ROOT, ca=True)
BARE = issue("Acme bare CA", ca=True, usage=False)
OLD_ROOT = issue("Acme old root", ca=True, valid=LONG_AGO)
OLD_MIDDLE = issue("Acme old devices", ROOT, ca=True, valid=LONG_AGO)
NO_CA = issue("Acme printer", ROOT)
SELF = issue("board server", names=LOOPBACK)
OLD_SELF = issue("old board server", names=LOOPBACK, valid=LONG_AGO)
LEAF = issue("server", MIDDLE, names=LOOPBACK)
OTHER = issue("Unrelated Root", ca=True)
SAME_NAME = issue("Acme Root", ca=True, identifiers=False)


class Case(NamedTuple):
    """What a server shows, what ServerCertificate holds, and how it ends."""

    shown: Callable[[], tuple[Issued, ...]]
    trusted: Issued | None
    code: int = 77
    words: tuple[str, ...] = ()


def leaf(issuer: Issued, **options: object) -> Callable[[], tuple[Issued, ...]]:
    options = {"names": LOOPBACK} | options
    return lambda: (issue("server", issuer, **options),)  # type: ignore[arg-type]


CASES: dict[str, Case] = {
    # Good ones.
    "root": Case(lambda: (LEAF, MIDDLE), ROOT),
    "root, sent along": Case(lambda: (LEAF, MIDDLE, ROOT), ROOT),
    "CA without keyUsage": Case(leaf(BARE), BARE),
    "leaf without key identifiers": Case(leaf(ROOT, identifiers=False), ROOT),
    "leaf without keyUsage": Case(leaf(ROOT, usage=False), ROOT),
    "pinned intermediate": Case(lambda: (LEAF,), MIDDLE),
    "pinned intermediate, root sent along": Case(lambda: (LEAF, MIDDLE, ROOT), MIDDLE),
    "pinned leaf": Case(lambda: (LEAF,), LEAF),
    "pinned leaf, its issuers sent along": Case(lambda: (LEAF, MIDDLE), LEAF),
    "pinned self-signed": Case(lambda: (SELF,), SELF),
    "pinned intermediate, its root expired": Case(
        lambda: (issue("server", MIDDLE, names=LOOPBACK), MIDDLE, OLD_ROOT), MIDDLE
    ),
    "address among names": Case(leaf(ROOT, names=("a.example", "127.0.0.1")), ROOT),
    # Bad ones.
    "unrelated CA": Case(
        lambda: (LEAF, MIDDLE), OTHER, 69,
        ('issuer "Acme Root" is unknown', "does not contain it; add its CA to that file"),
    ),
    "intermediate not sent": Case(
        lambda: (LEAF,), ROOT, 69, ('issuer "Acme Devices" is unknown', "add its CA to that file"),
    ),
    "no CA configured": Case(
        lambda: (LEAF, MIDDLE, ROOT), None, 69,
        ('issuer "Acme Root" is unknown', "put its CA into ServerCertificate"),
    ),
    "self-signed, not pinned": Case(
        lambda: (SELF,), None, 69, ("it is self-signed; put it into ServerCertificate",),
    ),
    "self-signed, another pinned": Case(
        lambda: (SELF,), ROOT, 69, ("it is self-signed", "add it to that file"),
    ),
    "CA of the same name": Case(leaf(ROOT, identifiers=False), SAME_NAME, 69, ("certificate of",)),
    "expired": Case(
        leaf(ROOT, valid=LONG_AGO), ROOT, 69, ("The certificate of", "has expired by this device's clock"),
    ),
    "expired and pinned": Case(lambda: (OLD_SELF,), OLD_SELF, 69, ("has expired by this device's clock",)),
    "expired intermediate": Case(
        lambda: (issue("server", OLD_MIDDLE, names=LOOPBACK), OLD_MIDDLE), ROOT, 69,
        ('The CA certificate "Acme old devices"', "has expired"),
    ),
    "expired root": Case(leaf(OLD_ROOT), OLD_ROOT, 69, ("The CA certificate at its root", "has expired")),
    "not yet valid": Case(leaf(ROOT, valid=SOME_DAY), ROOT, 75, ("is not valid yet", "set the clock")),
    "for another name": Case(
        leaf(ROOT, names=("a.example", "10.1.2.3")), ROOT, 69,
        ("is for a.example, 10.1.2.3", "correct ServerURL"),
    ),
    "for many other names": Case(
        leaf(ROOT, names=[f"n{n}.example" for n in range(50)]), ROOT, 69, ("n4.example and 45 more",),
    ),
    "for a name of a joker": Case(
        leaf(ROOT, names=("\x1b]0;x\x07" + "a" * 200,)), ROOT, 69, ("?]0;x?aaa",),
    ),
    "for no name, only a common name": Case(
        leaf(ROOT, names=()), ROOT, 69, ('no subjectAltName, and its common name "server" is ignored',),
    ),
    "for an address in the common name": Case(
        lambda: (issue("127.0.0.1", ROOT),), ROOT, 69, ("no subjectAltName",),
    ),
    "for an address written as a name": Case(
        lambda: (issue("server", ROOT, names=("127.0.0.1.",)),), ROOT, 69,
        ("has the address 127.0.0.1 as a DNS name, which is ignored", "as an IP address in its"),
    ),
    "for clients only": Case(leaf(ROOT, purpose=CLIENT), ROOT, 69, ("server certificate", "serverAuth")),
    "issued by no CA": Case(
        lambda: (issue("server", NO_CA, names=LOOPBACK), NO_CA), ROOT, 69, ("which is not a CA",),
    ),
    "RSA 512": Case(
        lambda: (issue("server", ROOT, names=LOOPBACK, key=weak_key(512)),), ROOT, 75,
        ("too weak and must be replaced",),
    ),
    "RSA 1024": Case(
        lambda: (issue("server", ROOT, names=LOOPBACK, key=weak_key(1024)),), ROOT, 69,
        ("too weak", "issue one with RSA"),
    ),
}  # fmt: skip


def judged(device: Device, done: Run, code: int, words: tuple[str, ...]) -> None:
    """The code, and one sentence for a person that has the words."""
    assert done.code == code, done
    (sentence,) = done.err.splitlines()
    assert sentence.isprintable()
    assert len(sentence) < 600
    for word in words:
        assert word in sentence
    if code != 77 and "unknown" not in sentence and "self-signed" not in sentence:
        assert "ServerCertificate" not in sentence


@pytest.fixture
def unknown(tmp_path: Path, python: str) -> Device:
    """A device that has met no server."""
    return Device(tmp_path / "device", python)


@pytest.mark.parametrize("name", CASES)
def test_only_a_complete_and_valid_chain_of_certificates_is_trusted(
    unknown: Device, tmp_path: Path, name: str
) -> None:
    case = CASES[name]
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(case.trusted.pem if case.trusted else b"")
    with showing(tmp_path / "server", *case.shown()) as server:
        unknown.configure(
            ServerURL=f"https://127.0.0.1:{server.port}",
            ServerCertificate=str(trusted) if case.trusted else "",
        )
        judged(unknown, unknown.run("auth"), case.code, case.words)
    # No byte of the request is sent to another host than the server.
    assert bool(server.requests) == (case.code == 77)


# Python's defaults, of now and of later versions.

LATER_PYTHON = """
import ssl
real = ssl.SSLContext.__new__
def new(kind, *arguments, **options):
    context = real(kind, *arguments, **options)
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_STRICT
    return context
ssl.SSLContext.__new__ = new
"""


def test_a_python_that_is_strict_by_default_changes_nothing(unknown: Device, tmp_path: Path) -> None:
    patch_python(unknown, LATER_PYTHON)
    (tmp_path / "ca.pem").write_bytes(BARE.pem)
    with showing(tmp_path / "server", issue("server", BARE, names=LOOPBACK, identifiers=False)) as server:
        unknown.configure(
            ServerURL=f"https://127.0.0.1:{server.port}", ServerCertificate=str(tmp_path / "ca.pem")
        )
        assert unknown.run("auth").code == 77


@pytest.mark.parametrize(
    ("version", "code"),
    [
        (ssl.TLSVersion.TLSv1, 75),
        (ssl.TLSVersion.TLSv1_1, 75),
        (ssl.TLSVersion.TLSv1_2, 77),
        (ssl.TLSVersion.TLSv1_3, 77),
    ],
    ids=["1.0", "1.1", "1.2", "1.3"],
)
def test_tls_1_2_and_1_3_are_accepted_and_older_versions_rejected(
    unknown: Device, tmp_path: Path, version: ssl.TLSVersion, code: int
) -> None:
    (tmp_path / "ca.pem").write_bytes(ROOT.pem)
    # A policy of the system may allow old versions to other programs.
    (tmp_path / "openssl.cnf").write_text(
        "openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\nMinProtocol = TLSv1\n"
        "CipherString = ALL:@SECLEVEL=0\n"
    )
    unknown.environment["OPENSSL_CONF"] = str(tmp_path / "openssl.cnf")
    with showing(tmp_path / "server", LEAF, MIDDLE) as server:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            server.context.minimum_version = server.context.maximum_version = version
        unknown.configure(
            ServerURL=f"https://127.0.0.1:{server.port}", ServerCertificate=str(tmp_path / "ca.pem")
        )
        done = unknown.run("auth")
    assert done.code == code, done
    assert code == 77 or "it does not support TLS 1.2 or newer" in done.err


# Names.

RESOLVER = """
import socket
real = socket.getaddrinfo
def look_up(host, port, *rest, **options):
    name = host.decode() if isinstance(host, bytes) else host or ""
    return real("127.0.0.1" if name.rstrip(".").endswith(".test") else host, port, *rest, **options)
socket.getaddrinfo = look_up
"""

NAMES = [
    ("board.lan.test", ("board.lan.test",), True),
    ("board.lan.test", ("BOARD.Lan.Test",), True),
    ("BOARD.lan.test", ("board.lan.test",), True),
    ("board.lan.test.", ("board.lan.test",), True),
    ("board.lan.test", ("*.lan.test",), True),
    ("my_board.lan.test", ("my_board.lan.test",), True),
    ("xn--gert-loa.lan.test", ("xn--gert-loa.lan.test",), True),
    ("my_board.lan.test", ("*.lan.test",), False),
    ("lan.test", ("*.lan.test",), False),
    ("a.board.lan.test", ("*.lan.test",), False),
    ("board.lan.test", ("*",), False),
    ("board.lan.test", ("*.test",), False),
    ("board.lan.test", ("*board.lan.test",), False),
    ("board.lan.test", ("b*.lan.test",), False),
    ("board.lan.test", ("b*d.lan.test",), False),
    ("board.lan.test", ("board.*.test",), False),
    ("board.lan.test", (), False),
    ("board.lan.test", ("127.0.0.1",), False),
    ("127.0.0.1", ("127.0.0.1",), True),
    ("127.0.0.1", ("*.0.0.1",), False),
    ("127.0.0.1", ("127.0.0.2",), False),
]


@pytest.mark.parametrize(("asked", "names", "good"), NAMES)
def test_one_rule_for_names(
    unknown: Device, tmp_path: Path, asked: str, names: tuple[str, ...], good: bool
) -> None:
    patch_python(unknown, RESOLVER)
    (tmp_path / "ca.pem").write_bytes(ROOT.pem)
    with showing(tmp_path / "server", issue(asked[:60], ROOT, names=names)) as server:
        unknown.configure(
            ServerURL=f"https://{asked}:{server.port}", ServerCertificate=str(tmp_path / "ca.pem")
        )
        done = unknown.run("auth")
    assert done.code == (77 if good else 69), done
    assert bool(server.requests) == good
    if not good:
        assert "correct ServerURL" in done.err
        assert (", ".join(names) or "no subjectAltName") in done.err
    assert ("underscore" in done.err) == ("_" in asked and not good)


def test_an_address_of_ipv6(unknown: Device, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(ROOT.pem)
    for names, code in ((("::1",), 77), (("::2",), 69)):
        chain = (issue("server", ROOT, names=names),)
        with showing(tmp_path / "server", *chain, address="::1") as server:
            unknown.configure(
                ServerURL=f"https://[::1]:{server.port}", ServerCertificate=str(tmp_path / "ca.pem")
            )
            done = unknown.run("auth")
        assert done.code == code, done


# What is not there.


def test_a_system_without_any_ca_is_reported_with_the_package_to_install(
    unknown: Device, tmp_path: Path
) -> None:
    unknown.environment |= {
        "SSL_CERT_FILE": str(tmp_path / "none"),
        "SSL_CERT_DIR": str(tmp_path / "nowhere"),
    }
    with showing(tmp_path / "server", LEAF, MIDDLE) as server:
        unknown.configure(ServerURL=f"https://127.0.0.1:{server.port}")
        judged(unknown, unknown.run("auth"), 69, ("install ca-certificates, or put its CA into",))


def test_the_cas_in_ssl_cert_file_are_trusted(unknown: Device, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(ROOT.pem)
    unknown.environment["SSL_CERT_FILE"] = str(tmp_path / "ca.pem")
    with showing(tmp_path / "server", LEAF, MIDDLE) as server:
        unknown.configure(ServerURL=f"https://127.0.0.1:{server.port}")
        assert unknown.run("auth").code == 77


def system_cas(device: Device, tmp_path: Path, by_name: Issued, in_file: Path) -> None:
    """Give the device a directory of CAs that has one CA, and a file of CAs."""
    directory = tmp_path / "certs"
    directory.mkdir()
    (directory / "ca.pem").write_bytes(by_name.pem)
    subprocess.run(["openssl", "rehash", str(directory)], check=True)
    device.environment |= {"SSL_CERT_DIR": str(directory), "SSL_CERT_FILE": str(in_file)}


@pytest.fixture(params=["auth", "terminal"])
def meet(request: pytest.FixtureRequest, unknown: Device) -> Callable[[str], Run]:
    """A command that connects to a server, in the first case by `transport`, in the second by `terminal`."""
    need("openssl")
    if request.param == "auth":

        def auth(url: str) -> Run:
            unknown.configure(ServerURL=url)
            return unknown.run("auth", "--max-runtime", "20")

        return auth
    need_the_extra(unknown.python)

    def terminal(url: str) -> Run:
        unknown.configure(ServerURL=url)
        give_a_token(unknown, url)
        return unknown.run("terminal", "--wait", "1", "--max-runtime", "20")

    return terminal


def give_a_token(device: Device, url: str) -> None:
    token = {"jwt": "a.b.c", "server": url, "at": time.time()}
    state = {"schema": 1, "spread": 0.5, "identity_format": "string", "token": token}
    (device.data / "mender-oneshot.json").write_text(json.dumps(state))
    (device.conf / "mender-connect.conf").write_text('{"RemoteTerminal": true}')


NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def test_a_ca_that_is_found_by_its_name_is_trusted_without_reading_the_file_of_all(
    unknown: Device, tmp_path: Path, meet: Callable[[str], Run]
) -> None:
    os.mkfifo(tmp_path / "all.pem")  # a process that opens it blocks
    system_cas(unknown, tmp_path, ROOT, tmp_path / "all.pem")
    with showing(tmp_path / "server", LEAF, MIDDLE, answer=NOT_FOUND) as server:
        done = meet(f"https://127.0.0.1:{server.port}")
        assert server.requests, done


def test_a_ca_that_only_the_file_of_all_has_is_trusted(
    unknown: Device, tmp_path: Path, meet: Callable[[str], Run]
) -> None:
    (tmp_path / "all.pem").write_bytes(OTHER.pem + ROOT.pem)
    system_cas(unknown, tmp_path, OTHER, tmp_path / "all.pem")
    with showing(tmp_path / "server", LEAF, MIDDLE, answer=NOT_FOUND) as server:
        done = meet(f"https://127.0.0.1:{server.port}")
        assert server.requests, done


def test_a_ca_that_neither_has_is_not_trusted(
    unknown: Device, tmp_path: Path, meet: Callable[[str], Run]
) -> None:
    (tmp_path / "all.pem").write_bytes(OTHER.pem)
    system_cas(unknown, tmp_path, OTHER, tmp_path / "all.pem")
    with showing(tmp_path / "server", LEAF, MIDDLE, answer=NOT_FOUND) as server:
        done = meet(f"https://127.0.0.1:{server.port}")
        assert not server.requests
    assert done.code == 69, done
    assert "put its CA into ServerCertificate" in done.err


def test_an_expired_root_in_the_directory_does_not_hide_a_newer_one_in_the_file(
    unknown: Device, tmp_path: Path, meet: Callable[[str], Run]
) -> None:
    key = ROOT.key
    expired = issue("Acme Root", ca=True, valid=LONG_AGO, key=key)
    (tmp_path / "all.pem").write_bytes(ROOT.pem)
    system_cas(unknown, tmp_path, expired, tmp_path / "all.pem")
    with showing(tmp_path / "server", LEAF, MIDDLE, answer=NOT_FOUND) as server:
        done = meet(f"https://127.0.0.1:{server.port}")
        assert server.requests, done


def link(path: Path) -> None:
    path.symlink_to("/data/ca.pem")


def linked_directory(path: Path) -> None:
    path.parent.rmdir()
    path.parent.symlink_to("/data/certificates")


USELESS: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "missing": (lambda path: None, 69, "does not exist; put the file there, or correct the path"),
    "dangling link": (link, 78, "is a link to /data/ca.pem, which does not exist; mount its partition"),
    "behind a dangling link": (linked_directory, 78, "mount its partition"),
    "empty": (lambda path: path.touch(), 69, "is empty; put the CA there, in PEM"),
    "DER": (
        lambda path: path.write_bytes(ROOT.certificate.public_bytes(Encoding.DER)), 69, "is DER, not PEM",
    ),
    "a key": (lambda path: path.write_bytes(ROOT.key_pem), 69, "no certificate (found: PRIVATE KEY)"),
    "text": (lambda path: path.write_text("hello"), 69, "is not PEM"),
    "cut short": (lambda path: path.write_bytes(ROOT.pem[:300]), 69, "is corrupt"),
    "corrupt": (lambda path: path.write_bytes(ROOT.pem.replace(ROOT.pem[100:130], b"")), 69, "is corrupt"),
    "a directory": (lambda path: path.mkdir(), 69, "is not a regular file"),
    "a FIFO": (os.mkfifo, 69, "is not a regular file"),
}  # fmt: skip


@pytest.mark.parametrize("name", USELESS)
def test_an_unusable_server_certificate_is_a_warning_and_the_reason_for_the_failure(
    unknown: Device, tmp_path: Path, name: str
) -> None:
    damage, code, words = USELESS[name]
    path = tmp_path / "certificates/ca.pem"
    path.parent.mkdir()
    damage(path)
    with showing(tmp_path / "server", LEAF, MIDDLE) as server:
        unknown.configure(ServerURL=f"https://127.0.0.1:{server.port}", ServerCertificate=str(path))
        done = unknown.run("auth")
        assert done.code == code, done
        warning, sentence = done.err.splitlines()
        assert f"ServerCertificate {path} " in warning
        assert words in warning
        assert words in sentence
        assert "into ServerCertificate" not in sentence
        doctor = unknown.run("doctor", "--json").json
    (finding,) = [check for check in doctor["checks"] if check["name"] == "configuration"]
    assert not finding["ok"]
    assert words in finding["message"]


def test_a_leftover_line_cuts_no_device_off(unknown: Device, tmp_path: Path) -> None:
    (tmp_path / "system.pem").write_bytes(ROOT.pem)
    unknown.environment["SSL_CERT_FILE"] = str(tmp_path / "system.pem")
    (tmp_path / "ca.pem").symlink_to("/data/ca.pem")
    with showing(tmp_path / "server", LEAF, MIDDLE) as server:
        unknown.configure(
            ServerURL=f"https://127.0.0.1:{server.port}", ServerCertificate=str(tmp_path / "ca.pem")
        )
        done = unknown.run("auth")
    assert done.code == 77
    assert "mount its partition" in done.err


def test_the_keys_of_a_connection_are_given_to_nobody(accepted: Device, tmp_path: Path) -> None:
    for path in (tmp_path / "keys", tmp_path / "nowhere/keys"):
        accepted.environment["SSLKEYLOGFILE"] = str(path)
        done = accepted.ok("check-update")
        assert done.err.count("SSLKEYLOGFILE") == 1
        assert not path.exists()


# The client's certificate.


def sealed(form: PrivateFormat) -> bytes:
    return CLIENT_PAIR.key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret"))


CLIENT_PAIR = issue("board 7", ROOT, purpose=CLIENT)
WEAK_PAIR = issue("board 8", ROOT, purpose=CLIENT, key=weak_key(1024))
CERTIFICATE_DER = CLIENT_PAIR.certificate.public_bytes(Encoding.DER)
KEY_DER = CLIENT_PAIR.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
PUBLIC_HALF = CLIENT_PAIR.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
DANGLING = b"<a link to nothing>"

# The certificate, the key, the file at fault, and words.
PAIRS: dict[str, tuple[bytes | None, bytes | None, str, str]] = {
    "no certificate": (None, CLIENT_PAIR.key_pem, "Certificate", "does not exist"),
    "no key": (CLIENT_PAIR.pem, None, "Key", "does not exist"),
    "certificate a dangling link": (DANGLING, CLIENT_PAIR.key_pem, "Certificate", "mount its partition"),
    "key a dangling link": (CLIENT_PAIR.pem, DANGLING, "Key", "mount its partition"),
    "certificate empty": (b"", CLIENT_PAIR.key_pem, "Certificate", "is empty"),
    "key empty": (CLIENT_PAIR.pem, b"", "Key", "is empty"),
    "certificate in DER": (CERTIFICATE_DER, CLIENT_PAIR.key_pem, "Certificate", "is DER, not PEM"),
    "key in DER": (CLIENT_PAIR.pem, KEY_DER, "Key", "is DER, not PEM"),
    "exchanged": (CLIENT_PAIR.key_pem, CLIENT_PAIR.pem, "Certificate", "contains no certificate"),
    "public key": (CLIENT_PAIR.pem, PUBLIC_HALF, "Key", "contains no private key (found: PUBLIC KEY)"),
    "certificate for key": (CLIENT_PAIR.pem, CLIENT_PAIR.pem, "Key", "contains no private key"),
    "certificate corrupt": (
        CLIENT_PAIR.pem.replace(CLIENT_PAIR.pem[100:130], b""), CLIENT_PAIR.key_pem, "Certificate",
        "is corrupt",
    ),
    "key corrupt": (
        CLIENT_PAIR.pem, CLIENT_PAIR.key_pem.replace(CLIENT_PAIR.key_pem[50:80], b""), "Key", "is corrupt",
    ),
    "certificate cut": (CLIENT_PAIR.pem[:200], CLIENT_PAIR.key_pem, "Certificate", "is corrupt"),
    "key cut": (CLIENT_PAIR.pem, CLIENT_PAIR.key_pem[:100], "Key", "is corrupt"),
    "other key": (CLIENT_PAIR.pem, OTHER.key_pem, "Key", "does not match HttpsClient.Certificate"),
    "key of another kind": (CLIENT_PAIR.pem, WEAK_PAIR.key_pem, "Key", "does not match"),
    "weak": (WEAK_PAIR.pem, WEAK_PAIR.key_pem, "Certificate", "is too weak"),
    "passphrase": (CLIENT_PAIR.pem, sealed(PrivateFormat.PKCS8), "Key", "has a passphrase"),
    "passphrase, older form": (
        CLIENT_PAIR.pem, sealed(PrivateFormat.TraditionalOpenSSL), "Key", "has a passphrase",
    ),
    "passphrase, one file": (
        CLIENT_PAIR.pem + sealed(PrivateFormat.PKCS8), CLIENT_PAIR.pem + sealed(PrivateFormat.PKCS8), "Key",
        "has a passphrase",
    ),
}  # fmt: skip


def placed(path: Path, content: bytes | None) -> str:
    if content == DANGLING:
        path.symlink_to("/data/nothing")
    elif content is not None:
        path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize("name", PAIRS)
def test_an_unusable_client_certificate_ends_with_78_and_its_setting(
    device: Device, server: DevServer, tmp_path: Path, name: str
) -> None:
    certificate, key, at_fault, words = PAIRS[name]
    paths = {
        "Certificate": placed(tmp_path / "client.pem", certificate),
        "Key": placed(tmp_path / "client-key.pem", key),
    }
    device.configure(HttpsClient=paths)
    done = device.run("auth", start_new_session=True)
    assert done.code == 78, done
    (sentence,) = done.err.splitlines()
    assert f"HttpsClient.{at_fault} {paths[at_fault]} " in sentence
    assert words in sentence
    assert "[" not in sentence
    assert not server.requests


def test_a_passphrase_is_never_asked_for(device: Device, tmp_path: Path) -> None:
    paths = {
        "Certificate": placed(tmp_path / "client.pem", CLIENT_PAIR.pem),
        "Key": placed(tmp_path / "client-key.pem", sealed(PrivateFormat.PKCS8)),
    }
    device.configure(HttpsClient=paths)
    main, side = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(side, termios.TIOCSCTTY, 0)

    try:
        done = device.run("--max-runtime", "30", "auth", preexec_fn=take_terminal)
        os.set_blocking(main, False)
        with pytest.raises(BlockingIOError):
            os.read(main, 1)  # nothing was written to the terminal
    finally:
        os.close(main)
        os.close(side)
    assert done.code == 78, done
    (finding,) = [
        check for check in device.run("doctor", "--json").json["checks"] if check["name"] == "configuration"
    ]
    assert "HttpsClient.Key" in finding["message"]
    command = done.err.strip().partition("remove it: ")[2]
    unsealing = command.replace("openssl pkey", "openssl pkey -passin pass:secret")
    subprocess.run(["sh", "-ec", unsealing], check=True, capture_output=True)
    assert device.run("auth").code == 77


def test_a_server_that_asks_for_a_client_certificate(unknown: Device, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(ROOT.pem)
    with showing(tmp_path / "server", LEAF, MIDDLE) as server:
        server.context.load_verify_locations(tmp_path / "ca.pem")
        server.context.verify_mode = ssl.CERT_REQUIRED
        unknown.configure(
            ServerURL=f"https://127.0.0.1:{server.port}", ServerCertificate=str(tmp_path / "ca.pem")
        )
        done = unknown.run("auth")
        assert done.code == 75, done
        assert "requires a client certificate; set HttpsClient" in done.err
        both = placed(tmp_path / "both.pem", CLIENT_PAIR.key_pem + CLIENT_PAIR.pem)
        unknown.configure(HttpsClient={"Certificate": both, "Key": both})
        assert unknown.run("auth", "--fresh").code == 77


# Each client that connects.


@pytest.mark.parametrize(
    "name", ["pinned leaf", "CA without keyUsage", "for another name", "expired intermediate"]
)
def test_the_terminal_judges_alike(unknown: Device, tmp_path: Path, name: str) -> None:
    need_the_extra(unknown.python)
    case = CASES[name]
    assert case.trusted
    (tmp_path / "ca.pem").write_bytes(case.trusted.pem)
    unknown.environment["SSLKEYLOGFILE"] = str(tmp_path / "keys")
    with showing(tmp_path / "server", *case.shown(), answer=NOT_FOUND) as server:
        url = f"https://127.0.0.1:{server.port}"
        unknown.configure(ServerURL=url, ServerCertificate=str(tmp_path / "ca.pem"))
        give_a_token(unknown, url)
        done = unknown.run("terminal", "--wait", "1")
    assert done.code == 69, done
    assert bool(server.requests) == (case.code == 77)
    assert all(word in done.err for word in case.words)
    assert done.err.count("SSLKEYLOGFILE") == 1
    assert not (tmp_path / "keys").exists()


def test_the_storage_is_judged_alike(
    accepted: Device, server: DevServer, release: Callable[..., str], tmp_path: Path
) -> None:
    release()
    accepted.ok("check-update")
    (tmp_path / "ca.pem").write_bytes(ROOT.pem + Path(server.ca).read_bytes())
    accepted.configure(ServerCertificate=str(tmp_path / "ca.pem"))
    with showing(tmp_path / "storage", issue("storage", ROOT, names=("storage.example",))) as storage:
        accepted.change_link(f"https://127.0.0.1:{storage.port}/a")
        done = accepted.run("download")
    assert done.code == 69, done
    assert not storage.requests
    assert f"127.0.0.1:{storage.port} is for storage.example" in done.err
    assert "correct the address in the server's answer" in done.err
