"""Runs and nodes as metrics."""
