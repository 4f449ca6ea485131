"""Where a node's function runs: the seam, and what is behind it."""
