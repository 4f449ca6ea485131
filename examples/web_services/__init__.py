"""Services that run a DAG for each request, and show it while it runs: in FastAPI and in Flask."""
