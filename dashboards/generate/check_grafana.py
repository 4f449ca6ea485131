"""Is a Grafana new enough for the dashboards? `python -m dashboards.generate.check_grafana http://localhost:3000`."""

from __future__ import annotations

import json
import re
import sys
from typing import Final
from urllib.error import URLError
from urllib.request import urlopen

NEEDED: Final = "11.6.0"
"""The release for which the dashboards are made."""


def problem(version: str) -> str | None:
    """What is wrong with a release, if anything.

    >>> problem("11.6.1"), problem("12.0.0-pre")
    (None, None)
    >>> problem("9.5.2")
    'Grafana 9.5.2 is older than 11.6.0, for which the dashboards are made: panels would lack what it does not know'
    """
    if _numbers(version) < _numbers(NEEDED):
        return (
            f"Grafana {version} is older than {NEEDED}, for which the dashboards are made: panels would lack what it "
            "does not know"
        )
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("-")[0]))


def main(words: list[str]) -> str | None:
    """What is wrong, for the exit status."""
    if len(words) != 1:
        return "usage: python -m dashboards.generate.check_grafana http://localhost:3000"
    address = f"{words[0].rstrip('/')}/api/health"
    try:
        with urlopen(address, timeout=10) as answer:
            version = json.load(answer)["version"]
    except (URLError, OSError, ValueError, KeyError, TypeError) as error:
        return f"{address} does not answer as Grafana does: {error}"
    return problem(version)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
