"""How much the adapter costs, side by side with its peers. See README.md."""

import os

# Before Hamilton is imported, which reads it: a benchmark is not usage, and reporting it would be measured too.
os.environ.setdefault("HAMILTON_TELEMETRY_ENABLED", "false")
