"""The exceptions of this project: each says what was expected, what came, and what to do."""

from collections.abc import Iterable

from stabdeq.printable import printable_lines


class StabdeqError(Exception):
    """Base of every error that a user can mend; the command line prints it as one line and exits.

    Its text may hold names and values of a file: shown, it is printable.
    """

    exit_code = 2

    def __str__(self) -> str:
        return printable_lines(super().__str__())


class ConfigError(StabdeqError):
    """A setting, name or argument is unknown or out of range."""


class DataError(StabdeqError):
    """A data set is missing, malformed, or does not fit the model."""


class CheckpointError(StabdeqError):
    """A checkpoint file is missing, truncated, foreign, or holds what it must not."""


class MetricsError(StabdeqError):
    """The metrics.jsonl of a run that is to be resumed holds what training did not write."""


class FileError(StabdeqError):
    """A file or a folder cannot be written: the disk is full, or it is not ours to write."""


class ReportError(StabdeqError):
    """A report.json is missing, truncated, or no report."""


class NotReplayableError(StabdeqError):
    """A report holds too little, or in the wrong form, to evaluate a witness anew; or it cannot be repeated here."""

    exit_code = 3


class EvaluationError(StabdeqError):
    """A function under judgement could not be evaluated at ``state`` (n,)."""

    def __init__(self, message: str, state: list[float]) -> None:
        super().__init__(message)
        self.state = state


class ImportShadowedError(StabdeqError):
    """Another module stands on the import path under the name of one of our packages."""


class SolverError(StabdeqError):
    """A fixed-point solve was asked to succeed (``throw=True``) and did not."""

    exit_code = 3


class TrainingDivergedError(StabdeqError):
    """The training loss stopped being finite; the last good checkpoint stands."""

    exit_code = 1


class LostProcessError(StabdeqError):
    """Another of the processes that train one model together has ended, or does not answer; the last checkpoint stands."""

    exit_code = 1


class JobsFailedError(StabdeqError):
    """Some jobs of ``stabdeq reproduce`` failed; the others are done."""

    exit_code = 1


class ShardError(StabdeqError):
    """A part of a work that several processes share is missing, damaged, or of another work."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether ``error`` says that memory ran out, a GPU's or, in torch's words or Python's, the machine's."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # torch's, which is not imported for this
        or "DefaultCPUAllocator: can't allocate memory" in str(error)
    )


def closest(name: str, valid: Iterable[str]) -> str:
    """Return a phrase that lists the valid names, the nearest to ``name`` first where one is near.

    >>> closest("digit", ["mnist", "digits"])
    "did you mean 'digits'? Valid: digits, mnist"
    """
    import difflib  # not before it is needed: it takes as long as all else here

    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}Valid: {', '.join(names)}"
