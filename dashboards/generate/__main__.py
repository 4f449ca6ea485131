"""`python -m dashboards.generate`: writes rules, dashboards and reference pages."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dashboards.generate import rules
from dashboards.generate.nodes import nodes
from dashboards.generate.options import options_page
from dashboards.generate.pools import pools
from dashboards.generate.reference import metrics_page, spans_page
from dashboards.generate.slo import slo

ROOT: Final = Path(__file__).parents[2]


def everything() -> dict[str, str]:
    """The text of each generated file, by its path from the root of the repository."""
    return {
        "dashboards/pools.json": pools(),
        "dashboards/nodes.json": nodes(),
        "dashboards/slo.json": slo(),
        "docs/metrics.md": metrics_page(),
        "docs/options.md": options_page(),
        "docs/spans.md": spans_page(),
        **{f"dashboards/rules/{name}": text for name, text in rules.files().items()},
    }


def main() -> None:
    """Write them all."""
    for name, text in everything().items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
