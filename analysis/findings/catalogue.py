"""Each check of the audit once: what it asks, what it needs, what its claims mean, and where its parts are found.

Reading the catalogue imports no check: a part is given as "module:name", or as the function itself.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from stabdeq.registry import Registry, located

# "lyapunov": the model's V; "equilibria": one that was found; "image": its witnesses are about an image; "pixels": inputs that an
# attack may change; "classes": answers that are a class for each input; "choices": a class for each input, or for each token.
Need = Literal["lyapunov", "equilibria", "image", "pixels", "classes", "choices"]


@dataclass(frozen=True, kw_only=True)
class ClaimWords:
    """What a claim means to a reader who knows no Lyapunov theory.

    ``title`` says it in a few words, for lists of claims: a claim without one is listed by its name. ``holds`` says what is true
    where the claim is, as the end of "We cannot tell whether ..."; ``fails``, a sentence, what was seen where it is refuted, empty
    where it never is. Of two rows of one name the first counts whose ``about`` stands in the finding's claim. A claim ``by_some``
    is judged of models that make it alone.
    """

    name: str
    holds: str
    title: str = ""
    fails: str = ""
    about: str = ""
    by_some: bool = False


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check of the audit.

    ``seconds`` is what each step takes on the model of ``make demo``, about: a check that tells of no steps has one, named "".
    ``run(subject)`` returns a CheckResult; one that tells of its steps takes ``on_step`` too. ``replay(subject, finding)``
    evaluates the witness of a refuted finding anew and returns a Replay; one that judges ``all_images_at_once`` is run again
    first, and ``replay`` takes that result too. ``figures`` are drawn from the check's series, (title, series) -> Drawing.
    ``pieces`` are what of the check can be made alone, in the order of its result, each with the names of its findings, measurements
    and series: ``run`` of a check that has them takes the ``pieces`` to make.
    """

    name: str
    question: str
    claims: tuple[ClaimWords, ...]
    run: Callable[..., Any] | str
    replay: Callable[..., Any] | str
    seconds: Mapping[str, float]
    needs: frozenset[Need] = frozenset()
    figures: Mapping[str, Callable[..., Any] | str] = field(default_factory=dict)
    pieces: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    on_request: bool = False
    all_images_at_once: bool = False

    @property
    def steps(self) -> dict[str, float]:
        """The seconds of each step, by the words with which an audit tells that it begins."""
        return {f"{self.name}: {step}" if step else self.name: seconds for step, seconds in self.seconds.items()}

    @property
    def units(self) -> list[str]:
        """What processes may share of the check: its pieces, as "CHECK:PIECE", or the check itself where it has none."""
        return [f"{self.name}:{piece}" for piece in self.pieces] or [self.name]

    def part(self, name: Literal["run", "replay"]) -> Callable[..., Any]:
        """Return the function ``run`` or ``replay``, imported where it was named by its place."""
        return function(getattr(self, name))


def function(part: Callable[..., Any] | str) -> Callable[..., Any]:
    """Return a part of a check, imported where it is named by its place."""
    return located(part) if isinstance(part, str) else part


# In the order in which a reader wants them.
CHECKS = Registry(
    "check",
    {
        name: f"analysis.findings.rows:{name.upper()}"
        for name in (
            "equilibrium",
            "positivity",
            "convexity",
            "decay",
            "separation",
            "spectrum",
            "convergence",
            "iteration",
            "robustness",
        )
    },
)


def register_check(check: Check) -> None:
    """Make ``check`` one of the audit's; raise ConfigError where its name is taken."""
    CHECKS.register(check.name, check)


def rows() -> list[Check]:
    """Return all checks in their order."""
    return [CHECKS[name] for name in CHECKS]


def default_checks() -> tuple[str, ...]:
    """Return the names of the checks that an audit makes unless it is told otherwise."""
    return tuple(check.name for check in rows() if not check.on_request)


def question_of(check: str) -> str:
    """Return what ``check`` asks; empty where no check of the audit is called so."""
    return CHECKS[check].question if check in CHECKS else ""


def in_order(names: Iterable[str]) -> list[str]:
    """Return each of ``names`` once: the audit's checks in their order, then the others in that of ``names``."""
    given = dict.fromkeys(names)
    return list(dict.fromkeys([*(check for check in CHECKS if check in given), *given]))


def words_of(check: str, name: str, claim: str = "") -> ClaimWords | None:
    """Return what the claim ``name`` of ``check`` means, ``claim`` being its sentence; None where nobody says."""
    from analysis.findings.rows import CERTIFIED, OF_A_FUNCTION

    claims = CHECKS[check].claims if check in CHECKS else ()
    if check == name:  # what is proved of weights, or judged of a user's V, is its own check
        claims = (*claims, *CERTIFIED, *OF_A_FUNCTION)
    return next((row for row in claims if row.name == name and row.about in claim), None)
