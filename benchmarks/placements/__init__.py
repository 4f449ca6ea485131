"""What nodes gain on worker processes: foretold against measured, decided by `run_on="auto"`, and what a call costs."""
