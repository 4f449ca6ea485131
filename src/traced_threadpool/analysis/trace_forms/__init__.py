"""The forms of trace files, each into spans, and spans into recorded runs."""
