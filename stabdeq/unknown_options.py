"""What is said of an option that a command does not have: what may have been meant, and what it has."""

from difflib import get_close_matches

from cyclopts.exceptions import UnknownOptionError

from stabdeq.registry import located

NEAR = 0.65  # of options without their dashes, which all share


def told(error: UnknownOptionError) -> str:
    """Return one line for ``error``; a setting of a recipe is named where the command takes --set."""
    option = (error.token.keyword or error.token.value).partition("=")[0]
    command = " ".join(["stabdeq", *(error.command_chain or ())])
    options = [argument.name for argument in error.argument_collection or () if argument.name.startswith("--")]
    meant = _meant(option, options)
    hint = f"Did you mean {meant}? " if meant else ""
    return f"Unknown option: {option}. {hint}{command} takes {', '.join(options) or 'no options'}"


def _meant(option: str, options: list[str]) -> str | None:
    word = option.strip("-").replace("-", "_")
    settings = located("train.recipe:setting_names")() if "--set" in options else []
    exact = [key for key in settings if word in (key.replace(".", "_"), key, _last(key), _initials(key))]
    if exact:
        return f"--set {exact[0]}=VALUE"
    near = get_close_matches(option.strip("-"), [name.strip("-") for name in options], n=1, cutoff=NEAR)
    return f"--{near[0]}" if near else None


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _initials(key: str) -> str:
    """Return "lr" for "learning_rate"."""
    return "".join(part[0] for part in _last(key).split("_"))
