"""The Jacobian of the cell at its equilibria: does Picard iteration converge there, and is the flow stable?"""

from typing import Any

import numpy as np

from analysis.checks.witness import Replay, at_equilibrium, state_of, unknown_claim, violation_of
from analysis.evidence.sampling import clopper_pearson_upper
from analysis.findings import CheckResult, Finding, Measurement, Verdict
from analysis.findings.four_digits import at_least
from analysis.measure.contraction import proved_contraction
from analysis.measure.differences import departure
from analysis.measure.equilibria import located_by_products, stepped
from analysis.measure.spectrum import ROUNDING, UNKNOWN, Spectrum, images_looked_at, spectrum_at
from analysis.measure.subject import Subject
from stabdeq.percent import percent

SHOWN = 16  # images whose eigenvalues are drawn: the worst of those looked at


def check(subject: Subject) -> CheckResult:
    """Judge local exponential stability of the flow; measure spectral radii."""
    count = images_looked_at(subject)
    spectra = [spectrum_at(subject, position) for position in range(count)]
    radii = np.array([spectrum.radius for spectrum in spectra])
    text = (
        f"spectral radius of J at {count} equilibria: median {np.median(radii):.3g}, largest {radii.max():.3g}; Picard iteration "
        f"converges locally at {percent(float((radii < 1).mean()), 1)} of them"
    )
    worst = worst_of(spectra)
    numerical = max(spectrum.numerical_abscissa for spectrum in spectra)
    residuals = [float(residual) for spectrum in spectra for residual in spectrum.residuals]
    if residuals:
        text += f" ({_part(spectra)})"
    result = CheckResult(
        measurements=[
            Measurement(check="spectrum", name="spectral radius", value=float(radii.max()), text=text),
            Measurement(
                check="spectrum",
                name="numerical abscissa",
                value=numerical,
                text=f"largest eigenvalue of the symmetric part of J - I: {numerical:.3g} (below 0, distances shrink at once)",
            ),
        ],
        series={
            "eigenvalues": [[float(v.real), float(v.imag)] for place in worst for v in spectra[place].eigenvalues],
            "shown": len(worst),
            "of": count,
        }
        | ({"residuals": residuals} if residuals else {}),
    )
    if "spectrum.stable" in subject.claims:
        result.findings.append(_stable(subject, spectra))
    return result


