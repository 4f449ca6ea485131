"""The chapters of Python's Library Reference and the modules that each of them documents.

Written down by hand after the table of contents at https://docs.python.org/3/library/, over several versions:
a module that this Python does not have does no harm. A submodule goes with its longest listed prefix.
"""

from .records import Chapter

_TABLE = {
    "Text processing": "difflib re readline rlcompleter string stringprep textwrap unicodedata",
    "Binary data": "codecs encodings struct",
    "Data types": """array bisect calendar collections copy datetime enum graphlib heapq pprint reprlib types
        weakref zoneinfo _collections_abc _pydatetime _strptime _weakrefset""",
    "Numbers and mathematics": "cmath decimal fractions math numbers random statistics _pydecimal",
    "Functional programming": "functools itertools operator",
    "Files and directories": """filecmp fnmatch genericpath glob linecache ntpath pathlib posixpath shutil
        stat tempfile""",
    "Data persistence": "copyreg dbm marshal pickle shelve sqlite3",
    "Compression and archiving": "bz2 compression gzip lzma tarfile zipfile zlib _compression",
    "File formats": "configparser csv netrc plistlib tomllib",
    "Cryptographic services": "hashlib hmac secrets",
    "Operating system": "ctypes errno io logging os platform time _pyio",
    "Command-line interfaces": "argparse cmd curses fileinput getopt getpass optparse shlex",
    "Concurrent execution": """concurrent contextvars multiprocessing queue sched subprocess threading
        _threading_local""",
    "Networking and processes": "asyncio mmap select selectors signal socket ssl",
    "Internet data": "base64 binascii email json mailbox mimetypes quopri",
    "Structured markup": "html xml _markupbase",
    "Internet protocols": """ftplib http imaplib ipaddress poplib smtplib socketserver urllib uuid webbrowser
        wsgiref xmlrpc""",
    "Multimedia": "colorsys wave",
    "Internationalization": "gettext locale",
    "Graphics with Tk": "tkinter turtle",
    "Development tools": "doctest pydoc pydoc_data typing unittest",
    "Debugging and profiling": """bdb cProfile faulthandler pdb profile profiling pstats timeit trace
        tracemalloc""",
    "Packaging and distribution": "ensurepip venv zipapp",
    "Runtime services": """__future__ __main__ abc annotationlib atexit builtins contextlib dataclasses gc
        inspect site sys sysconfig traceback warnings _colorize _pyrepl""",
    "Custom interpreters": "code codeop",
    "Importing": "importlib modulefinder pkgutil runpy zipimport",
    "The Python language": """ast compileall dis keyword opcode pickletools py_compile pyclbr symtable
        tabnanny token tokenize""",
    "Windows": "msvcrt nturl2path winreg winsound",
    "Unix": "fcntl grp posix pty pwd resource syslog termios tty",
    "Superseded": """aifc asynchat asyncore cgi cgitb chunk crypt distutils imghdr imp mailcap msilib nntplib
        pipes smtpd sndhdr sunau telnetlib uu xdrlib""",
}

CHAPTERS = tuple(Chapter(title=title, modules=tuple(sorted(names.split()))) for title, names in _TABLE.items())
