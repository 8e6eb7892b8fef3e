"""The Jacobian of the cell at its equilibria: does Picard iteration converge there, and is the flow stable?"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from analysis.evidence.sampling import clopper_pearson_upper
from analysis.findings import CheckResult, Finding, Measurement, Verdict
from analysis.replay import Replay, at_equilibrium, state_of, unknown_claim, violation_of
from analysis.subject import DENSE, Subject

ROUNDING = 1e-12  # an allowance for the rounding of J itself, of norm about 1
IMAGES = 64
IMAGES_SPARSE = 4
SHOWN = 16  # images whose eigenvalues are drawn


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of J at one equilibrium, and the error that rounding may cause in its spectral abscissa.

    ``abscissa`` is the largest real part of eig(J) - 1, ``error`` a first-order bound of its rounding error: the largest
    eigenvalue condition number times roundoff times ||J||. ``numerical_abscissa`` is that of the numerical range.
    """

    eigenvalues: np.ndarray
    abscissa: float
    error: float
    radius: float
    numerical_abscissa: float


def check(subject: Subject) -> CheckResult:
    """Judge local exponential stability of the flow; measure spectral radii."""
    count = min(IMAGES if subject.dim <= DENSE else IMAGES_SPARSE, len(subject.equilibria))
    spectra = [_spectrum(subject, position) for position in range(count)]
    radii = np.array([spectrum.radius for spectrum in spectra])
    text = (
        f"spectral radius of J at {count} equilibria: median {np.median(radii):.3g}, largest {radii.max():.3g}; Picard iteration "
        f"converges locally at {float((radii < 1).mean()):.1%} of them"
    )
    numerical = max(spectrum.numerical_abscissa for spectrum in spectra)
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
        series={"eigenvalues": [[float(v.real), float(v.imag)] for s in spectra[:SHOWN] for v in s.eigenvalues]},
    )
    if "spectrum.stable" in subject.claims:
        result.findings.append(_stable(subject, spectra))
    return result


def _spectrum(subject: Subject, position: int) -> Spectrum:
    if subject.dim > DENSE:
        return _sparse_spectrum(subject, position)
    from scipy.linalg import eig

    jacobian = subject.jacobian(subject.equilibria[position], position).numpy()
    values, left, right = cast(tuple[np.ndarray, ...], eig(jacobian, left=True, right=True))
    overlap = np.abs((left.conj() * right).sum(0))
    condition = float((1 / np.maximum(overlap, np.finfo(float).tiny)).max())
    error = condition * np.finfo(float).eps * float(np.linalg.norm(jacobian, 2)) * len(jacobian)
    symmetric = float(np.linalg.eigvalsh((jacobian + jacobian.T) / 2)[-1])
    return Spectrum(values, float(values.real.max()) - 1, error, float(np.abs(values).max()), symmetric - 1)


def _sparse_spectrum(subject: Subject, position: int) -> Spectrum:
    """Return the outer eigenvalues by Arnoldi iteration (ARPACK): those of largest magnitude and of largest real part."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs, eigsh

    z = subject.equilibria[position][None]
    pull_back = torch.func.vjp(subject.cell_at(position), z)[1]
    # u -> J'u is linear, so its own vector-Jacobian product is v -> J v.
    push_forward = torch.func.vjp(lambda u: pull_back(u)[0], torch.zeros_like(z))[1]

    def transposed(vector: np.ndarray) -> np.ndarray:
        return pull_back(_row(vector))[0].flatten().numpy()

    def product(vector: np.ndarray) -> np.ndarray:
        return push_forward(_row(vector))[0].flatten().numpy()

    def symmetric(vector: np.ndarray) -> np.ndarray:
        return (product(vector) + transposed(vector)) / 2

    forward, backward, middle = (
        LinearOperator((subject.dim, subject.dim), matvec=apply, dtype=np.float64)  # pyrefly: ignore
        for apply in (product, transposed, symmetric)
    )
    start = np.ones(subject.dim)
    try:
        largest = cast(np.ndarray, eigs(forward, k=6, which="LM", v0=start, return_eigenvectors=False))
        rightmost, right = cast(tuple[np.ndarray, np.ndarray], eigs(forward, k=6, which="LR", v0=start))
        again, left = cast(tuple[np.ndarray, np.ndarray], eigs(backward, k=6, which="LR", v0=start))
        top = cast(np.ndarray, eigsh(middle, k=1, which="LA", v0=start, return_eigenvectors=False))
    except ArpackNoConvergence:
        return Spectrum(np.array([]), np.nan, np.inf, np.nan, np.inf)
    leading = int(rightmost.real.argmax())
    eigenvalue, vector = rightmost[leading], right[:, leading]
    overlap = abs(np.vdot(left[:, int(abs(again - eigenvalue.conjugate()).argmin())].conj(), vector))
    overlap = max(overlap, abs(np.vdot(left[:, int(abs(again - eigenvalue).argmin())].conj(), vector)))
    residual = np.linalg.norm(product(vector.real) + 1j * product(vector.imag) - eigenvalue * vector)
    error = float((residual + ROUNDING) / max(overlap, np.finfo(float).tiny))
    values = np.concatenate([largest, rightmost])
    return Spectrum(values, float(eigenvalue.real) - 1, error, float(abs(largest).max()), float(top[0]) - 1)


def _row(vector: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(vector, dtype=np.float64)).view(1, -1)


def _stable(subject: Subject, spectra: list[Spectrum]) -> Finding:
    worst = max(range(len(spectra)), key=lambda index: np.nan_to_num(spectra[index].abscissa, nan=np.inf))
    abscissa, error = spectra[worst].abscissa, max(spectrum.error for spectrum in spectra)
    image = int(subject.indices[subject.found[worst]])
    witness: dict[str, Any] | None = None
    # Where the symmetric part of J - I is negative definite, no ill-conditioning of eigenvalues matters.
    contracting = all(spectrum.numerical_abscissa + ROUNDING < 0 for spectrum in spectra)
    if not np.isfinite(abscissa):
        verdict, evidence = Verdict.INCONCLUSIVE, f"The eigenvalue iteration did not converge at test image {image}."
    elif contracting or abscissa + error < 0:
        verdict = Verdict.SUPPORTED
        bound = clopper_pearson_upper(0, len(spectra))
        evidence = (
            f"At {len(spectra)} equilibria the largest real part of eig(J) - 1 is {abscissa:.3g}, "
            + ("and the symmetric part of J - I is negative definite; " if contracting else f"to within {error:.1e}; ")
            + f" fewer than {100 * bound:.2g} % of images differ, with 95 % confidence."
        )
    elif abscissa - error > 0:
        verdict = Verdict.REFUTED
        evidence = f"At the equilibrium of test image {image}, eig(J) - 1 has real part {abscissa:.3g}: it is unstable."
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
        margin=-abscissa,
        evidence=evidence,
        samples=len(spectra),
        tolerance=error,
        dtype="float64",
        seed=subject.seed,
        witness=witness,
    )


def replay(subject: Subject, finding: dict[Any, Any]) -> Replay:
    """Take the Jacobian anew at the equilibrium that the witness of ``finding`` names."""
    if finding.get("name") != "stable":
        raise unknown_claim(finding)
    settled = at_equilibrium(subject, state_of(finding, "state", subject.dim))
    if isinstance(settled, Replay):
        return settled
    spectrum = _spectrum(settled, 0)
    return Replay(
        quantity="largest real part of eig(J) - 1",
        reported=violation_of(finding),
        now=spectrum.abscissa,
        refutes=spectrum.abscissa - spectrum.error > 0,
    )