def worst_of(spectra: list[Spectrum]) -> list[int]:
    """Return the positions of ``SHOWN`` spectra: those of the largest real parts, then those of the largest moduli.

    A quarter is kept for the latter, which decide whether Picard iteration converges. What is not known counts as the worst.
    """
    by_real_part, by_modulus = (
        sorted(range(len(spectra)), key=lambda place: -np.nan_to_num(getattr(spectra[place], name), nan=np.inf))
        for name in ("abscissa", "radius")
    )
    return list(dict.fromkeys([*by_real_part[: SHOWN - SHOWN // 4], *by_modulus, *by_real_part]))[:SHOWN]


def _part(spectra: list[Spectrum]) -> str:
    """Say of a state too large for all eigenvalues which were found, and how well."""
    residuals = np.concatenate([spectrum.residuals for spectrum in spectra])
    return (
        f"of a large state the outermost eigenvalues alone, as Arnoldi's method finds them, {len(residuals)} pairs with residuals "
        f"||J v - lambda v|| of {residuals.max():.1e} at most: others may have been missed"
    )


def _stable(subject: Subject, spectra: list[Spectrum]) -> Finding:
    worst = max(range(len(spectra)), key=lambda index: np.nan_to_num(spectra[index].abscissa, nan=np.inf))
    abscissa, error = spectra[worst].abscissa, max(spectrum.error for spectrum in spectra)
    image = int(subject.indices[subject.found[worst]])
    witness: dict[str, Any] | None = None
    # Where the symmetric part of J - I is negative definite, no ill-conditioning of eigenvalues matters.
    contracting = all(spectrum.numerical_abscissa + ROUNDING < 0 for spectrum in spectra)
    if not np.isfinite(abscissa):
        verdict, evidence = (
            Verdict.INCONCLUSIVE,
            f"At test image {image} the Jacobian is not finite, or the iteration for its eigenvalues fails.",
        )
    elif (contraction := proved_contraction(subject)) is not None and abscissa - error <= 0:
        verdict = Verdict.PROVED
        evidence = (
            f"By construction: {contraction.words}, so trajectories of the unprojected field approach one another at the rate "
            f"{at_least(1 - contraction.rate)} or faster. Evaluated besides: at {len(spectra)} equilibria the largest real part of "
            f"eig(J) - 1 is {abscissa:.3g}."
        )
    elif (contracting or abscissa + error < 0) and (departing := _departing(subject, len(spectra))):
        verdict, evidence = Verdict.INCONCLUSIVE, departing
    elif contracting or abscissa + error < 0:
        verdict = Verdict.SUPPORTED
        bound = clopper_pearson_upper(0, len(spectra))
        evidence = (
            f"At {len(spectra)} equilibria the largest real part of eig(J) - 1 is {abscissa:.3g}, "
            + ("and the symmetric part of J - I is negative definite; " if contracting else f"to within {error:.1e}; ")
            + f"fewer than {100 * bound:.2g} % of {subject.judged} differ, with 95 % confidence."
            + (f" This is {_part(spectra)}." if any(spectrum.is_partial for spectrum in spectra) else "")
        )
    elif abscissa - error > 0 and (doubt := _doubt(subject, worst)):
        verdict = Verdict.INCONCLUSIVE
        evidence = f"At test image {image} the largest real part of eig(J) - 1 is {abscissa:.3g} where the solver stops, but {doubt}."
    elif abscissa - error > 0:
        verdict = Verdict.REFUTED
        evidence = f"At the equilibrium of test image {image}, eig(J) - 1 has real part {abscissa:.3g}: it is unstable."
        if spectra[worst].is_partial:
            evidence += f" The residual of the pair moves it by {error:.1e} at most, to first order."
        witness = {"image": image, "state": subject.equilibria[worst].tolist(), "abscissa": abscissa}
    else:
        verdict = Verdict.INCONCLUSIVE
        evidence = (
            f"At test image {image} the largest real part of eig(J) - 1 is {abscissa:.3g}, but rounding may move it by {error:.1e}: the "
            "eigenvalues are too ill-conditioned to say."
        )
    return Finding(
        check="spectrum",
        name="stable",
        claim="Each equilibrium is locally exponentially stable under z' = f(z, h) - z, unprojected.",
        verdict=verdict,
        margin=-abscissa if np.isfinite(abscissa) else None,
        evidence=evidence,
        samples=len(spectra),
        tolerance=error,
        dtype="float64",
        seed=subject.seed,
        witness=witness,
    )


def _departing(subject: Subject, count: int) -> str:
    """Say at which of the first ``count`` equilibria J is not f's derivative; empty where it is at all."""
    for position in range(count):
        if reason := departure(subject, position):
            return f"At the equilibrium of test image {int(subject.indices[subject.found[position]])} {reason}."
    return ""


def _doubt(subject: Subject, position: int) -> str:
    """Say why an instability where the solver stops need not be one of an equilibrium; empty where it is.

    An equilibrium must be near, and J be unstable at the state that Newton's step leads to as well: a kink may lie between the two.
    """
    z = subject.equilibria[position]
    ball = located_by_products(subject, z, position)
    if not ball.is_shown:
        return f"whether an equilibrium is near is not known: {ball.reason}"
    nearer = stepped(subject, z, position)
    again = UNKNOWN if nearer is None else spectrum_at(subject, position, nearer)
    if again.abscissa - again.error > 0:
        return departure(subject, position)
    return f"it is {again.abscissa:.3g} a step of Newton's on, nearer to the equilibrium, to within {again.error:.1e}"


def replay(subject: Subject, finding: Finding) -> Replay:
    """Take the Jacobian anew at the equilibrium that the witness of ``finding`` names."""
    if finding.name != "stable":
        raise unknown_claim(finding)
    settled = at_equilibrium(subject, state_of(finding, "state", subject.dim))
    if isinstance(settled, Replay):
        return settled
    spectrum = spectrum_at(settled, 0)
    return Replay(
        quantity="largest real part of eig(J) - 1",
        reported=violation_of(finding),
        now=spectrum.abscissa,
        refutes=spectrum.abscissa - spectrum.error > 0 and not _doubt(settled, 0),
    )
