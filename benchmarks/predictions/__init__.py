"""How well a record foretells other numbers of workers where nodes share a lock, a pool, the GIL."""
