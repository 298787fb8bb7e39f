"""Remove secrets from text and JSON values that a user may send to others."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

REMOVED = "(removed)"
SHORTEST = 6
"""Characters of a known secret that is removed wherever it occurs; shorter ones would change other words."""

_NAMES = (
    r"[\w-]*(?:token|passw(?:or)?d|passphrase|secret|signature|credentials?|api[_-]?key|jwt|authorization)"
)
_SECRET_NAME = re.compile(rf"{_NAMES}|X-Amz-[\w-]+", re.IGNORECASE)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_URL = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*://)([^\s\"'<>]+)")
_QUERY = re.compile(r"\?[^\s\"'<>=?]{1,80}=[^\s\"'<>]*")
_LOGIN = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{4,}", re.IGNORECASE)
_JWT = re.compile(r"\beyJ[\w-]+(?:\.[\w-]*){1,2}")
_NAMED = re.compile(rf"(\b{_NAMES}[\"']?\s*(?:=|:)\s*)(?:\"[^\"]*\"|'[^']*'|[^\s\"',;&<>]+)", re.IGNORECASE)


class Redactor:
    """Removes known secrets, and what looks like one: keys, tokens, logins and queries of URLs."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = {secret for secret in secrets if len(secret) >= SHORTEST}
        self._known = sorted(known, key=len, reverse=True)

    def text(self, text: str) -> str:
        """Return a text without secrets."""
        text = _PRIVATE_KEY.sub(REMOVED, text)
        for secret in self._known:
            text = text.replace(secret, REMOVED)
        text = _URL.sub(lambda match: match[1] + _without_secrets(match[2]), text)
        for pattern in (_QUERY, _LOGIN, _JWT):
            text = pattern.sub(REMOVED, text)
        return _NAMED.sub(rf"\g<1>{REMOVED}", text)

    def value(self, value: Any) -> Any:
        """Return a JSON value without secrets, and without the members that have the name of one."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                key: REMOVED
                if isinstance(inner, str) and inner and _SECRET_NAME.fullmatch(str(key))
                else self.value(inner)
                for key, inner in value.items()
            }
        return [self.value(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _without_secrets(rest: str) -> str:
    """Return what follows the scheme of a URL, without a login, a query and a fragment."""
    end = min((rest.find(mark) for mark in "?#" if mark in rest), default=len(rest))
    login, separator, place = rest[:end].rpartition("@")
    removed = f"{REMOVED}@" if separator and login else ""
    return f"{removed}{place}" + (f"?{REMOVED}" if end < len(rest) else "")
