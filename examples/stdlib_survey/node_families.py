"""One function into a family of Hamilton nodes, one for each shard; and the tag that tells a node's stage."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from hamilton.function_modifiers import parameterize, source, tag, value
from hamilton.node import Node

SHARDS = (1, 2, 3, 4)

F = TypeVar("F", bound=Callable[..., Any])


def stage(name: str) -> Callable[[F], F]:
    """Tag a node, or a family, with the stage that it belongs to."""
    return cast(Callable[[F], F], tag(stage=name))


def per_shard(family: str, *upstream: str) -> Callable[[F], F]:
    """Nodes `<family>_1`, `<family>_2`, ...

    In each, a parameter named in `upstream` comes from the node of that name of the same shard, and a
    parameter `shard` gets the shard's number; all others are what they are called.
    """
    family_members: dict[str, Any] = {
        f"{family}_{number}": {name: _of_shard(name, number) for name in upstream} for number in SHARDS
    }
    return cast(Callable[[F], F], parameterize(**family_members))


def _of_shard(name: str, number: int) -> Any:
    return value(number) if name == "shard" else source(f"{name}_{number}")


def parsers(node: Node) -> str | None:
    """Which backend a node is for: parsing holds the GIL, so it goes to worker processes."""
    return "parsers" if node.tags.get("stage") == "measure" else None
