"""Imports go one way: the map of who may import whom, lazy imports included, and no circle between modules."""

from __future__ import annotations

import re

import pytest

from tests.house.layers import (
    FILES,
    HOMES,
    MAY_IMPORT,
    PACKAGE,
    component,
    cycles,
    graph,
    imported,
    modules,
    reachable_from,
)

HAMILTON_IS_KNOWN_IN = {"adapter.py", "demo.py", "hamilton_graph.py", "hamilton_hooks.py", "placement.py"}
OF_EXTRAS = {"OtlpFileSpanExporter"}
"""Public names that need an extra as soon as they are asked for, and say so without."""
EXTRAS = (
    "click",
    "google",
    "grpc",
    "jinja2",
    "opentelemetry.sdk",
    "opentelemetry.exporter",
    "requests",
    "rich",
    "yaml",
)


def test_the_map_goes_one_way() -> None:
    """Each entry names only what stands above it, so no two packages can import each other."""
    above: set[str] = set()
    for place, may_import in MAY_IMPORT.items():
        assert may_import <= above, place
        above.add(place)


def test_the_map_is_of_this_tree() -> None:
    """A package without rules would be free to import anything, and one that is gone would mislead."""
    assert {component(file) for file in FILES} - MAY_IMPORT.keys() == set()


@pytest.mark.parametrize("place", MAY_IMPORT)
def test_a_package_imports_only_what_it_may(place: str) -> None:
    """Lazily or not. A new import that goes the other way is a change of architecture, to be made in the map first."""
    broken = {
        (name.partition(".")[2], other.partition(".")[2])
        for name, others in graph().items()
        if component(modules()[name]) == place
        for other in others
        if component(modules()[other]) not in {place, *MAY_IMPORT[place]}
    }
    assert broken == set()


def test_no_modules_import_each_other() -> None:
    """Not within a package either: what is in a circle cannot be read, tested or replaced alone."""
    assert cycles() == []


def test_only_few_modules_know_hamilton() -> None:
    """Everything else would serve another framework as well."""
    knowing = {
        str(file.relative_to(PACKAGE))
        for file in FILES
        if any(name.split(".")[0] == "hamilton" for name in imported(file))
    }
    assert knowing <= HAMILTON_IS_KNOWN_IN


def test_what_runs_in_jobs_has_no_cached_property() -> None:
    """Until Python 3.11 it has a lock, which a fork can copy held: `model/lazy.py` has none."""
    jobs = [f"traced_threadpool.{home}" for home in HOMES.values()]
    jobs.append("traced_threadpool.analysis.diagnosis.first_finding")  # which is imported when a run has ended
    live = {*jobs, *reachable_from(jobs, lazily=False)}
    assert {name for name in live if re.search(r"^ *@.*cached_property", modules()[name].read_text(), re.M)} == set()


def test_the_core_imports_no_extra() -> None:
    """What a public name brings along imports the three dependencies; an extra is imported where it is chosen."""
    public = [f"traced_threadpool.{home}" for name, home in HOMES.items() if name not in OF_EXTRAS]
    extras = {
        (name, other)
        for name in {*public, *reachable_from(public, lazily=False)}
        for other in imported(modules()[name], lazily=False)
        if other.startswith(EXTRAS)
    }
    assert extras == set()
