"""`mender-connect.conf`: files of both other clients, merging, and messages for errors."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mender_oneshot import errors
from mender_oneshot.paths import TERMINAL_CONFIG, Places
from mender_oneshot.terminal.settings import FileLimits, TerminalSettings, load


def read(root: Path, main: Any = None, fallback: Any = None) -> TerminalSettings:
    for directory, members in ((root / "etc", main), (root / "lib", fallback)):
        directory.mkdir(exist_ok=True)
        if members is not None:
            text = members if isinstance(members, str) else json.dumps(members)
            (directory / TERMINAL_CONFIG).write_text(text)
    return load(Places("", "", False, str(root / "etc"), "/nowhere", str(root / "lib")))


def test_without_a_file_the_terminal_is_disabled(tmp_path: Path) -> None:
    assert read(tmp_path) == TerminalSettings()
    assert not read(tmp_path).on


@pytest.mark.parametrize("value", [True, "True", "true", "TRUE", 1, "1", "yes", "Yes"])
def test_remote_terminal_enables_it_in_all_spellings(tmp_path: Path, value: object) -> None:
    assert read(tmp_path, {"RemoteTerminal": value}).on
    assert read(tmp_path, {"remoteterminal": value}).on


@pytest.mark.parametrize("value", [False, "False", 0, "no", "", None, [], "on", 1.0, {}])
def test_any_other_value_of_remote_terminal_disables_it(tmp_path: Path, value: object) -> None:
    assert not read(tmp_path, {"RemoteTerminal": value, "User": "root", "Terminal": {"Width": 1}}).on


@pytest.mark.parametrize(
    ("members", "on"),
    [
        ({"ShellCommand": "/bin/bash", "User": "nobody"}, True),  # as in Debian's mender-connect
        ({"User": "nobody", "Sessions": {"MaxPerUser": 3}}, True),
        ({"ShellCommand": "/bin/bash"}, False),  # as a file of mender-python-client without RemoteTerminal
        ({}, False),
    ],
)
def test_without_remote_terminal_only_user_enables_it(tmp_path: Path, members: Any, on: bool) -> None:
    assert read(tmp_path, members).on is on


def test_a_file_for_mender_connect_must_name_the_user(tmp_path: Path) -> None:
    with pytest.raises(errors.SettingsError, match="does not name the user"):
        read(tmp_path, {"Terminal": {"Width": 80}})


def test_a_file_of_mender_python_client_needs_no_user(tmp_path: Path) -> None:
    found = read(tmp_path, {"RemoteTerminal": "True", "ShellCommand": "/bin/bash"})
    assert (found.on, found.user, found.shell) == (True, "", "/bin/bash")


def test_both_files_are_merged_key_by_key_inside_objects_too(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        {"User": "a", "Terminal": {"Width": 1}, "Limits": {"FileTransfer": {"OwnerGet": ["x"]}}},
        {
            "User": "b",
            "Terminal": {"Width": 9, "Height": 2},
            "Limits": {"Enabled": True, "FileTransfer": {"OwnerGet": ["y", "z"], "Chroot": "/data"}},
        },
    )
    assert (found.user, found.width, found.height) == ("a", 1, 2)
    assert found.limits == FileLimits(enabled=True, owner_get=("x",), chroot="/data")


def test_every_key_has_its_effect_in_any_case(tmp_path: Path) -> None:
    members = {
        "usEr": "me",
        "SHELLCOMMAND": "/bin/bash",
        "ShellArguments": [],
        "terminal": {"WIDTH": 1, "height": 2, "Disable": True},
        "Sessions": {"StopExpired": True, "ExpireAfter": 3, "ExpireAfterIdle": 4, "MaxPerUser": 5},
        "FileTransfer": {"Disable": True},
        "PortForward": {"Disable": True},
        "MenderClient": {"Disable": True},
        "ReconnectIntervalSeconds": 5,
        "Limits": {
            "Enabled": True,
            "FileTransfer": {
                "Chroot": "/c",
                "FollowSymLinks": True,
                "AllowOverwrite": True,
                "OwnerPut": "a",
                "GroupPut": "b",
                "OwnerGet": ["c"],
                "GroupGet": ["d"],
                "MaxFileSize": 6,
                "Counters": {"MaxBytesTxPerMinute": 7, "MaxBytesRxPerMinute": 8},
                "AllowSuid": True,
                "RegularFilesOnly": True,
                "Umask": "027",
                "PreserveMode": False,
                "PreserveOwner": False,
            },
        },
    }
    limits = FileLimits(True, "/c", True, True, "a", "b", ("c",), ("d",), 6, 7, 8, True, True, 0o27)
    assert read(tmp_path, members) == TerminalSettings(
        (), True, "/bin/bash", (), "me", 1, 2, True, 3, 4, 5, True, True, True, limits
    )


def test_nothing_and_zero_mean_the_default(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        {
            "User": "me",
            "ShellCommand": "",
            "ShellArguments": None,
            "Terminal": {"Width": 0, "Height": 0},
            "Sessions": {"MaxPerUser": 0},
        },
    )
    assert found == TerminalSettings(on=True, user="me")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{\n "User": 5}', "User must be a string (line 2, column 10)"),
        ('{"Terminal": {"Width": "80"}}', "Terminal.Width must be a whole number from 0 to 65535"),
        ('{"Terminal": {"Width": 65536}}', "Terminal.Width must be a whole number from 0 to 65535"),
        ('{"Terminal": {"Disable": "true"}}', "Terminal.Disable must be true or false"),
        ('{"Terminal": []}', "Terminal must be an object (line 1, column 14)"),
        ('{"Limits": {"FileTransfer": {"Umask": "9"}}}', "Umask must be an octal number in quotes"),
        ('{"Limits": {"FileTransfer": {"Umask": 18}}}', "Umask must be an octal number in quotes"),
        ('{"Limits": {"FileTransfer": {"OwnerGet": "me"}}}', "OwnerGet must be a list of strings"),
        ('{"User": "me", "Limits": {"FileTransfer": {"Chroot": "data"}}}', "not an absolute path"),
        ('{"User": "me"', "is not JSON"),
        ("[]", "must hold one JSON object"),
    ],
)
def test_an_invalid_value_is_reported_with_its_position(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(errors.SettingsError) as caught:
        read(tmp_path, text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_keys_are_warnings(tmp_path: Path) -> None:
    members = {"User": "me", "ShelCommand": "x", "ServerURL": "https://x", "Sessions": {"MaxPerUsr": 1}}
    first, second, third = read(tmp_path, members).warnings
    assert "ShelCommand is not known; did you mean ShellCommand?" in first
    assert "ServerURL belongs in mender.conf" in second
    assert "Sessions.MaxPerUsr is not known; did you mean Sessions.MaxPerUser?" in third


@pytest.mark.parametrize(("stop", "expected"), [(True, (5, 6)), (None, (5, 6)), (False, (0, 0))])
def test_sessions_expire_unless_stop_expired_is_false(tmp_path: Path, stop: object, expected: object) -> None:
    sessions = {"ExpireAfter": 5, "ExpireAfterIdle": 6} | ({} if stop is None else {"StopExpired": stop})
    found = read(tmp_path, {"User": "me", "Sessions": sessions})
    assert (found.expire_after, found.expire_idle) == expected


names = st.sampled_from(
    ["RemoteTerminal", "User", "Terminal", "Width", "Limits", "FileTransfer", "Umask", "Counters", "Sessions"]
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(names, json_values, max_size=5))
def test_any_content_is_settings_or_an_error_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, members: dict[str, Any]
) -> None:
    said = ""
    try:
        read(tmp_path_factory.mktemp("conf"), members)
    except errors.SettingsError as error:
        said = str(error)
    assert "\n" not in said
