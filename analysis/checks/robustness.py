"""Is the robust accuracy to be believed? The accuracy at every eps, and the signs that the attack, not the model, failed."""

from collections.abc import Callable

from analysis.findings import CheckResult, Finding, Measurement
from analysis.robustness import curve, derivatives, effort, equilibria, repeats, rivals
from analysis.robustness.target import BuildAttack, Target, pgd
from analysis.subject import Subject
from stabdeq.attacks import Square
from stabdeq.attacks.ascent import loss_gradient
from stabdeq.attacks.losses import cross_entropy
from stabdeq.errors import ConfigError

EPS = 8 / 255  # where a model without gradients is attacked


def check(
    subject: Subject, *, attack: BuildAttack = pgd, on_step: Callable[[str], None] = lambda step: None
) -> CheckResult:
    """Judge ``attack`` on the subject: (eps, steps) -> an attack in the l-infinity norm; ``on_step`` is told what begins."""
    target = Target(subject, attack)
    try:
        loss_gradient(target, target.images[:1], target.labels[:1], cross_entropy)
    except ConfigError as error:
        return _without_gradient(target, str(error))
    on_step("the attack at every eps")
    traced = curve.trace(target)
    middle = traced.middle()
    on_step("more steps and restarts")
    exerted = effort.exert(target, middle)
    on_step("rivals without gradients, and surrogates")
    contest = rivals.contest(target, exerted, traced.clean)
    on_step("gradients, repeats and equilibria")
    findings = [
        *curve.judge(target, traced),
        *effort.judge(target, exerted),
        *contest.findings,
        derivatives.judge(target),
        *repeats.judge(target, middle),
        *equilibria.judge(target, middle),
    ]
    worst = curve.accuracy(f"worst of all at eps = {255 * middle.eps:.4g}/255", contest.standing, "right under all")
    return CheckResult(
        findings=findings,
        measurements=[*traced.measurements(), worst],
        series=traced.series() | {"compared_at": middle.eps, "worst": worst.value},
    )


def _without_gradient(target: Target, reason: str) -> CheckResult:
    """Return what can be said without any gradient: the indicators of an attack that climbs one are left out."""
    count, seed = len(target.labels), target.subject.seed
    left_out = effort.GRADIENTS.open(
        f"{reason}. Without a gradient the other indicators are left out. Remedy: give solve a differentiable result.",
        samples=count,
        seed=seed,
    )
    found = Square(eps=EPS, steps=rivals.QUERIES)(target, target.images, target.labels, generator=target.generator(0))
    findings: list[Finding] = [left_out, *repeats.judge(target, None)]
    measurements: list[Measurement] = [
        curve.accuracy("clean", target.right(target.images)),
        curve.accuracy("Square at eps = 8/255", target.right(found.images), "right under Square"),
    ]
    return CheckResult(findings=findings, measurements=measurements)
