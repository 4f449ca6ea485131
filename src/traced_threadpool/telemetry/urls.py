"""Base URLs that a user gives: checked, joined with a path, and never shown with a secret in them.

Whatever logs a request logs its URL. So credentials are taken out of it, into a header, and a query and a fragment are
refused. An error message shows the parts of a URL that cannot be any of these:

>>> shown("https://collector.example:4318/tenant")
'https://collector.example:4318/tenant'
>>> shown("http://bob:hunter2@gateway:9091"), shown("http://gateway/?token=hunter2"), shown("http://bob:hunter2")
('http://***@gateway:9091', 'http://gateway/?***', 'http://***')

A path of the URL's own comes first, with one slash between the two:

>>> base = checked("gateway", "http://bob:hunter2@proxy/tenant/", example="http://localhost:9091")
>>> base.joined("/metrics"), base.authorization
('http://proxy/tenant/metrics', 'Basic Ym9iOmh1bnRlcjI=')
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

_HOST: Final = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?"
_PLAIN: Final = re.compile(rf"{_HOST}(?:/[^\s@?#\\]*)?")
_SCHEME: Final = re.compile(r"https?://", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^\s@:/\[\]%]+)(?::[0-9]*)?")  # also in other scripts
_ANY_URL: Final = re.compile(r"[^\s'\"<>]+://[^\s'\"<>]*[^\s'\"<>,.;]")
_CREDENTIAL: Final = re.compile(
    r"((?:\b(?:bearer|basic)\s+)|(?:(?:token|secret|password|passwd|authorization|key|sig|signature)[\"']?\s*[:=]\s*"
    r"(?:(?:bearer|basic)\s+)?))[^\s,;&]+",
    re.IGNORECASE,
)
_KEPT_IN_PATH: Final = "/%:!$&'()*+,;=~"


def shown(url: str) -> str:
    """The URL without credentials, query values and fragment, whatever its form."""
    scheme = _SCHEME.match(url)
    start = scheme.group() if scheme else ""
    rest = url[len(start) :]
    if not rest or _PLAIN.fullmatch(rest):
        return url
    before, mark, after = _at_query(rest)
    if not mark and _PLAIN.fullmatch(host := rest.rpartition("@")[2]):
        return f"{start}***@{host}"
    if mark and "@" not in after and _PLAIN.fullmatch(before):
        return f"{start}{before}{mark}***"
    return f"{start}***"


def without_secrets(text: str) -> str:
    """What somebody else says, without what looks like a credential in it: for a receiver may repeat what it was sent.

    >>> without_secrets("no tenant at https://bob:hunter2@host/?key=1, token=hunter2 or Bearer hunter2")
    'no tenant at https://***, token=*** or Bearer ***'
    """
    return _CREDENTIAL.sub(r"\1***", _ANY_URL.sub(lambda found: shown(found.group()), text))


def _at_query(text: str) -> tuple[str, str, str]:
    found = re.search("[?#]", text)
    return (text, "", "") if found is None else (text[: found.start()], found.group(), text[found.end() :])


@dataclass(frozen=True, slots=True)
class Base:
    """A base URL without credentials, and the header `Authorization` that these make."""

    parts: SplitResult
    authorization: str | None = field(repr=False)

    def joined(self, path: str) -> str:
        """The URL with `path`, empty or beginning with a slash, after its own."""
        return self.parts._replace(path=self.parts.path + path).geturl()


def checked(source: str, url: object, *, example: str) -> Base:
    """What a base URL says.

    Args:
        source: The argument or the variable that it comes from.
        url: What was given.
        example: What a message shows as right.

    Raises:
        TypeError: `url` is not a string.
        ValueError: It is not an `http://` or `https://` URL that can be used as a base.
    """
    expected = f"expected a base URL such as {example!r}"
    if not isinstance(url, str):
        value = f"={url!r}" if isinstance(url, (int, float)) else ""
        raise TypeError(f"{source}{value} is of type {type(url).__name__}; {expected}")
    found = f"{source}={shown(url)!r}"
    if "://" not in url:
        write = f"; write {'http://' + url.strip()!r}" if _PLAIN.fullmatch(url.strip()) else ""
        raise ValueError(f"{found} has no scheme; {expected}{write}")
    parts, fault = _parse(url)
    if parts is None:
        raise ValueError(f"{found} is not a URL ({fault}); {expected}")
    if "?" in url or "#" in url:
        kind = "query" if "?" in url else "fragment"
        raise ValueError(f"{found} has a {kind}, which a base URL cannot have; {expected}")
    credentials, at, address = parts.netloc.rpartition("@")
    can_work = parts.scheme in ("http", "https") and _ADDRESS.fullmatch(address) and parts.port != 0
    if not can_work or not _can_be_sent(url):
        raise ValueError(f"{found} is not an http:// or https:// URL with a host; {expected}")
    if "@" in parts.path:
        raise ValueError(f"{found} has an '@' behind its host; write it as %40, and a '/' in a password as %2F")
    path = quote(parts.path, safe=_KEPT_IN_PATH).rstrip("/")
    return Base(parts._replace(netloc=address, path=path), _basic(credentials) if at else None)


def _basic(credentials: str) -> str:
    user, _, password = credentials.partition(":")
    return "Basic " + b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()


def _parse(url: str) -> tuple[SplitResult | None, str]:
    """Errors of the standard library quote what they found, so they are neither quoted nor chained."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None, "its host cannot be parsed"
    try:
        _ = parts.port
    except ValueError:
        return None, "its port is not a number up to 65535"
    return parts, ""


def _can_be_sent(url: str) -> bool:
    return url.isprintable() and "\\" not in url and not any(character.isspace() for character in url)
