"""One function into a family of nodes, one for each member, and all of a family's results into one argument.

@each(HOSTS, "sessions_{}", requests="requests_{}")
def sessions_of_host(requests): ...    # nodes sessions_alder, sessions_birch, ...

@together(HOSTS, sessions="sessions_{}")
def busiest(sessions): ...             # a list, in the order of the members
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from hamilton.function_modifiers import group, inject, parameterize, source, value

MEMBER = "{}"
"""As an argument's template: the member itself, not a node."""

F = TypeVar("F", bound=Callable[..., Any])


def each(members: Sequence[str], family: str, **templates: str) -> Callable[[F], F]:
    """A node for each member. A parameter in `templates` comes from the node of that name of the same member."""
    nodes: dict[str, Any] = {
        family.format(member): {
            parameter: value(member) if template == MEMBER else source(template.format(member))
            for parameter, template in templates.items()
        }
        for member in members
    }
    return cast(Callable[[F], F], parameterize(**nodes))


def together(members: Sequence[str], **templates: str) -> Callable[[F], F]:
    """One node. A parameter in `templates` is the list of what the nodes of that family gave."""
    lists: dict[str, Any] = {
        parameter: group(*(source(template.format(member)) for member in members))
        for parameter, template in templates.items()
    }
    return cast(Callable[[F], F], inject(**lists))
