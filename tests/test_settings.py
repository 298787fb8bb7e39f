"""The configuration: two files, merged key by key; every mistake is named with its place."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from mender_oneshot.errors import SettingsError
from mender_oneshot.paths import Places, find_places
from mender_oneshot.settings import Settings, load, parse


def places(directory: Path, *, explicit: bool = False) -> Places:
    return Places(
        config=f"{directory}/etc.conf",
        fallback=f"{directory}/lib.conf",
        explicit=explicit,
        conf_dir=f"{directory}/etc",
        scripts_dir=f"{directory}/share",
        datastore=f"{directory}/lib",
    )


def configured(directory: Path, main: object = None, fallback: object = None) -> Settings:
    """The settings that come of the two files."""
    for name, content in (("etc.conf", main), ("lib.conf", fallback)):
        if content is not None:
            (directory / name).write_text(json.dumps(content))
    return load(places(directory))


def mistake(text: str | bytes) -> str:
    """The sentence about a mistake in a file."""
    with pytest.raises(SettingsError) as caught:
        parse("/etc/mender/mender.conf", text if isinstance(text, bytes) else text.encode(), [])
    sentence = str(caught.value)
    assert caught.value.exit_code == 78
    assert sentence.startswith("/etc/mender/mender.conf")
    assert sentence.isprintable()
    assert len(sentence) < 300
    return sentence


def warnings(text: str) -> list[str]:
    said: list[str] = []
    parse("m.conf", text.encode(), said)
    return said


# Where values come from.


def test_without_any_file_the_defaults_hold(tmp_path: Path) -> None:
    found = load(places(tmp_path))
    assert found == Settings(places(tmp_path))
    assert found.update_poll_interval == 1800
    assert found.inventory_poll_interval == 28800
    assert found.retry_poll_interval == 300
    assert found.install_timeout == 14400
    assert found.servers == ()
    assert found.key_file == f"{tmp_path}/lib/mender-agent.pem"
    assert found.log_directory == f"{tmp_path}/lib"


def test_an_explicit_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--config"):
        load(places(tmp_path, explicit=True))


def test_an_explicit_file_does_not_make_the_other_one_needed(tmp_path: Path) -> None:
    (tmp_path / "etc.conf").write_text("{}")
    assert load(places(tmp_path, explicit=True)).servers == ()


SCALARS: list[tuple[str, str, Any, Any]] = [
    ("TenantToken", "tenant_token", "one", "two"),
    ("DeviceTier", "device_tier", "system", "micro"),
    ("ServerCertificate", "server_certificate", "/one", "/two"),
    ("SkipVerify", "skip_verify", False, True),
    ("KeyType", "key_type", "rsa", "ed25519"),
    ("UpdatePollIntervalSeconds", "update_poll_interval", 1, 2),
    ("InventoryPollIntervalSeconds", "inventory_poll_interval", 1, 2),
    ("RetryPollIntervalSeconds", "retry_poll_interval", 1, 2),
    ("RetryPollCount", "retry_poll_count", 0, 2),
    ("RetryDownloadCount", "retry_download_count", 1, 2),
    ("StartSpreadSeconds", "start_spread", 0, 2),
    ("InstallTimeoutSeconds", "install_timeout", 0, 2),
    ("IdentityFormat", "identity_format", "string", "list"),
    ("DeviceTypeFile", "device_type_file", "/one", "/two"),
    ("UpdateLogPath", "update_log_path", "/one", "/two"),
    ("DaemonLogLevel", "log_level", "debug", "error"),
    ("RootfsPartA", "rootfs_part_a", "/dev/1", "/dev/2"),
    ("RootfsPartB", "rootfs_part_b", "/dev/1", "/dev/2"),
]


@pytest.mark.parametrize(("key", "field", "main", "fallback"), SCALARS, ids=[row[0] for row in SCALARS])
def test_the_main_file_comes_before_the_other(
    tmp_path: Path, key: str, field: str, main: Any, fallback: Any
) -> None:
    assert getattr(configured(tmp_path, {key: main}, {key: fallback}), field) == main
    assert getattr(configured(tmp_path, {}, {key: fallback}), field) == fallback


def test_the_merge_is_key_by_key(tmp_path: Path) -> None:
    found = configured(
        tmp_path,
        {"ServerURL": "https://main", "RetryPollCount": 5},
        {"ServerURL": "https://other", "TenantToken": "t", "RetryPollCount": 9},
    )
    assert (found.servers, found.tenant_token, found.retry_poll_count) == (("https://main",), "t", 5)


def test_nested_objects_merge_key_by_key_too(tmp_path: Path) -> None:
    found = configured(
        tmp_path,
        {"HttpsClient": {"Certificate": "/main.crt"}},
        {
            "HttpsClient": {"Certificate": "/other.crt", "Key": "/other.key"},
            "Security": {"AuthPrivateKey": "/a"},
        },
    )
    assert (found.client_certificate, found.client_key) == ("/main.crt", "/other.key")
    assert found.auth_private_key == found.key_file == "/a"


def test_keys_match_without_regard_to_case(tmp_path: Path) -> None:
    found = configured(
        tmp_path,
        {"SERVERURL": "https://s", "httpsclient": {"CERTIFICATE": "/c", "key": "/k"}, "keyTYPE": "RSA"},
        {"updatepollintervalseconds": 7, "sERVERcertificate": "/ca"},
    )
    assert found.servers == ("https://s",)
    assert (found.client_certificate, found.client_key, found.key_type) == ("/c", "/k", "rsa")
    assert (found.update_poll_interval, found.server_certificate) == (7, "/ca")
    assert found.warnings == ()


def test_zero_is_no_interval(tmp_path: Path) -> None:
    keys = [f"{which}PollIntervalSeconds" for which in ("Update", "Inventory", "Retry")]
    found = configured(tmp_path, {**dict.fromkeys(keys, 0), "RetryDownloadCount": 0})
    assert found == Settings(found.places)


@pytest.mark.parametrize("value", ["", None])
@pytest.mark.parametrize("key", ["DeviceTier", "IdentityFormat", "KeyType", "TenantToken", "DaemonLogLevel"])
def test_an_empty_value_is_no_value(tmp_path: Path, key: str, value: str | None) -> None:
    found = configured(tmp_path, {key: value})
    assert found == Settings(found.places)


def test_an_empty_server_is_no_url(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match='The server "" is not a URL'):
        configured(tmp_path, {"Servers": [{"ServerURL": ""}]})


def test_the_paths_that_follow_from_others(tmp_path: Path) -> None:
    assert configured(tmp_path, {"UpdateLogPath": "/log"}).log_directory == "/log"


# Servers.

MAIN, OTHER = "https://main", "https://other"


def several(*urls: str) -> list[dict[str, str]]:
    return [{"ServerURL": url} for url in urls]


@pytest.mark.parametrize(
    ("main", "fallback", "servers"),
    [
        pytest.param({"ServerURL": MAIN}, {}, (MAIN,), id="one"),
        pytest.param({"ServerURL": "https://main//"}, {}, (MAIN,), id="slash at the end"),
        pytest.param({"ServerURL": "HTTPS://main"}, {}, ("HTTPS://main",), id="scheme in capitals"),
        pytest.param({"ServerURL": "http://main:8080"}, {}, ("http://main:8080",), id="without TLS"),
        pytest.param({"Servers": several(MAIN, OTHER)}, {}, (MAIN, OTHER), id="several, in order"),
        pytest.param({"servers": [{"serverurl": MAIN}]}, {}, (MAIN,), id="several, other case"),
        pytest.param({"Servers": several(MAIN, MAIN + "/")}, {}, (MAIN,), id="the same twice"),
        pytest.param({"Servers": []}, {}, (), id="several, none"),
        pytest.param({"Servers": several(OTHER), "ServerURL": ""}, {}, (OTHER,), id="ServerURL empty"),
        pytest.param({"ServerURL": MAIN}, {"Servers": several(OTHER)}, (MAIN,), id="URL replaces list"),
        pytest.param({"Servers": several(MAIN)}, {"ServerURL": OTHER}, (MAIN,), id="list replaces URL"),
        pytest.param({"TenantToken": ""}, {"Servers": several(OTHER)}, (OTHER,), id="from the fallback"),
        pytest.param({"ServerURL": ""}, {"ServerURL": OTHER}, (), id="disabled"),
    ],
)
def test_servers_of_the_main_file_replace_those_of_the_fallback(
    tmp_path: Path, main: Any, fallback: Any, servers: tuple[str, ...]
) -> None:
    found = configured(tmp_path, main, fallback)
    assert found.servers == servers
    assert found.warnings == ()


def test_both_forms_in_one_file_are_taken_with_a_warning(tmp_path: Path) -> None:
    found = configured(tmp_path, {"ServerURL": MAIN, "Servers": several(OTHER, MAIN)})
    assert found.servers == (MAIN, OTHER)
    assert len(found.warnings) == 1
    assert "ServerURL" in found.warnings[0]


@pytest.mark.parametrize(
    "url", ["main", "//main", "https:", "ftp://main", "https:main", "file:///main", " https://main"]
)
@pytest.mark.parametrize("key", ["ServerURL", "Servers"])
def test_what_is_no_url_is_refused(tmp_path: Path, key: str, url: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(f'"{url}"')):
        configured(tmp_path, {key: url if key == "ServerURL" else several(url)})


@pytest.mark.parametrize(
    "url",
    [
        "https:///path", "https://:443", "https://[::1", "https://a b", "https://a\\@b/", "https://a\\b", "https://a@b@c",
        "https://a/b\\c", "https://a..b", "https://.a", "https://a:b", "https://a:0", "https://a:65536", "https://[a]",
        "https://[::1]x", "https://a[b", "https://a<b", "https://a|b", "https://a%00b", "https://a\tb", "https://*.a",
        "https://" + "a" * 64,
    ],
)  # fmt: skip
def test_a_url_without_a_proper_host_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError):
        configured(tmp_path, {"ServerURL": url})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("https://ger\u00e4t.example", "https://xn--gert-noa.example"),
        ("https://GER\u00c4T.example:8443/a", "https://xn--gert-noa.example:8443/a"),
        ("https://\u4f8b\u3048.jp", "https://xn--r8jz45g.jp"),
        ("https://my_board.lan.test", "https://my_board.lan.test"),
        ("https://[FE80::1%25eth0]:8443", "https://[FE80::1%25eth0]:8443"),
    ],
)
def test_names_of_all_languages(tmp_path: Path, written: str, meant: str) -> None:
    assert configured(tmp_path, {"ServerURL": written}).servers == (meant,)


@pytest.mark.parametrize(
    "url", ["https://stra\u00dfe.example", "https://a\u200db.example", "https://a/\u00e4"]
)
def test_names_that_two_standards_read_differently(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match="xn--"):
        configured(tmp_path, {"ServerURL": url})


# Keys that belong together.


@pytest.mark.parametrize(
    ("main", "fallback", "keys"),
    [
        ({"ArtifactVerifyKey": "/a"}, {}, ("/a",)),
        ({"ArtifactVerifyKeys": ["/a", "/b"]}, {}, ("/a", "/b")),
        ({"ArtifactVerifyKey": "/a", "ArtifactVerifyKeys": ["/b"]}, {}, ("/a", "/b")),
        ({"ArtifactVerifyKey": "/a"}, {"ArtifactVerifyKeys": ["/b"]}, ("/a", "/b")),
        ({"ArtifactVerifyKeys": []}, {"ArtifactVerifyKeys": ["/b"]}, ()),
        ({"ArtifactVerifyKey": ""}, {}, ()),
    ],
)
def test_the_keys_for_artifacts(tmp_path: Path, main: Any, fallback: Any, keys: tuple[str, ...]) -> None:
    assert configured(tmp_path, main, fallback).artifact_verify_keys == keys


@pytest.mark.parametrize("half", [{"Certificate": "/c"}, {"Key": "/k"}, {"Certificate": "/c", "Key": ""}])
def test_half_a_client_certificate_is_refused(tmp_path: Path, half: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="both Certificate and Key"):
        configured(tmp_path, {"HttpsClient": half})


@pytest.mark.parametrize("section", ["HttpsClient", "Security"])
def test_hardware_keys_are_refused_not_ignored(tmp_path: Path, section: str) -> None:
    with pytest.raises(SettingsError, match="SSLEngine"):
        configured(tmp_path, {section: {"SSLEngine": "pkcs11"}})
    assert configured(tmp_path, {section: {"SSLEngine": ""}}).servers == ()


# Mistakes, and their places.

TEXTS = ["ServerURL", "ArtifactVerifyKey", *(key for key, _, value, _ in SCALARS if isinstance(value, str))]
NUMBERS = [key for key, *_ in SCALARS if key.endswith(("Seconds", "Count"))]
LISTS = ["Servers", "ArtifactVerifyKeys"]
NOT_TEXT: list[Any] = [5, 1.5, True, [], {}, ["https://a"]]
NOT_NUMBERS: list[Any] = ["5", "", 1.5, 5.0, True, [], {}, -1, 2**31 + 1, 10**30]
NOT_BOOLEANS: list[Any] = [0, 1, "true", "", [], {}]
NOT_OBJECTS: list[Any] = ["/c", 1, True, [], [{}]]
NOT_LISTS: list[Any] = ["/a", 5, True, {}, [5], [None], [[]], [{}], [{"URL": "https://a"}]]
WRONG: list[tuple[str, Any]] = [
    *((key, value) for key in TEXTS for value in NOT_TEXT),
    *((key, value) for key in NUMBERS for value in NOT_NUMBERS),
    *((key, value) for key in LISTS for value in NOT_LISTS),
    *(("SkipVerify", value) for value in NOT_BOOLEANS),
    *((key, value) for key in ("HttpsClient", "Security") for value in NOT_OBJECTS),
    ("Servers", ["https://a"]),
    ("Servers", [{"ServerURL": 5}]),
    ("DeviceTier", "huge"),
    ("KeyType", "dsa"),
    ("IdentityFormat", "lists"),
]


@pytest.mark.parametrize(("key", "value"), WRONG, ids=[f"{key}-{json.dumps(value)}" for key, value in WRONG])
def test_a_wrong_type_is_named_with_its_place(key: str, value: Any) -> None:
    text = '{\n  "User": 1,\n\n    "' + key + '" :  ' + json.dumps(value) + ',\n "x": 2\n}'
    sentence = mistake(text)
    column = len(f'    "{key}" :  ') + 1
    assert f"{key} must be " in sentence
    assert f"(line 4, column {column})" in sentence


@pytest.mark.parametrize(("section", "key"), [("HttpsClient", "Certificate"), ("Security", "AuthPrivateKey")])
def test_a_wrong_type_inside_a_section_is_named_with_its_place(section: str, key: str) -> None:
    sentence = mistake(f'{{\n"TenantToken": "",\n"{section}": {{\n\t"{key}": 5}}}}')
    assert f"{section}.{key} must be a string (line 4, column {len(key) + 6})" in sentence


@pytest.mark.parametrize("key", ["serverurl", "SERVERURL", "ServerURL"])
def test_the_place_is_found_whatever_the_case(key: str) -> None:
    assert "(line 2, column 14)" in mistake(f'{{\n"{key}": 5}}')


def test_the_same_word_as_a_value_does_not_disturb() -> None:
    text = r'{"TenantToken": "ServerURL", "RootfsPartA": "\"ServerURL\": 5",' + '\n"ServerURL": 5}'
    assert "(line 2, column 14)" in mistake(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param(
            '{"Servers": [{"ServerURL": "https://a"}],\n"ServerURL": 5}', (2, 14), id="inside a list"
        ),
        pytest.param('{"Connectivity": {"ServerURL": 1},\n"ServerURL": 5}', (2, 14), id="inside an object"),
        pytest.param('{"ServerURL": "https://a",\n"ServerURL": 5}', (2, 14), id="twice"),
        pytest.param('{"x": 1,\n"Server\\u0055RL": 5}', (2, 19), id="escaped"),
        pytest.param(
            '{"HttpsClient": {"x": {"Key": 1}},\n"HttpsClient": {"Certificate": "a",\n"Key": 5}}',
            (3, 8),
            id="section twice",
        ),
    ],
)
def test_the_place_is_that_of_the_key_itself(text: str, place: tuple[int, int]) -> None:
    assert f"(line {place[0]}, column {place[1]})" in mistake(text)


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        pytest.param("", 1, 1, id="empty"),
        pytest.param("\n\n", 3, 1, id="blank"),
        pytest.param("ServerURL=https://a", 1, 1, id="not JSON at all"),
        pytest.param('{"ServerURL": "https://a"', 1, 26, id="no end"),
        pytest.param('{\n  "ServerURL": "https://a"\n  "TenantToken": ""\n}', 3, 3, id="comma missing"),
        pytest.param("{\n  'ServerURL': 'a'\n}", 2, 3, id="other quotes"),
        pytest.param('{\n  // a comment\n  "ServerURL": "https://a"\n}', 2, 3, id="comment"),
        pytest.param('{"a": 1}\n{"b": 2}', 2, 1, id="two objects"),
        pytest.param('\ufeff{\n  "ServerURL": x}', 2, 16, id="behind a BOM"),
    ],
)
def test_what_is_not_json_is_named_with_its_place(text: str, line: int, column: int) -> None:
    assert f"at line {line}, column {column}" in mistake(text)


@pytest.mark.parametrize("text", ["[]", '"{}"', "5", "null", "true", '[{"ServerURL": "https://a"}]'])
def test_what_is_not_an_object_is_refused(text: str) -> None:
    assert "line 1, column 1" in mistake(text)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("{}".encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"TenantToken": "\xff"}', id="Latin-1"),
        pytest.param(b"\xff\xfe", id="another BOM"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b'{"x":' * 100_000 + b"1" + b"}" * 100_000, id="deep and whole"),
        pytest.param(b'{"RetryPollCount": ' + b"9" * 10_000 + b"}", id="endless number"),
    ],
)
def test_what_cannot_be_json_is_refused(content: bytes) -> None:
    assert "is not JSON" in mistake(content)


def test_a_bom_does_not_disturb(tmp_path: Path) -> None:
    (tmp_path / "etc.conf").write_bytes(b'\xef\xbb\xbf{"ServerURL": "https://a"}')
    assert load(places(tmp_path)).servers == ("https://a",)
    assert "(line 1, column 15)" in mistake('\ufeff{"ServerURL": 5}')


def test_the_file_with_the_mistake_is_named(tmp_path: Path) -> None:
    for name in ("etc.conf", "lib.conf"):
        (tmp_path / name).write_text('{"ServerURL": 5}')
        with pytest.raises(SettingsError, match=f"{name}.*line 1, column 15"):
            load(places(tmp_path))
        (tmp_path / name).unlink()


def test_a_directory_in_place_of_the_file_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "etc.conf").mkdir()
    with pytest.raises(SettingsError):
        load(places(tmp_path))


@pytest.mark.parametrize("size", [2 << 20], ids=["2 MiB"])
def test_a_file_too_large_is_a_mistake(tmp_path: Path, size: int) -> None:
    (tmp_path / "etc.conf").write_bytes(b" " * size)
    with pytest.raises(SettingsError, match="larger than"):
        load(places(tmp_path))


@pytest.mark.parametrize("value", ["/a\0b", "/a\ud800b"], ids=["NUL", "half a character"])
@pytest.mark.parametrize("key", ["ServerCertificate", "DeviceTypeFile", "UpdateLogPath", "ArtifactVerifyKey"])
def test_a_path_that_cannot_be_is_a_mistake(key: str, value: str) -> None:
    assert key in mistake(json.dumps({key: value}))


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    plain, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=8), x), max_leaves=6
)
KEYS = [key for key, *_ in SCALARS] + [
    "ServerURL",
    "Servers",
    "ArtifactVerifyKeys",
    "HttpsClient",
    "Security",
]


def outcome(content: bytes) -> dict[str, Any] | str:
    """What a file holds, or the sentence about the mistake in it; both name the file."""
    said: list[str] = []
    try:
        found = parse("m.conf", content, said)
    except SettingsError as error:
        said.append(str(error))
        return str(error)
    finally:
        assert all("m.conf" in sentence for sentence in said)
    return found


@given(st.binary(max_size=100))
@example(b"\xef\xbb\xbf")
@example(b"\0" * 64)
@examples(deadline=None)
def test_any_bytes_are_a_configuration_or_a_mistake(content: bytes) -> None:
    outcome(content)


@given(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), values))
@examples(deadline=None)
def test_any_object_is_a_configuration_or_a_mistake(members: dict[str, Any]) -> None:
    found = outcome(json.dumps(members).encode())
    if isinstance(found, str):
        assert re.search(r"line \d+, column \d+", found)
    else:
        assert set(found) <= set(Settings._fields) | {"server_url", "ssl_engine", "artifact_verify_key"}


# Keys that mean nothing here.


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("ServerUrl1", "ServerURL"),
        ("Server", "Servers"),
        ("UpdatePollIntervalSecond", "UpdatePollIntervalSeconds"),
        ("UpdatePollInterval", "UpdatePollIntervalSeconds"),
        ("tenanttokn", "TenantToken"),
        ("Skip_Verify", "SkipVerify"),
        ("ArtifactVerifKeys", "ArtifactVerifyKeys"),
        ("RootFsPart_A", "RootfsPartA"),
    ],
)
def test_an_unknown_key_is_a_warning_with_the_nearest(key: str, nearest: str) -> None:
    (said,) = warnings(json.dumps({key: 1}))
    assert "m.conf" in said
    assert f"key {key} is not known" in said
    assert f"did you mean {nearest}?" in said


def test_an_unknown_key_in_a_section_is_a_warning_too() -> None:
    (said,) = warnings('{"HttpsClient": {"Certificat": "/c"}}')
    assert "did you mean HttpsClient.Certificate?" in said


def test_an_unknown_key_like_no_other_is_a_warning_alone() -> None:
    (said,) = warnings('{"zzz": 1}')
    assert "zzz" in said
    assert "did you mean" not in said


def test_warnings_come_with_the_settings(tmp_path: Path) -> None:
    found = configured(tmp_path, {"Colour": "red", "TenantToken": "t"}, {"Size": 5})
    assert found.tenant_token == "t"
    assert [name for warning in found.warnings for name in ("Colour", "Size") if name in warning] == [
        "Size",
        "Colour",
    ]


OF_OTHERS: dict[str, Any] = {
    "Connectivity": {"DisableKeepAlive": True, "IdleConnTimeoutSeconds": 5},
    "BootUtilitiesSetActivePart": "x",
    "BootUtilitiesGetNextActivePart": "x",
    "DBus": {"Enabled": False},
    "UpdateControlMapExpirationTimeSeconds": 1,
    "UpdateControlMapBootExpirationTimeSeconds": 1,
    "UpdateControlMapPollIntervalSeconds": 1,
    "RemoteTerminal": True,
    "ShellCommand": "/bin/sh",
    "User": "root",
}


@pytest.mark.parametrize("value", [None, "whatever"], ids=["as meant", "of any type"])
@pytest.mark.parametrize("key", OF_OTHERS)
def test_the_keys_of_the_reference_clients_pass_in_silence(key: str, value: object) -> None:
    value = OF_OTHERS[key] if value is None else value
    assert warnings(json.dumps({key: value, key.lower(): value})) == []


# The places.


def test_the_places_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MENDER_CONF_DIR", "MENDER_DATA_DIR", "MENDER_DATASTORE_DIR"):
        monkeypatch.delenv(name, raising=False)
    usual = find_places()
    assert usual == Places(
        "/etc/mender/mender.conf", "/var/lib/mender/mender.conf", False, "/etc/mender", "/usr/share/mender",
        "/var/lib/mender",
    )  # fmt: skip
    monkeypatch.setenv("MENDER_CONF_DIR", "/c")
    monkeypatch.setenv("MENDER_DATA_DIR", "/s")
    monkeypatch.setenv("MENDER_DATASTORE_DIR", "/d")
    assert find_places() == Places("/c/mender.conf", "/d/mender.conf", False, "/c", "/s", "/d")
    assert find_places("/m", "/f", "/x") == Places("/m", "/f", True, "/c", "/s", "/x")
    assert find_places(datastore="/x").fallback == "/x/mender.conf"
    monkeypatch.chdir("/tmp")
    assert find_places(datastore="x").datastore == "/tmp/x"


# Forms that the readers of the Go and the C++ client take without a word.
TAKEN_ELSEWHERE = [
    ('{"ServerURL": "https://a", "TenantToken": null}', {"tenant_token": ""}),
    ('{"ServerURL": "https://a", "Servers": null}', {"servers": ("https://a",)}),
    ('{"ServerURL": "https://a", "HttpsClient": null, "Security": null}', {"client_key": ""}),
    ('{"ServerURL": "https://a", "HttpsClient": {"Certificate": null, "Key": null}}', {"client_key": ""}),
    ('{"ServerURL": "https://a", "SkipVerify": null}', {"skip_verify": False}),
    ('{"ServerURL": "https://a", "ArtifactVerifyKeys": null}', {"artifact_verify_keys": ()}),
    ('{"ServerURL": "https://a", "RetryPollCount": null}', {"retry_poll_count": 0}),
    ('{"ServerURL": "https://a", "ServerURL": "https://b"}', {"servers": ("https://b",)}),
    ('{"ServerURL": "https:\\/\\/a"}', {"servers": ("https://a",)}),
    ('\ufeff {"ServerURL": "https://a"} \r\n\t', {"servers": ("https://a",)}),
    ('{"ServerURL": "https://a", "ModuleTimeoutSeconds": null}', {"servers": ("https://a",)}),
]


@pytest.mark.parametrize(("text", "fields"), TAKEN_ELSEWHERE)
def test_what_the_other_clients_take_is_taken(tmp_path: Path, text: str, fields: dict[str, Any]) -> None:
    (tmp_path / "mender.conf").write_text(text)
    settings = load(find_places(str(tmp_path / "mender.conf"), datastore=str(tmp_path / "data")))
    assert settings.warnings == ()
    assert {name: getattr(settings, name) for name in fields} == fields


@pytest.mark.parametrize(
    "member",
    ['"UpdatePollIntervalSeconds": 1.5', '"UpdatePollIntervalSeconds": true', '"RetryPollCount": "1"']
    + ['"ArtifactVerifyKeys": [null]', '"Servers": [null]', '"HttpsClient": []', '"TenantToken": 1'],
)
def test_a_value_of_the_wrong_type_is_still_rejected_by_its_place(tmp_path: Path, member: str) -> None:
    (tmp_path / "mender.conf").write_text(f'{{"ServerURL": "https://a",\n {member}}}')
    with pytest.raises(SettingsError, match="line 2, column "):
        load(find_places(str(tmp_path / "mender.conf"), datastore=str(tmp_path / "data")))
