"""Queries, rules and dashboards as Python; `python -m dashboards.generate` writes the files next to it."""
