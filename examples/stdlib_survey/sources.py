"""A directory of a standard library into the list of its modules' files, and that list into even parts.

Rule: every `.py` file that can be imported from the directory, except for tests, demonstrations and what was
installed on top. The order is that of the modules' names.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from .records import SourceFile

NOT_THE_LIBRARY = frozenset(
    {
        "__pycache__",
        "dist-packages",
        "idle_test",
        "idlelib",
        "lib2to3",
        "site-packages",
        "test",
        "tests",
        "turtledemo",
    }
)


def find_sources(root: Path, limit: int | None = None) -> list[SourceFile]:
    """The modules below `root`; at most `limit` of them, at even distances, to stay a fair sample."""
    found = sorted(_walk(root), key=lambda file: file.module)
    if limit is None or limit >= len(found):
        return found
    return [found[position * len(found) // limit] for position in range(limit)]


def split_by_size(files: Sequence[SourceFile], parts: int) -> list[list[SourceFile]]:
    """Cut the list into `parts` runs of neighbours of about the same number of bytes.

    A package is never cut in two, so that it can be compressed as a whole. A part can be empty.
    """
    total = sum(file.size_bytes for file in files)
    shares: list[list[SourceFile]] = [[] for _ in range(parts)]
    before = 0
    for _, group in groupby(files, key=lambda file: file.package):
        members = list(group)
        size = sum(member.size_bytes for member in members)
        middle = before + size / 2
        shares[min(parts - 1, int(parts * middle / total)) if total else 0].extend(members)
        before += size
    return shares


def _walk(root: Path) -> Iterator[SourceFile]:
    for directory, subdirectories, names in os.walk(root):
        subdirectories[:] = [name for name in subdirectories if name.isidentifier() and name not in NOT_THE_LIBRARY]
        for name in names:
            path = Path(directory, name)
            if path.suffix == ".py" and path.stem.isidentifier():
                yield _source_file(root, path)


def _source_file(root: Path, path: Path) -> SourceFile:
    parts = path.relative_to(root).with_suffix("").parts
    is_package = parts[-1] == "__init__" and len(parts) > 1
    if is_package:
        parts = parts[:-1]
    return SourceFile(
        module=".".join(parts),
        package=parts[0],
        path=path,
        size_bytes=_size(path),
        is_package=is_package,
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a dangling link, or gone since: reading it will say so
        return 0
