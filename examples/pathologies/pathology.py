"""What a pipeline with something wrong is, and how large a run of it is to be.

A module of this package that holds a `PATHOLOGY` is one. Its functions are the nodes; its docstring says what is
wrong and what the cure is, and is what its users are shown.
"""

import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

VARIATION = 0.25  # how far a share lies from the even one, at most

NAMES = (
    "gil_bound",
    "cpu_starved",
    "slow_network",
    "slow_disk",
    "lock_convoy",
    "pool_starved",
    "hidden_sleep",
    "transfer_bound",
    "mixed",
    "healthy",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """How much work there is. `scale` makes it more or less, `seed` deals it out differently.

    >>> Amount(scale=0.5, seed=1).count(7)
    4
    """

    scale: float
    seed: int

    def count(self, at_scale_one: float) -> int:
        """So many of something, scaled: at least one."""
        return max(1, round(at_scale_one * self.scale))

    def seconds(self, at_scale_one: float) -> float:
        """So long a time, scaled."""
        return at_scale_one * self.scale

    def shares(self, members: Iterable[str], at_scale_one: float) -> dict[str, int]:
        """A count for each member, all of them around the same one.

        >>> Amount(scale=1.0, seed=1).shares(["left", "right"], 100)
        {'left': 82, 'right': 117}
        """
        dealing = random.Random(self.seed)
        return {member: self.count(at_scale_one * dealing.uniform(1 - VARIATION, 1 + VARIATION)) for member in members}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pathology:
    """How to run the pipeline.

    `inputs` makes what the pipeline works on, and takes it away again. `cpus` is how many the run may use, where
    that matters: so many as in a small container, also on a large machine. `on_processes` are the nodes that run on
    worker processes, which a run of its own starts beforehand.
    """

    output: str
    workers: int
    inputs: Callable[[Amount], AbstractContextManager[Mapping[str, Any]]]
    cpus: int | None = None
    on_processes: tuple[str, ...] = ()
