"""Two tests without a solver: the product of the layers' norms, and a positive vector that the absolute weights shrink."""

import torch

from analysis.proofs.cells.network import Equation, ReluNetwork
from analysis.proofs.matrices.enclosure import EPS, spectral_norm_bound
from stabdeq.linear_algebra import eigenvalues, solved


def norm_product(network: ReluNetwork) -> float:
    """Return an upper bound of the map's Lipschitz constant, ||D|| ||N||^(depth - 1) ||B||, proved; below 1 it contracts.

    ``network`` must be a chain: each layer reads the one before it alone, and A = 0.
    """
    between = spectral_norm_bound(network.hidden) ** (network.depth - 1) if network.depth > 1 else 1.0
    return spectral_norm_bound(network.output) * between * spectral_norm_bound(network.state) * (1 + 8 * EPS)


def norm_gain(network: ReluNetwork) -> float:
    """Return the gain ||D|| ||U|| / (1 - s) of equilibria that ``norm_product`` s proves; infinite where s >= 1.

    The features must enter the last layer alone.
    """
    product = norm_product(network)
    if not product < 1:  # or NaN
        return torch.inf
    return spectral_norm_bound(network.output) * spectral_norm_bound(network.injection) / (1 - product) * (1 + 8 * EPS)


def spectral_radius(equation: Equation) -> float:
    """Return the spectral radius of |M|, in floating point; NaN where |M| is not finite."""
    return float(eigenvalues(equation.weight.magnitude()).abs().max())


def perron_frobenius(equation: Equation) -> float:
    """Return a proved kappa < 1 with |M| v <= kappa v for some v > 0, infinite where none is found.

    w -> relu(M w + U h + c) then contracts by kappa in the maximum norm weighted by 1 / v: w exists and is unique.
    """
    size = equation.weight.magnitude()
    m = len(size)
    vector = solved(torch.eye(m, dtype=torch.float64) - size, torch.ones(m, 1, dtype=torch.float64))[:, 0]
    if not bool((vector.isfinite() & (vector > 0)).all()):
        return torch.inf
    kappa = float((size @ vector / vector).max()) * (1 + (m + 8) * EPS) + 1e-300
    return kappa if kappa < 1 else torch.inf
