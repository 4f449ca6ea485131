"""Scheduling and running: ready nodes, workers, futures."""
