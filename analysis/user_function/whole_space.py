"""Is the centre globally asymptotically stable? So it is where V falls at every other state and grows without bound far out."""

from dataclasses import replace

from analysis.evidence.regions import Ball
from analysis.findings import Finding, Verdict
from analysis.user_function.at_centre import equilibrium
from analysis.user_function.attraction import not_shown
from analysis.user_function.growth import proper
from analysis.user_function.in_region import decrease
from analysis.user_function.sentences import GLOBAL
from analysis.user_function.subject import Subject

FARTHER = 100.0  # times the radius of the region that is given, to look for states at which V rises


def whole_space(subject: Subject) -> Finding:
    """Return whether samples and the falsifier speak against it, on a ball that is much larger than the region."""
    wide = replace(subject, region=Ball(subject.centre, FARTHER * subject.region.radius), inner=0.0, rate=None)
    findings = [equilibrium(subject), decrease(wide), proper(subject)]
    worst = next((one for one in findings if one.verdict is not Verdict.SUPPORTED), None)
    if worst is not None:
        return not_shown(subject, GLOBAL, worst)
    return replace(findings[1], check=GLOBAL, name=GLOBAL, claim=subject.sentence(GLOBAL))
