"""What was asked for on the command line, as the sections see it."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much to measure."""

    smoke: bool = False
    repeat: int | None = None
    choice: random.Random = field(default_factory=random.Random)

    def rounds(self, default: int) -> int:
        """How many rounds: what was asked for, else one in a smoke, else this section's own number."""
        if self.repeat is not None:
            return self.repeat
        return 1 if self.smoke else default


def say(text: str) -> None:
    """Progress, which is not part of the output."""
    print(text, file=sys.stderr, flush=True)
