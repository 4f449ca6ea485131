"""What runs do while they go on: records, predicted ends, stalls, and the pages that show them.

`wsgi_app()` and `asgi_app()` are the live page for an application's own server.
"""

from traced_threadpool.live.records import LiveLane, LiveNode, LivePool, LiveRun, PredictedEnd
from traced_threadpool.live.server import asgi_app, wsgi_app

__all__ = ["LiveLane", "LiveNode", "LivePool", "LiveRun", "PredictedEnd", "asgi_app", "wsgi_app"]
