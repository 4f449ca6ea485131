"""A text into a file that is there whole or not at all, whatever ends the program meanwhile."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path


def write_whole(path: str | os.PathLike[str], text: str | Iterable[str]) -> None:
    """Writes a file, from a text or its parts. Whoever reads it meanwhile sees the old one or the new one.

    A pipe or a device cannot be replaced, and is written to as it is.

    Raises:
        OSError: It cannot be written. What was there is still there.
    """
    path = Path(os.path.realpath(path))
    parts = [text] if isinstance(text, str) else text
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(parts)
        return
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("x", encoding="utf-8", newline="\n") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
