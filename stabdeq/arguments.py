"""Types of command-line arguments that several commands share."""

from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter, Token
from cyclopts.validators import Number


def _whole(_: Any, tokens: Sequence[Token]) -> int:
    """Read a whole number; cyclopts on its own would round 1.5 to 2."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f'"{tokens[0].value}" is not a whole number') from None


OptionalWholeNumber = Annotated[int | None, Parameter(converter=_whole)]
Count = Annotated[int, Parameter(converter=_whole, validator=Number(gte=1))]
Seed = Annotated[int, Parameter(converter=_whole, validator=Number(gte=0, lt=2**63))]
