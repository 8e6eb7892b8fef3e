"""The Jacobian of the cell at its equilibria: does Picard iteration converge there, and is the flow stable?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from analysis.evidence.sampling import clopper_pearson_upper
from analysis.findings import CheckResult, Finding, Measurement, Verdict
from analysis.subject import Subject

DENSE = 1024  # largest state whose Jacobian is formed and decomposed whole
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

    jacobian = _jacobian(subject, position).numpy()
    values, left, right = cast(tuple[np.ndarray, ...], eig(jacobian, left=True, right=True))
    overlap = np.abs((left.conj() * right).sum(0))
    condition = float((1 / np.maximum(overlap, np.finfo(float).tiny)).max())
    error = condition * np.finfo(float).eps * float(np.linalg.norm(jacobian, 2)) * len(jacobian)
    symmetric = float(np.linalg.eigvalsh((jacobian + jacobian.T) / 2)[-1])
    return Spectrum(values, float(values.real.max()) - 1, error, float(np.abs(values).max()), symmetric - 1)


def _jacobian(subject: Subject, position: int) -> Tensor:
    """Return J = df/dz (n, n) at the equilibrium ``position``: one vector-Jacobian product of n copies, a row from each."""
    n = subject.dim
    pull_back = torch.func.vjp(_cell_at(subject, position), subject.equilibria[position].expand(n, n))[1]
    return pull_back(torch.eye(n, dtype=torch.float64))[0]


def _cell_at(subject: Subject, position: int) -> Callable[[Tensor], Tensor]:
    """Return z -> f(z, h) on flat states (B, n), all with the features of the equilibrium ``position``."""
    h = subject.h[subject.found[position]]

    def cell(z: Tensor) -> Tensor:
        state = z.reshape(-1, *subject.solution.z.shape[1:])
        return subject.model.cell(state, h.expand(len(z), *h.shape)).flatten(1)

    return cell


def _sparse_spectrum(subject: Subject, position: int) -> Spectrum:
    """Return the outer eigenvalues by Arnoldi iteration (ARPACK): those of largest magnitude and of largest real part."""
    from scipy.sparse.linalg import LinearOperator, eigs

    pull_back = torch.func.vjp(_cell_at(subject, position), subject.equilibria[position][None])[1]

    def product(vector: np.ndarray) -> np.ndarray:
        cotangent = torch.from_numpy(np.ascontiguousarray(vector, dtype=np.float64)).view(1, -1)
        return pull_back(cotangent)[0].flatten().numpy()

    # The transpose has the same eigenvalues, and reverse mode multiplies by it.
    operator = LinearOperator((subject.dim, subject.dim), matvec=product, dtype=np.float64)  # pyrefly: ignore
    start = np.ones(subject.dim)
    largest = cast(np.ndarray, eigs(operator, k=6, which="LM", v0=start, return_eigenvectors=False))
    rightmost, vectors = cast(tuple[np.ndarray, np.ndarray], eigs(operator, k=6, which="LR", v0=start))
    leading = int(rightmost.real.argmax())
    vector = vectors[:, leading]
    residual = product(vector.real) + 1j * product(vector.imag) - rightmost[leading] * vector
    values = np.concatenate([largest, rightmost])
    abscissa = float(rightmost.real.max()) - 1
    return Spectrum(values, abscissa, float(np.linalg.norm(residual)), float(np.abs(largest).max()), float("nan"))


def _stable(subject: Subject, spectra: list[Spectrum]) -> Finding:
    worst = max(range(len(spectra)), key=lambda index: spectra[index].abscissa)
    abscissa, error = spectra[worst].abscissa, max(spectrum.error for spectrum in spectra)
    image = int(subject.indices[subject.found[worst]])
    witness: dict[str, Any] | None = None
    if abscissa + error < 0:
        verdict = Verdict.SUPPORTED
        bound = clopper_pearson_upper(0, len(spectra))
        evidence = (
            f"At {len(spectra)} equilibria the largest real part of eig(J) - 1 is {abscissa:.3g}, to within {error:.1e} for rounding and "
            f"non-normality; fewer than {100 * bound:.2g} % of images differ, with 95 % confidence."
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
