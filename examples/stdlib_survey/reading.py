"""A file into its bytes and its text, by the encoding that the file itself declares.

A file that cannot be read or decoded is a finding, not a failure: it is counted under one of two names.
"""

import io
import tokenize

from .records import SourceFile, SourceText

UNREADABLE = "unreadable"
UNDECODABLE = "undecodable"


def read_source(file: SourceFile) -> SourceText:
    """Read one file; whatever is wrong with it ends up in `problem`."""
    try:
        data = file.path.read_bytes()
    except OSError:
        return SourceText(file=file, problem=UNREADABLE)
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return SourceText(file=file, data=data, text=data.decode(encoding))
    except (SyntaxError, UnicodeDecodeError):  # an encoding that does not exist, or bytes that are not in it
        return SourceText(file=file, data=data, problem=UNDECODABLE)
