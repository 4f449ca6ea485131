"""Rules into a file that Prometheus loads.

>>> print(to_yaml([Group(name="one", rules=(Recording(record="a:b", expr="sum(b)"),))], "By hand."), end="")
# By hand.
groups:
- name: one
  rules:
  - record: a:b
    expr: sum(b)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A query whose result is kept under a name."""

    record: str
    expr: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A query that should have no result. `hold` is for how long it must have one before the alert fires."""

    alert: str
    expr: str
    hold: str = ""
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rules that are evaluated one after the other; without `interval` as often as the server does by default."""

    name: str
    rules: tuple[Recording | Alert, ...]
    interval: str = ""


def to_yaml(groups: Sequence[Group], comment: str) -> str:
    """The file's text. `comment` goes on top."""
    top = "".join(f"# {line}".rstrip() + "\n" for line in comment.splitlines())
    document = {"groups": [_group(group) for group in groups]}
    return top + yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)


def _group(group: Group) -> dict[str, Any]:
    interval = {"interval": group.interval} if group.interval else {}
    return {"name": group.name, **interval, "rules": [_rule(rule) for rule in group.rules]}


def _rule(rule: Recording | Alert) -> dict[str, Any]:
    if isinstance(rule, Recording):
        labels = {"labels": dict(rule.labels)} if rule.labels else {}
        return {"record": rule.record, "expr": rule.expr, **labels}
    hold = {"for": rule.hold} if rule.hold else {}
    return {
        "alert": rule.alert,
        "expr": rule.expr,
        **hold,
        "labels": dict(rule.labels),
        "annotations": dict(rule.annotations),
    }


class _Dumper(yaml.SafeDumper):
    """Several lines stay several lines, as people write them."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_Dumper.add_representer(str, _Dumper.represent_str)
