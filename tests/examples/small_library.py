"""A library of six modules, in which each figure of a survey can be counted by hand."""

from __future__ import annotations

from examples.stdlib_survey.records import Chapter

SHOP = '''"""A shop."""
from . import till
from .till import pay
'''

TILL = '''import sys
from sys import argv


class Till:
    """Where money goes."""

    def open(self, by=None):
        with self.lock:
            for drawer in self.drawers:
                if drawer.full and by:
                    return drawer
        return None


def pay(sum):
    """Take money."""
    return sum if sum > 0 else 0


def _count():
    pass
'''

SMALL_LIBRARY = {
    "alone.py": b"import shop.till, missing\n",
    "broken.py": b"def broken(:\n",
    "notlatin.py": b"name = '\xff'\n",
    "shop/__init__.py": SHOP.encode(),
    "shop/till.py": TILL.encode(),
    "twin.py": b"import shop.till, missing\n",
    # All of these are left out:
    "test/test_shop.py": b"import shop\n",
    "site-packages/other.py": b"",
    "shop/read-me.py": b"",
    "shop/notes.txt": b"",
}

SMALL_CATALOGUE = (
    Chapter(title="Trade", modules=("shop",)),
    Chapter(title="Solitude", modules=("alone", "absent")),
    Chapter(title="Empty", modules=()),
)
