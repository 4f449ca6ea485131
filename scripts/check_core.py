"""Fail unless this environment is what `pip install traced_threadpool` gives: the built package, no extra."""

import importlib.util
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import traced_threadpool

CORE = ("sf-hamilton", "opentelemetry-api", "prometheus-client")
MODULES_OF_EXTRAS = ("opentelemetry.sdk", "opentelemetry.exporter", "rich")

present = [name for name in MODULES_OF_EXTRAS if importlib.util.find_spec(name)]
if present:
    sys.exit(f"the core is to be tested without extras, but {', '.join(present)} can be imported")

package = Path(traced_threadpool.__file__).parent
if not package.is_relative_to(sysconfig.get_path("purelib")):
    sys.exit(f"the core is to be tested as installed, but the package is imported from {str(package)!r}")
if not (package / "py.typed").is_file():
    sys.exit("the installed package has no py.typed: type checkers would ignore its annotations")

print("core:", ", ".join(f"{name} {version(name)}" for name in CORE), "and no extra")
