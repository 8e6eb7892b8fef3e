"""Text that was read from somewhere, as it may be shown: it can neither steer a terminal nor reorder a line."""

import unicodedata
from typing import Any

TOO_DEEP = "nested too deeply to show; report.json holds it all"


def printable(value: Any) -> str:
    r"""Return ``value`` as one line of text without controls: a break becomes a space, any other control "\ufffd".

    Controls are all that ``str.isprintable`` refuses, surrogates and marks that reorder a line among them.

    >>> printable("a\x1b[31mb\u202ec\n") == "a\ufffd[31mb\ufffdc "
    True
    """
    return "".join(map(_printable_character, as_text(value)))


def printable_lines(text: str) -> str:
    r"""Return ``text`` as ``printable`` does, its line breaks kept.

    >>> printable_lines("a\x1b\nb\r") == "a\ufffd\nb "
    True
    """
    return text if text.isprintable() else "\n".join(map(printable, text.split("\n")))


def as_text(value: Any) -> str:
    try:
        return "" if value is None else str(value)
    except RecursionError:
        return TOO_DEEP


def _printable_character(character: str) -> str:
    if character.isprintable():
        return character
    is_space = character in "\n\r\t" or unicodedata.category(character).startswith("Z")
    return " " if is_space else "\ufffd"
