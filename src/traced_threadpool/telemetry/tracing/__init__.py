"""Runs and nodes as OpenTelemetry spans."""
