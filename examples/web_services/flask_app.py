"""In Flask: `flask --app examples.web_services.flask_app run`, then http://127.0.0.1:5000/ops/live.

As in FastAPI, the live view can be seen by whoever reaches the service.
"""

from __future__ import annotations

from typing import Any

from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from examples.web_services.quote import quotes
from examples.web_services.trace_context import wsgi_with_spans
from traced_threadpool.live import wsgi_app

app = Flask(__name__)
traced = DispatcherMiddleware(wsgi_with_spans(app.wsgi_app), {"/ops/live": wsgi_app()})
app.wsgi_app = traced  # type: ignore[method-assign]  # as Flask's documentation does


@app.get("/quote/<item>")
def quote(item: str) -> Any:
    return quotes.execute(["quote"], inputs={"item": item})["quote"]
