"""The values that `setup` writes: read from the options of its command line, and checked."""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from . import disk, errors, key_values
from .url import is_url, origin, to_ascii

HOSTED = "https://hosted.mender.io"
HOSTED_EU = "https://eu.hosted.mender.io"
FIRST_RELEASE = "initial"
"""The name of the installed software if it has none yet."""

_LONGEST_NAME = 255
_LONGEST_TOKEN = 65536
_INTERVALS = {
    "UpdatePollIntervalSeconds": "update_poll",
    "InventoryPollIntervalSeconds": "inventory_poll",
    "RetryPollIntervalSeconds": "retry_poll",
}


class Values(NamedTuple):
    """What to write; "" and 0 keep what the device has."""

    server_url: str = ""
    server_certificate: str = ""
    tenant_token: str = ""
    device_type: str = ""
    artifact_name: str = ""
    update_poll: int = 0
    inventory_poll: int = 0
    retry_poll: int = 0
    scripts: bool = True
    schedule: bool = False


def from_options(given: Mapping[str, Any]) -> Values:
    """Return the values of the command line; raise `errors.UsageError` for one that cannot be used."""
    servers = [HOSTED] if given["hosted_mender"] else []
    servers += [HOSTED_EU] if given["hosted_mender_eu"] else []
    servers += [given["server_url"]] if given["server_url"] else []
    if len(servers) > 1:
        raise errors.UsageError(
            "Only one of --hosted-mender, --hosted-mender-eu and --server-url can be used; remove the others."
        )
    if given["tenant_token"] and given["tenant_token_file"]:
        raise errors.UsageError("Use --tenant-token or --tenant-token-file, but not both.")
    token = token_in(given["tenant_token_file"]) if given["tenant_token_file"] else given["tenant_token"]
    values = Values(
        update_poll=given["update_poll"] or 0,
        inventory_poll=given["inventory_poll"] or 0,
        retry_poll=given["retry_poll"] or 0,
        server_url=checked_url(servers[0]) if servers else "",
        server_certificate=os.path.abspath(given["server_cert"]) if given["server_cert"] else "",
        tenant_token=checked_token(token) if token else "",
        device_type=checked_name("device type", given["device_type"]) if given["device_type"] else "",
        artifact_name=checked_name("artifact name", given["artifact_name"]) if given["artifact_name"] else "",
        scripts=not given["no_scripts"],
        schedule=given["schedule"],
    )
    return with_demo_polling(values) if given["demo_polling"] else values


def with_demo_polling(values: Values) -> Values:
    """Set the intervals that are not set to those of `mender-setup --demo-polling`."""
    return values._replace(
        update_poll=values.update_poll or 5,
        inventory_poll=values.inventory_poll or 5,
        retry_poll=values.retry_poll or 30,
    )


def checked_url(url: str) -> str:
    """Return the https URL of a server, without a slash at its end; raise `errors.UsageError`."""
    url = url.strip().rstrip("/")
    found = origin(to_ascii(url))
    if found is None:
        advice = "" if is_url(url) or "://" in url else f"; did you mean https://{url}?"
        raise errors.UsageError(f"The server must be a URL such as https://mender.example.com{advice or '.'}")
    if found.scheme != "https":
        raise errors.UsageError("The server must be an https URL, because http is not encrypted.")
    if "@" in url or "?" in url or "#" in url:
        raise errors.UsageError("The URL of the server must not contain a login, a query or a fragment.")
    return url


def checked_name(what: str, name: str) -> str:
    """Return a device type or an artifact name, which is one printable word; raise `errors.UsageError`."""
    if not name.isprintable() or " " in name or not 0 < len(name.encode()) <= _LONGEST_NAME:
        raise errors.UsageError(
            f"The {what} must be one word of at most {_LONGEST_NAME} bytes, without blanks and control "
            "characters; choose another one."
        )
    return name


def checked_token(token: str) -> str:
    """Return a tenant token without the blanks around it; the error does not contain it."""
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise errors.UsageError(
            "The tenant token must be one word of printable ASCII characters; copy it again from the server."
        )
    return token


def token_in(path: str) -> str:
    """Return the tenant token in a file, or on stdin for `-`."""
    if path == "-":
        with open(0, "rb", closefd=False) as stdin:
            content: bytes | None = stdin.read(_LONGEST_TOKEN)
    else:
        content = disk.read(path, _LONGEST_TOKEN)
    if content is None:
        raise errors.UsageError(f"There is no file {path}; correct --tenant-token-file.")
    if not content.strip():
        name = "stdin" if path == "-" else path
        raise errors.UsageError(f"There is no tenant token in {name}; correct --tenant-token-file.")
    return content.decode("ascii", "replace")


class Present(NamedTuple):
    """What the device has already."""

    configuration: Mapping[str, Any] = {}  # the members of mender.conf
    device_type: str = ""

    def member(self, name: str) -> Any:
        """Return a member of `mender.conf`, whatever the case of its key, or None."""
        found = [value for key, value in self.configuration.items() if key.lower() == name.lower()]
        return found[-1] if found else None

    @property
    def server_url(self) -> str:
        """The first server, "" if there is none."""
        url = self.member("ServerURL")
        servers = self.member("Servers")
        if not url and isinstance(servers, list) and servers and isinstance(servers[0], dict):
            url = Present(servers[0]).member("ServerURL")
        return url.rstrip("/") if isinstance(url, str) else ""


def complete(values: Values, present: Present) -> Values:
    """Take what was not specified from the device; raise `errors.UsageError` for what is missing."""
    if not values.server_url and not present.server_url:
        raise errors.UsageError("No server was specified; use --hosted-mender or --server-url URL.")
    if not values.device_type and not present.device_type:
        raise errors.UsageError("No device type was specified; use --device-type TYPE.")
    keeps_token = not values.server_url or values.server_url == present.server_url
    has_token = values.tenant_token or (keeps_token and present.member("TenantToken"))
    if values.server_url in (HOSTED, HOSTED_EU) and not has_token:
        raise errors.UsageError("Hosted Mender needs a tenant token; use --tenant-token-file FILE.")
    return values._replace(device_type=values.device_type or present.device_type)


def configuration(values: Values, present: Present) -> dict[str, Any]:
    """Return the members of `mender.conf`; those that `setup` does not set stay.

    The token and the certificate of another server are dropped.
    """
    wanted: dict[str, Any] = {}
    dropped = set()
    if values.server_url and values.server_url != present.server_url:
        wanted["ServerURL"] = values.server_url
        dropped = {"serverurl", "servers", "tenanttoken", "servercertificate"}
    if values.server_certificate:
        wanted["ServerCertificate"] = values.server_certificate
    if values.tenant_token:
        wanted["TenantToken"] = values.tenant_token
    for key, field in _INTERVALS.items():
        if seconds := getattr(values, field):
            wanted[key] = seconds
    dropped |= {key.lower() for key in wanted}
    return wanted | {key: value for key, value in present.configuration.items() if key.lower() not in dropped}


def as_file(members: Mapping[str, Any]) -> bytes:
    """Return the content of `mender.conf`."""
    return (json.dumps(members, indent=2, ensure_ascii=False) + "\n").encode()


def device_type_in(content: bytes | None) -> str:
    """Return the device type in the content of its file, or ""."""
    text = (content or b"").decode("utf-8-sig", "replace")
    return key_values.parse(text, strip=True).get("device_type", [""])[-1]
