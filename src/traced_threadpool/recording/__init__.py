"""What ran, kept while it runs: records of runs and their critical path."""
