"""In FastAPI: `uvicorn examples.web_services.fastapi_app:app`, then http://127.0.0.1:8000/ops/live.

The live view can be seen by whoever reaches the service, as any path of it: put it behind what guards your other pages
for operators, or leave it out and let `setup_telemetry(prometheus_port=)` serve it on 127.0.0.1.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from examples.web_services.quote import quotes
from examples.web_services.trace_context import asgi_with_spans
from traced_threadpool.live import asgi_app

app = FastAPI()
app.add_middleware(asgi_with_spans)
app.mount("/ops/live", asgi_app())


@app.get("/quote/{item}")
def quote(item: str) -> Any:
    return quotes.execute(["quote"], inputs={"item": item})["quote"]
