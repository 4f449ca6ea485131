"""The catalogue's JSON documents into chapters."""

import json
from collections.abc import Iterable
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from .records import Chapter

TIMEOUT_SECONDS = 10.0


class CatalogueError(Exception):
    """The catalogue did not answer as it should."""


def fetch_chapter_numbers(url: str) -> list[int]:
    """The numbers of all chapters, as the index lists them."""
    [index] = _fetch(url, ["/chapters"])
    return [chapter["number"] for chapter in index["chapters"]]


def fetch_chapters(url: str, numbers: Iterable[int]) -> list[Chapter]:
    """Fetch chapters one after the other, over one connection."""
    documents = _fetch(url, [f"/chapters/{number}" for number in numbers])
    return [Chapter(title=document["title"], modules=tuple(document["modules"])) for document in documents]


def _fetch(url: str, paths: Iterable[str]) -> list[dict[str, Any]]:
    documents = []
    with closing(HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_SECONDS)) as connection:
        for path in paths:
            connection.request("GET", path)
            reply = connection.getresponse()
            body = reply.read()
            if reply.status != HTTPStatus.OK:
                raise CatalogueError(f"{url}{path} answered {reply.status} {reply.reason}, expected 200")
            documents.append(json.loads(body))
    return documents
