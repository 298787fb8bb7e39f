"""Ask a person at a terminal for the values of `setup`."""

import termios
from collections.abc import Callable, Sequence
from typing import NoReturn

from . import errors
from .new_files import NewFile
from .setup_values import (
    FIRST_RELEASE,
    HOSTED,
    HOSTED_EU,
    Present,
    Values,
    checked_name,
    checked_token,
    checked_url,
    with_demo_polling,
)

INTRODUCTION = (
    "This writes the configuration of a Mender device. Enter takes the value in brackets, Ctrl-C stops.",
    "Nothing is written before the last question.",
)
_DEVELOPMENT_SERVER = "https://127.0.0.1:8443"
_SERVERS = {
    "1": ("hosted Mender, US (hosted.mender.io)", HOSTED),
    "2": ("hosted Mender, EU (eu.hosted.mender.io)", HOSTED_EU),
    "3": ("your own server", ""),
    "4": ("the development server (mender-oneshot-devserver)", _DEVELOPMENT_SERVER),
}


def fill(values: Values, present: Present, *, host_name: str, has_artifact: bool) -> Values:
    """Ask for each value that the command line does not have; raise `errors.Error` if the input ends."""
    if not values.server_url:
        values = _server(values, present)
    hosted = (values.server_url or present.server_url) in (HOSTED, HOSTED_EU)
    if not values.tenant_token and _lacks_token(values, present):
        values = values._replace(tenant_token=_token(required=hosted))
    if not values.device_type:
        offered = present.device_type or host_name
        values = values._replace(
            device_type=_until_valid("Device type", offered, lambda text: checked_name("device type", text))
        )
    if not has_artifact and not values.artifact_name:
        values = values._replace(
            artifact_name=_until_valid(
                "Name of the installed release", FIRST_RELEASE, lambda text: checked_name("release", text)
            )
        )
    intervals = (values.update_poll, values.inventory_poll, values.retry_poll)
    if not any(intervals) and yes("Poll as often as possible, to try it out?", default=False):
        values = with_demo_polling(values)
    return values


def _lacks_token(values: Values, present: Present) -> bool:
    """Return whether to ask for a token: the development server needs none, and the same server keeps it."""
    if values.server_url == _DEVELOPMENT_SERVER:
        return False
    other = values.server_url not in ("", present.server_url)
    return other or not present.member("TenantToken")


def _server(values: Values, present: Present) -> Values:
    print("Server:")
    for number, (text, _) in _SERVERS.items():
        print(f"  {number}  {text}")
    default = "1"
    if present.server_url:
        print(f"  5  keep {present.server_url}")
        default = "5"
    number = _until_valid("Number", default, lambda text: _one_of(text, [*_SERVERS, default]))
    if number not in _SERVERS:
        return values
    url = _SERVERS[number][1]
    if number in "34":
        values = values._replace(server_url=_until_valid("URL of the server", url, checked_url))
        if not values.server_certificate:
            path = ask("File with its CA certificate (empty if the system trusts it)")
            values = values._replace(server_certificate=path)
        return values
    return values._replace(server_url=url)


def _one_of(text: str, choices: list[str]) -> str:
    if text not in choices:
        raise errors.UsageError("Choose one of the numbers.")
    return text


def _token(*, required: bool) -> str:
    print("Tenant token, in the UI under Organization > Organization token; it is not shown here.")
    while True:
        try:
            token = _hidden("Tenant token: " if required else "Tenant token (empty for none): ")
            if not token and not required:
                return ""
            return checked_token(token)
        except errors.UsageError as error:
            print(error)
        except EOFError:
            _ended()


def _hidden(question: str) -> str:
    """Return an answer that the terminal does not show; raise `EOFError` if there is none."""
    before = termios.tcgetattr(0)
    silent = termios.tcgetattr(0)
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(0, termios.TCSAFLUSH, silent)
    try:
        return input(question)
    finally:
        termios.tcsetattr(0, termios.TCSAFLUSH, before)
        print()


def _until_valid(question: str, default: str, check: Callable[[str], str]) -> str:
    while True:
        try:
            return check(ask(question, default))
        except errors.UsageError as error:
            print(error)


def ask(question: str, default: str = "") -> str:
    """Return the answer without the blanks around it, or the default for an empty one."""
    try:
        return input(f"{question} [{default}]: " if default else f"{question}: ").strip() or default
    except EOFError:
        _ended()


def _ended() -> NoReturn:
    raise _NoMoreInput


class _NoMoreInput(errors.Error):
    """The terminal was closed, or Ctrl-D was pressed."""

    exit_code = errors.UsageError.exit_code
    word = errors.UsageError.word

    def __init__(self) -> None:
        super().__init__("The input ended before the last answer, so nothing was written; run it again.")


def confirm(files: Sequence[NewFile]) -> bool:
    """Show the files that are about to be written; return whether the person agrees."""
    replaced = any(file.copy for file in files)
    for file in files:
        print(f"  replace  {file.path} (copy: {file.copy})" if file.copy else f"  write    {file.path}")
    return yes("Write these files?", default=not replaced)


def yes(question: str, *, default: bool) -> bool:
    """Return whether the answer is yes."""
    while True:
        answer = ask(f"{question} [{'Y/n' if default else 'y/N'}]").lower()
        if answer in ("", "y", "yes", "n", "no"):
            return answer.startswith("y") if answer else default
        print("Answer y or n.")
