"""What this program and the sampler's process say to each other, and how that process is found among others."""

from __future__ import annotations

MEMORY, CHANNEL = 3, 4
"""The descriptors that the process is started with, beside the usual three."""

# What is said over the channel, a socket that keeps messages apart. By the service:
WAKE, HOLDERS, AGAIN = b"w", b"h", b"a"
# and by the sampler, once it has been told whom to sample; later it answers with a run's holders.
READY, REFUSED, ORPHANED = b"y", b"r", b"o"

COMM = b"traced-waits\n"
"""The name of the process, as the kernel tells it."""
