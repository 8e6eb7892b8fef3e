"""Is the robust accuracy to be believed? The accuracy at every eps, and the signs that the attack, not the model, failed."""

from collections.abc import Callable

from analysis.checks.robustness import curve, derivatives, effort, equilibria, repeats, rivals
from analysis.checks.robustness.target import BuildAttack, Target, pgd
from analysis.checks.witness import Replay, state_of, unknown_claim
from analysis.findings import CheckResult, Finding, Measurement, Verdict
from analysis.findings.values import number
from analysis.measure.subject import Subject
from stabdeq.attacks import Square
from stabdeq.attacks.ascent import loss_gradient
from stabdeq.attacks.losses import cross_entropy
from stabdeq.errors import ConfigError, NotReplayableError

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


def replay(subject: Subject, finding: Finding, again: CheckResult) -> Replay:
    """Compare ``finding`` with the one of its name in ``again``, the check run anew, and classify its attacked image anew.

    An indicator counts images, so no single one refutes it: it must fire again on all of ``subject``, and the witness be
    what it is said to be.
    """
    found = next((item for item in again.findings if item.name == finding.name), None)
    if found is None:
        raise unknown_claim(finding)
    if "attacked_image" in (finding.witness or {}) and not _is_as_said(Target(subject), finding):
        return Replay(
            quantity="the attacked image lies outside its ball, or is taken for something else",
            reported=None,
            now=None,
            refutes=False,
        )
    return Replay(
        quantity=f"margin, on {found.samples} images",
        reported=finding.margin,
        now=found.margin,
        refutes=found.verdict is Verdict.REFUTED,
    )


def _is_as_said(target: Target, finding: Finding) -> bool:
    """Whether the witness's attacked image lies in its ball, and both images are taken for what the witness says."""
    witness = finding.witness or {}
    positions = (target.subject.indices == number(witness.get("image"))).nonzero()
    if not len(positions):
        raise NotReplayableError("the witness's image is none of those that were audited")
    image = target.images[int(positions[0])]
    attacked = state_of(finding, "attacked_image", image.numel()).view_as(image)
    # At eps = 0 the claim is that the attack keeps to its ball.
    in_ball = finding.name == curve.EPS_0.name or (
        float(attacked.min()) >= 0
        and float(attacked.max()) <= 1
        and float((attacked - image).abs().max()) <= number(witness.get("eps")) + 1e-9
    )
    taken_for = [int(target.predict(item[None])) for item in (image, attacked)]
    return in_ball and taken_for == [witness.get("prediction_clean"), witness.get("prediction_attacked")]
