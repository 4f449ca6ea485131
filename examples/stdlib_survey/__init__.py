"""A survey of Python's standard library, as a Hamilton pipeline: `python -m examples.stdlib_survey`."""
