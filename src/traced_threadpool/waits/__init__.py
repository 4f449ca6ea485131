"""Where a node's time goes: exact readings by the workers, samples by another process (docs/waits.md)."""
