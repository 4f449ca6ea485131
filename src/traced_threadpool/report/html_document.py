"""A template, a script and the data that this draws into one HTML file that needs nothing else: no network, no server.

Nothing that a trace says can become markup or code. Jinja2 escapes every text; data is `script_json`; scripts put text
into the page by `textContent` alone; and a Content-Security-Policy allows the file's own two scripts and its style
sheet, by their hashes, and nothing else: no request, no other script, no form.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from traced_threadpool._version import __version__
from traced_threadpool.analysis.diagnosis.advice import expected_gain, title, tone
from traced_threadpool.model.formatting import count, duration
from traced_threadpool.model.states import INFO
from traced_threadpool.report.page_data import cut, script_json


def document(template: str, script: str, data: Any, **values: Any) -> str:
    """A file that holds what a template makes of the values, a script, the data that this draws, and a style sheet."""
    style = f"{_asset('page.css')}\n{_state_colours()}"
    charts, code = _asset("echarts.min.js"), f"{_asset('common.js')}{_asset(script)}"
    return (
        _environment()
        .get_template(template)
        .render(
            policy="default-src 'none'; base-uri 'none'; form-action 'none'; "
            f"script-src '{_hash(charts)}' '{_hash(code)}'; style-src '{_hash(style)}'",
            style=Markup(style),
            charts=Markup(charts),
            script=Markup(code),
            data=Markup(script_json(data)),
            version=__version__,
            **values,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_on_one_line,
        loader=FunctionLoader(_text_of),
    )
    environment.filters |= {"duration": duration, "count": count, "title": title, "tone": tone, "gain": expected_gain}
    return environment


def _on_one_line(value: Any) -> Any:
    """Every text of the record that the template puts out; it is escaped after this."""
    return cut(value) if type(value) is str else value


def _state_colours() -> str:
    properties = "".join(f"--state-{state}:light-dark({look.light},{look.dark});" for state, look in INFO.items())
    return f":root{{{properties}}}" + "".join(f".state-{state}{{fill:var(--state-{state})}}" for state in INFO)


def _text_of(name: str) -> str:
    return (files("traced_threadpool.report") / "assets" / name).read_text(encoding="utf-8")


@cache
def _asset(name: str) -> str:
    text = _text_of(name)
    # Inside of an element, these would end it or begin a comment.
    for end in ("</script", "</style", "<!--"):
        assert end not in text.lower(), (name, end)
    return text


@cache
def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
