"""A recorded run into answers: what took the time, and what would help."""
