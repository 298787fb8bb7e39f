"""The host of a URL, without `urllib.parse`, which would import `re` in every run that finds nothing due."""


def host(url: str) -> str:
    """Return host and port for a message; never the login or the query, which can hold secrets."""
    rest = url.partition("://")[2]
    for end in "/?#":
        rest = rest.partition(end)[0]
    return rest.rpartition("@")[2] or "the server"
