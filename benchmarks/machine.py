"""This machine and what is installed on it into what a reader needs to judge the numbers."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from pathlib import Path

PACKAGES = (
    "traced_threadpool",
    "sf-hamilton",
    "apache-hamilton",
    "dask",
    "distributed",
    "joblib",
    "opentelemetry-api",
    "opentelemetry-sdk",
    "prometheus-client",
)


def describe() -> dict[str, object]:
    """Of the machine: what changes the numbers."""
    return {
        "system": platform.platform(),
        "CPU": _cpu_model(),
        "CPUs": os.cpu_count(),
        "CPUs usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }


def versions() -> dict[str, str]:
    """Of Python and of what takes part; what is not installed is left out."""
    found = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    found["switch interval"] = f"{sys.getswitchinterval()} s"
    return found


def _cpu_model() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    named = found[1] if found else platform.processor()
    return " ".join(word for word in named.split() if not word.startswith("Proc"))  # that it is one, the reader knows
