"""``stabdeq completion``: a script for the shell, which completes commands and options."""

from typing import Literal


def completion(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print a script that completes commands and options; nothing is written to your shell's own files.

    Parameters
    ----------
    shell
        bash, zsh or fish.
    """
    from stabdeq.__main__ import build_app

    print(build_app().generate_completion(shell=shell))
