"""What stands at the end of every ``--help``: an example, and what the exit codes mean."""

AUDITED = "runs/digits-lyadeq-seed0"
CODES = "2, what you can mend; 70, a fault of ours; 130, interrupted."

# By command: an example, and what its exit codes 0, 1 and 3 mean.
ENDINGS = {
    "train": (
        "train digits --kind lyadeq",
        "0, trained; 1, the loss became NaN, or under torchrun another process was lost",
    ),
    "audit": (
        f"audit {AUDITED}/checkpoint.safetensors",
        "0, no claim is refuted or inconclusive; 1, one is refuted; 3, one is inconclusive, or none was judged",
    ),
    "replay": (
        f"replay {AUDITED}/report.json",
        "0, every witness refutes its claim again; 1, one does not; 3, one cannot be replayed",
    ),
    "verify": (
        f"verify {AUDITED}/checkpoint.safetensors {AUDITED}/report.json",
        "0, each claim ends as the report says; 1, one does not, or the report or its page says something else that is not so; "
        "3, it cannot be repeated",
    ),
    "report": (f"report {AUDITED}/report.json", "0, drawn"),
    "compare": (
        f"compare {AUDITED}/report.json runs/digits-deq-seed0/report.json",
        "0, whatever the verdicts are; 1, they differ, with --fail-on-difference",
    ),
    "certify": (
        f"certify {AUDITED}/checkpoint.safetensors",
        "0, all is proved or supported; 1, a claim is refuted; 3, one is neither: what cannot be proved is not refuted",
    ),
    "check": (
        "check my_module:V --dim 2 --dynamics my_module:f",
        "0, no claim is refuted or left open; 1, one is refuted; 3, one is inconclusive",
    ),
    "solvers": (f"solvers {AUDITED}/checkpoint.safetensors", "0, compared"),
    "attack": (f"attack {AUDITED}/checkpoint.safetensors --attack pgd --eps 8/255", "0, attacked"),
    "merge": (
        "merge runs/parts --out runs/whole",
        "0, joined, and no claim is refuted or inconclusive; 1, one is refuted; 3, one is inconclusive",
    ),
    "reproduce": ("reproduce table1 --data digits --epochs 2", "0, all jobs are done; 1, some failed"),
    "list": ("list kinds", "0, listed"),
    "show": ("show digits --kind lyadeq --set epochs=3", "0, shown"),
    "doctor": ("doctor", "0, all that is needed is there, though what is optional may lack"),
    "completion": ("completion bash", "0, printed"),
    "robust-data": (f"robust-data {AUDITED}/checkpoint.safetensors --out robust", "0, made"),
}


def ending(command: str) -> str:
    """Return the last lines of the help of ``command``.

    >>> print(ending("list"))
    Example: stabdeq list kinds
    <BLANKLINE>
    Exit codes: 0, listed; 2, what you can mend; 70, a fault of ours; 130, interrupted.
    """
    example, codes = ENDINGS[command]
    return f"Example: stabdeq {example}\n\nExit codes: {codes}; {CODES}"
