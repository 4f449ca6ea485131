"""The live page: one file without a request elsewhere, made once.

All text of runs comes as JSON and is put into the page as text nodes, never as markup; the policy below allows the
page's own script and style by their hashes, and requests to where it came from.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Final


def _asset(name: str) -> str:
    return (files("traced_threadpool.live") / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _make() -> tuple[bytes, str]:
    style, script = _asset("live.css"), _asset("live.js")
    page = _asset("live.html").replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'; connect-src 'self'; "
        f"img-src data:; script-src '{_hash(script)}'; style-src '{_hash(style)}'"
    )
    return page.encode(), policy


_MADE: Final = _make()
PAGE: Final = _MADE[0]
CONTENT_POLICY: Final = _MADE[1]
