"""The command line: it alone knows the three packages, and imports each only when its command is called."""

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from cyclopts import App, CycloptsError, UnknownOptionError

from stabdeq import __version__
from stabdeq.doors import require_own_packages
from stabdeq.errors import FileError, StabdeqError, is_out_of_memory
from stabdeq.help_texts import CODES, ending
from stabdeq.output import steady_output

DEBUG = "--debug"
INTERNAL_ERROR = 70  # EX_SOFTWARE of sysexits.h
LONGEST_WORD = 500  # characters that are shown of a name; a path has up to some thousand

# (name, where it lives, one line of help): the help stands here so that listing it imports nothing.
COMMANDS = (
    ("train", "train.commands.train:train", "Train a model from a recipe."),
    ("audit", "analysis.commands.audit:audit", "Judge the claims of a checkpoint, with evidence."),
    ("replay", "analysis.commands.replay:replay", "Evaluate the witnesses of a report's refuted claims anew."),
    ("verify", "analysis.commands.verify:verify", "Judge a report's checkpoint again, and compare claim by claim."),
    (
        "report",
        "analysis.commands.report:report",
        "Draw report.html again from a report.json, or the curves of a training.",
    ),
    ("compare", "analysis.commands.compare:compare", "Put the reports of several audits side by side."),
    (
        "certify",
        "analysis.commands.certify:certify",
        "Prove what a checkpoint's weights allow, with certificates.",
    ),
    ("check", "analysis.commands.check:check", "Test a Lyapunov function of your own."),
    (
        "solvers",
        "analysis.commands.solvers:solvers",
        "Compare fixed-point solvers, yours among them.",
    ),
    ("attack", "analysis.commands.attack:attack", "Attack a checkpoint within a ball of pixels."),
    ("merge", "analysis.commands.merge:merge", "Join the parts that --shard wrote to the result of one process."),
    (
        "reproduce",
        "analysis.commands.reproduce:reproduce",
        "The paper's tables and figures, its numbers beside ours.",
    ),
    ("list", "stabdeq.commands.list:list_names", "List recipes, kinds, checks, attacks, solvers and claims."),
    ("show", "train.commands.show:show", "Show a recipe with every setting, as a file that train takes."),
    ("doctor", "stabdeq.commands.doctor:doctor", "Tell what is installed, and what is missing for what."),
    ("completion", "stabdeq.commands.completion:completion", "Print a script that completes commands and options."),
    ("robust-data", "train.commands.robust_data:robust_data", "Make a robust data set from a robust model."),
)


def build_app() -> App:
    """Return the command-line application; no command's module is imported yet."""
    app = App(
        name="stabdeq",
        help="Train deep equilibrium models stabilised by Lyapunov functions, and tell with evidence which claims are true. "
        f"Errors are told in one line; {DEBUG}, anywhere, adds the trace.",
        help_epilogue=f"Exit codes: 0, done; 1, a claim is refuted; 3, one is inconclusive; {CODES} "
        "Each command's --help has an example.",
        version=__version__,
        help_format="plaintext",  # the Markdown renderer would double the time of --help
        suppress_keyboard_interrupt=False,  # main says that it was interrupted
    )
    for name, location, summary in COMMANDS:
        app.command(location, name=name, help=summary, help_epilogue=ending(name))
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a claim refuted, 2 what the user can mend, 3 inconclusive, 70 a fault of ours.

    130 where it was interrupted. An error is one line on stderr, below its trace where "--debug" is among ``arguments``.
    """
    # Set before torch is imported: its threads otherwise spin while they wait, and a core that another program uses then
    # slows training eightfold (digits, two cores, one of them busy: 12 s an epoch against 1.4 s).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = list(sys.argv[1:] if arguments is None else arguments)
    from stabdeq.terminal import guarded, warnings_in_a_line

    with steady_output(), guarded(), warnings_in_a_line():
        try:
            code = _run([word for word in words if word != DEBUG])
        except KeyboardInterrupt:
            _end("interrupted", 130)
        except BaseException as error:
            # SystemExit, too: a command returns its code, and code that it calls may not set it.
            if DEBUG in words:
                traceback.print_exception(error)
            _end(*_told(error))
    if code is not None:
        sys.exit(code)


def _run(words: list[str]) -> int | None:
    """Return the exit code of the command that ``words`` name, None where it has none of its own."""
    try:
        require_own_packages("analysis", "train")
        return build_app()(words, exit_on_error=False, print_error=False, result_action="return_value")
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()  # a full disk is an error now, and none that can be told when the interpreter ends


def _told(error: BaseException) -> tuple[str, int]:
    """Return what is to be said of ``error``, and the exit code."""
    if isinstance(error, SystemExit):
        frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
        place = f"{frame.f_code.co_filename}, line {line}"
        return (
            f"{place}, ends the program (SystemExit: {error.code}), so there is no verdict: take that out",
            StabdeqError.exit_code,
        )
    if isinstance(error, UnknownOptionError):
        from stabdeq.unknown_options import told

        return told(error), StabdeqError.exit_code
    if isinstance(error, StabdeqError | CycloptsError):
        return str(error), getattr(error, "exit_code", StabdeqError.exit_code)
    if isinstance(error, OSError) and error.errno is not None:  # of the system, about a file
        name = "" if error.filename is None else f"{error.filename}: "
        return f"{name}{error.strerror}: mend that or name another file", FileError.exit_code
    if is_out_of_memory(error):
        reason = str(error).partition(". ")[0]
        return (
            f"out of memory ({reason}): take fewer or smaller samples at a time, or more memory",
            StabdeqError.exit_code,
        )
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"internal error ({reason}): please report it; {DEBUG} shows the trace", INTERNAL_ERROR


def _end(text: str, code: int) -> NoReturn:
    """Print ``text`` as one line, of readable length whatever names are in it, and exit with ``code``."""
    words = [word if len(word) <= LONGEST_WORD else f"{word[:LONGEST_WORD]}..." for word in text.split()]
    if sys.stderr is not None:  # in whose place print would take stdout
        with suppress(FileError):  # where stderr cannot be written the code says it alone
            print(f"stabdeq: {' '.join(words)}", file=sys.stderr, flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
