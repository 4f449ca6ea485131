"""The command `traced-threadpool`."""
