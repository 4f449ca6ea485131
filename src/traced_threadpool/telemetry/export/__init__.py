"""Where spans and metrics are sent."""
