"""Build wheel and sdist into dist/ and check them as users get them: `python -m scripts.package`.

- `twine check`, strictly: the front page renders, the metadata is valid.
- The version is the one in the code, and the package says that it is typed.
- Each extra that pyproject.toml has is in the metadata, and `all` has what the others have.
- Both are installed into a clean environment, from the files alone with the core's dependencies, and work there; an
  extra is added to what is installed by the command that messages name.
"""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
DIST: Final = ROOT / "dist"
NAME: Final = "traced_threadpool"
EXTRA: Final = "report"
"""The one that is installed for real: it has a command, which then runs."""
PROGRAM: Final = """
from hamilton import ad_hoc_utils, driver
from traced_threadpool import FutureAdapter, __version__

def price(quantity: int) -> int:
    return 3 * quantity

with FutureAdapter(2) as adapter:
    module = ad_hoc_utils.create_temporary_module(price)
    dr = driver.Builder().with_modules(module).with_adapters(adapter).build()
    print(__version__, dr.execute(["price"], inputs={"quantity": 2}))
"""


def run(*words: str | Path, cwd: Path = ROOT) -> str:
    """A command's output; one that fails ends this program."""
    environment = {**os.environ, "HAMILTON_TELEMETRY_ENABLED": "false", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
    return done.stdout


def build() -> tuple[Path, Path]:
    """Wheel and sdist, anew."""
    for old in DIST.glob("*"):
        old.unlink()
    run(sys.executable, "-m", "hatchling", "build", "--directory", DIST)
    [wheel], [sdist] = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    return wheel, sdist


def check_metadata(wheel: Path) -> str:
    """Gives the version."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", section, re.MULTILINE))
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        metadata = email.message_from_bytes(files.read(next(each for each in names if each.endswith("/METADATA"))))
    assert f"{NAME}/py.typed" in names, "the package must say that it is typed"
    assert not [each for each in names if not each.startswith(NAME)], "the wheel has what is not the package's"
    assert set(metadata.get_all("Provides-Extra", [])) == extras
    required = metadata.get_all("Requires-Dist", [])
    of = {
        extra: {each.partition(";")[0].strip() for each in required if re.search(rf"extra == ['\"]{extra}['\"]", each)}
        for extra in extras
    }
    assert all(of.values()), of
    assert of["all"] == set().union(*(each for extra, each in of.items() if extra != "all"))
    return metadata["Version"]


def check_installed(package: Path, version: str, *, with_extra: bool) -> None:
    """In a clean environment, out of this folder."""
    with tempfile.TemporaryDirectory(prefix="package ") as directory:
        place = Path(directory)
        venv.create(place / "venv", with_pip=True)
        python = place / "venv/bin/python"
        lowest = ["--constraint", ROOT / "requirements/dev.txt"]
        run(python, "-m", "pip", "install", "--quiet", *lowest, package, cwd=place)
        assert run(python, "-c", PROGRAM, cwd=place) == f"{version} {{'price': 6}}\n"
        if with_extra:  # by the words that messages use: it is installed, so no index is asked for the package itself
            run(python, "-m", "pip", "install", "--quiet", *lowest, f"{NAME}[{EXTRA}]", cwd=place)
            assert run(place / "venv/bin/traced-threadpool", "--version", cwd=place).strip().endswith(version)
            run(place / "venv/bin/traced-threadpool", "demo", cwd=place)


def main() -> None:
    """Builds, and checks everything."""
    wheel, sdist = build()
    version = check_metadata(wheel)
    check_installed(wheel, version, with_extra=True)
    check_installed(sdist, version, with_extra=False)
    print(f"{wheel.name} and {sdist.name}: built, checked, installed and run")


if __name__ == "__main__":
    main()
