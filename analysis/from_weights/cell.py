"""What the weights of the cell prove: one equilibrium for every input, its decay, and its gain from features."""

import math

import torch
from torch import Tensor

from analysis.findings import Verdict
from analysis.findings.four_digits import at_least, at_most
from analysis.from_weights.gathered import Gathered
from analysis.from_weights.rates import report_decay
from analysis.measure.subject import Subject
from analysis.proofs.cells import cheap_tests
from analysis.proofs.cells.affine_ball import find_affine_balls
from analysis.proofs.cells.decay import Decay, find_contraction, find_decay
from analysis.proofs.cells.gain import Gain, find_gain, slope_abscissa
from analysis.proofs.cells.network import Equation, ReluNetwork


def judge_cell(
    gathered: Gathered, network: ReluNetwork, equation: Equation, start: Tensor | None
) -> tuple[Gain | None, Decay | None]:
    """Judge the cell for all inputs, and return its gain and its decay, where they are proved."""
    gathered.stage("contraction: a norm in which the cell contracts")
    contraction = find_contraction(network, start)
    report_decay(gathered, "contraction", "For every input, the cell contracts in one norm.", contraction)
    gathered.stage("stability: a quadratic Lyapunov function")
    decay = find_decay(network.flow(), contraction, start)
    claim = "For every input, trajectories of z' = f(z, h) - z approach one equilibrium exponentially, from everywhere."
    report_decay(gathered, "stability", claim, decay)
    gathered.stage("gain: multipliers of the matrix inequality")
    gain = judge_gain(gathered, network, equation, start)
    gathered.stage("norms and Perron-Frobenius")
    proofs = {"the decay": decay, "the contraction": contraction, "the gain": gain}
    judge_well_posed(
        gathered, network, equation, {name: isinstance(proof, Decay | Gain) for name, proof in proofs.items()}
    )
    return gain, decay if isinstance(decay, Decay) else None


def judge_gain(gathered: Gathered, network: ReluNetwork, equation: Equation, start: Tensor | None) -> Gain | None:
    found = find_gain(equation, equation.output, equation.injection, start)
    cheap = cheap_tests.norm_gain(network)
    claim = "Between any two features, equilibria move by no more than a gain: ||dz*|| <= gamma ||dh||."
    if found is not None:
        gathered.certificates["gain"] = {"value": found.value, "multiplier": found.multiplier.tolist()}
    value = min(cheap, torch.inf if found is None else found.value)
    if value < torch.inf:
        how = "by the product of the layers' norms" if value == cheap else "by a matrix inequality, proved definite"
        gathered.find("gain", claim, Verdict.PROVED, f"gamma = {at_most(value)}, {how}.")
        gathered.measure("gain", "gain", value, "gain from features to equilibria")
        return found
    abscissa = slope_abscissa(equation)
    evidence = f"Not proved: the solver's multipliers fail, though no slopes that were tried forbid others ({abscissa:.3g} < 1)."
    if math.isnan(abscissa):
        evidence = "Not proved: weights are not finite, or too large for eigenvalues to be computed."
    elif abscissa >= 1:
        evidence = (
            f"Not proved, and no multipliers can: with some pattern of ReLU slopes S an eigenvalue of M S has the real part "
            f"{abscissa:.3g}, and it must be below 1."
        )
    gathered.find("gain", claim, Verdict.INCONCLUSIVE, evidence)
    return None


def judge_well_posed(gathered: Gathered, network: ReluNetwork, equation: Equation, proofs: dict[str, bool]) -> None:
    product, kappa = cheap_tests.norm_product(network), cheap_tests.perron_frobenius(equation)
    radius = cheap_tests.spectral_radius(equation)
    gathered.measure("well_posed", "norm product", product, "product of the layers' norms: below 1 the cell contracts")
    gathered.measure(
        "well_posed",
        "Perron-Frobenius",
        radius,
        "spectral radius of the stacked layers' |M|: below 1 equilibria are unique",
    )
    proofs = proofs | {"the norm product": product < 1, "a Perron-Frobenius vector": kappa < 1}
    by = [name for name, holds in proofs.items() if holds]
    claim = "For every input there is an equilibrium, and only one."
    if by:
        gathered.find("well_posed", claim, Verdict.PROVED, f"Proved by {', '.join(by)}.")
        return
    tried = f"the product of norms is {product:.3g} and the spectral radius of |M| {radius:.3g}, where below 1 would do"
    gathered.find("well_posed", claim, Verdict.INCONCLUSIVE, f"Not proved: no inequality was proved; {tried}.")


def judge_balls(gathered: Gathered, subject: Subject, network: ReluNetwork, decay: Decay | None) -> None:
    """Judge the balls around the equilibria; a ``decay`` that is proved for all states is that of each."""
    gathered.stage(f"affine balls around {len(subject.found)} equilibria")
    total, found = len(subject.images), subject.found
    claim = f"Around each of {total} equilibria the cell is affine, and z' = f(z, h) - z decays exponentially to it."
    if not len(found):
        gathered.find(
            "affine_ball", claim, Verdict.INCONCLUSIVE, "Not judged: no equilibrium was found.", samples=total
        )
        return
    balls = find_affine_balls(network, subject.equilibria, subject.h[found], decay)
    proved = balls.attraction > 0
    count = int(proved.sum())
    gathered.series["affine_balls"] = {"indices": subject.indices[found].tolist()} | {
        name: values.tolist() for name, values in vars(balls).items() if values is not None
    }
    words = f"Proved at {count} of {total}"
    if count:
        radius, rate, attraction = balls.radius[proved], balls.rate[proved], balls.attraction[proved]
        words += (
            f": no ReLU changes sign within {at_least(float(radius.median()))} of z* (median; least {at_least(float(radius.min()))}), "
            f"rate {at_least(float(rate.min()))} or faster, attraction from within {at_least(float(attraction.median()))} "
            f"(median; least {at_least(float(attraction.min()))})"
        )
    unstable = 0 if balls.abscissa is None else int((balls.abscissa >= 0).sum())
    flat = int((balls.radius == 0).sum())
    for number, what in (
        (total - len(found), "without an equilibrium found"),
        (flat, "with a ReLU nearer to 0 than the error of z*"),
        (unstable, "with an eigenvalue of df/dz beyond 1"),
    ):
        words += f"; {number} {what}" if number else ""
    verdict = Verdict.PROVED if count == total else Verdict.INCONCLUSIVE
    gathered.find("affine_ball", claim, verdict, f"{words}.", samples=total)
