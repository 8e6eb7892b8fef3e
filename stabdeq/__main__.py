"""The command line: it alone knows the three packages, and imports each only when its command is called."""

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from stabdeq import __version__
from stabdeq.doors import require_own_packages
from stabdeq.errors import StabdeqError

# (name, where it lives, one line of help): the help stands here so that listing it imports nothing.
COMMANDS = (
    ("train", "train.commands.train:train", "Train a model from a recipe."),
    ("audit", "analysis.commands.audit:audit", "Judge the claims of a checkpoint, with evidence."),
    ("replay", "analysis.commands.replay:replay", "Evaluate the witnesses of a report's refuted claims anew."),
    ("verify", "analysis.commands.verify:verify", "Judge a report's checkpoint again, and compare claim by claim."),
    ("report", "analysis.commands.report:report", "Draw report.html again from a report.json."),
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
    (
        "reproduce",
        "analysis.commands.reproduce:reproduce",
        "The paper's tables and figures, its numbers beside ours.",
    ),
    ("robust-data", "train.commands.robust_data:robust_data", "Make a robust data set from a robust model."),
)


def build_app() -> App:
    """Return the command-line application; no command's module is imported yet."""
    app = App(
        name="stabdeq",
        help="Train deep equilibrium models stabilised by Lyapunov functions, and tell with evidence which claims are true.",
        version=__version__,
        help_format="plaintext",  # the Markdown renderer would double the time of --help
        suppress_keyboard_interrupt=False,  # main says that it was interrupted
    )
    for name, location, summary in COMMANDS:
        app.command(location, name=name, help=summary)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a claim refuted, 2 a usage error, 3 inconclusive, 130 interrupted."""
    # Set before torch is imported: its threads otherwise spin while they wait, and a core that another program uses then
    # slows training eightfold (digits, two cores, one of them busy: 12 s an epoch against 1.4 s).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from stabdeq.terminal import guarded

    with guarded():
        _run(arguments)


def _run(arguments: Sequence[str] | None) -> None:
    try:
        require_own_packages("analysis", "train")
        build_app()(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except (StabdeqError, CycloptsError) as error:
        print(f"stabdeq: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 2))
    except KeyboardInterrupt:
        print("stabdeq: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
