"""Spans, in any order, by the run that they belong to.

A node belongs to the run whose span is its parent, else to the one whose id it carries; a run to the node that
executed it, where their spans are of one process and one pool, whatever spans lie between them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from traced_threadpool.analysis.trace_forms.span import Span, Unreadable, text_of
from traced_threadpool.telemetry import names


@dataclass(slots=True)
class Gathered:
    """What a file holds, before it is put together. `take` is called for each span."""

    spans: int = 0
    unreadable: int = 0
    emptied: int = 0
    """Spans of nobody known, of which the SDK's limits dropped attributes."""
    duplicates: int = 0
    nodes: dict[str, tuple[str, Span]] = field(default_factory=dict)
    """By span id: the identity of the process, and the span."""
    runs: dict[str, tuple[str, Span]] = field(default_factory=dict)
    parents: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """Of every span that has a parent: which, and whether that is in another process."""
    processes: dict[str, None] = field(default_factory=dict)

    def take(self, process: str, span: Span | Unreadable) -> None:
        if isinstance(span, Unreadable):
            self.unreadable += 1
            return
        self.spans += 1
        self.processes[process] = None
        if span.parent_id is not None:
            self.parents[span.id] = (span.parent_id, span.parent_is_remote)
        kind = self.nodes if span.is_node else self.runs if span.is_run else None
        if kind is None:
            self.emptied += span.dropped_attributes > 0
            return
        if span.id in kind:
            self.duplicates += 1
        else:
            kind[span.id] = (process, span)


@dataclass(slots=True)
class Group:
    """The nodes of one run, and its span unless that is missing."""

    run_id: str
    process: str
    pool: str
    span: Span | None = None
    nodes: list[Span] = field(default_factory=list)
    root: str = ""
    parent: str | None = None


def grouped(gathered: Gathered) -> dict[str, Group]:
    """All runs, each with the node that executed it and the outermost run around it."""
    groups = _groups(gathered)
    _nest(groups, gathered)
    return groups


def _groups(gathered: Gathered) -> dict[str, Group]:
    """By the run span's id where there is one, else by what its nodes have in common."""
    groups: dict[str, Group] = {}
    by_run_id: dict[str, str] = {}
    for name, (process, span) in gathered.runs.items():
        group = Group(
            text_of(span.attributes, names.RUN_ID) or "", process, text_of(span.attributes, names.POOL_NAME) or "", span
        )
        groups[name] = group
        by_run_id.setdefault(group.run_id, name)
    for process, span in gathered.nodes.values():
        parent_id, run_id = span.parent_id or "", text_of(span.attributes, names.RUN_ID)
        if parent_id in gathered.runs:
            of_run = parent_id
        elif run_id is not None:
            of_run = by_run_id.get(run_id, run_id)
        else:
            of_run = f"no run {span.id[:32]}{parent_id}"
        if of_run not in groups:
            groups[of_run] = Group(run_id or "", process, text_of(span.attributes, names.POOL_NAME) or "")
        groups[of_run].nodes.append(span)
    return groups


def _nest(groups: dict[str, Group], gathered: Gathered) -> None:
    """Sets for each run the node that executed it, if one did, and the outermost run around it."""
    group_of_node = {node.id: name for name, group in groups.items() for node in group.nodes}
    outer: dict[str, str] = {}
    for name, group in groups.items():
        if group.span is None:
            continue
        node_id = _enclosing_node(group.span, gathered)
        if node_id is None:
            continue
        around = groups[group_of_node[node_id]]
        if around is not group and (around.process, around.pool) == (group.process, group.pool):
            group.parent = node_id
            outer[name] = group_of_node[node_id]
    for name, group in groups.items():
        seen, root = {name}, name
        while root in outer and outer[root] not in seen:
            root = outer[root]
            seen.add(root)
        if root in outer:  # spans that are each other's parents: none of them is outermost
            root = name
            group.parent = None
            del outer[name]
        group.root = root


def _enclosing_node(span: Span, gathered: Gathered) -> str | None:
    seen: set[str] = set()
    at = span.id
    while at in gathered.parents and at not in seen:
        seen.add(at)
        at, is_remote = gathered.parents[at]
        if is_remote:
            return None
        if at in gathered.nodes:
            return at
    return None
