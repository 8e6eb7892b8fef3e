"""What the weights prove of a learned V: its decay along the unprojected field, and the gain that it gives."""

from analysis.checks.decay import judge_unprojected
from analysis.findings import Verdict
from analysis.findings.four_digits import at_most
from analysis.from_weights.gathered import Gathered
from analysis.measure.subject import Subject
from analysis.proofs.cells.iss_gain import iss_gain
from analysis.proofs.cells.network import ReluNetwork
from analysis.proofs.matrices.enclosure import spectral_norm_bound
from stabdeq.lyapunov import InputConvexLyapunov


def judge_decay(gathered: Gathered, subject: Subject, lyapunov: InputConvexLyapunov, network: ReluNetwork) -> None:
    """Judge whether V falls at its rate along the unprojected field, where the model claims so, and the gain that follows from it."""
    gathered.stage("decay of V along the unprojected field")
    sensitivity = spectral_norm_bound(network.output) * spectral_norm_bound(network.injection)
    value = iss_gain(lyapunov, sensitivity)
    claim = f"By V's decay along the unprojected field, equilibria move by no more than {at_most(value)} times the features."
    if not len(subject.found):
        gathered.find("iss_gain", claim, Verdict.INCONCLUSIVE, "Not judged: no equilibrium was found.")
        return
    if not subject.structured:
        evidence = "Not judged: V is altered, or its weights are not finite: they do not tell how V grows."
        gathered.find("iss_gain", claim, Verdict.INCONCLUSIVE, evidence)
        return
    decay = judge_unprojected(subject)
    if "decay.unprojected" in subject.claims:
        gathered.find("unprojected", decay.claim, decay.verdict, decay.evidence, decay.margin, decay.samples)
    verdict, evidence = decay.verdict, decay.evidence
    if verdict is Verdict.REFUTED:
        verdict = Verdict.INCONCLUSIVE
        evidence = f"V does not decay along the unprojected field, so this says nothing: {evidence}"
    gathered.find("iss_gain", claim, verdict, evidence, samples=decay.samples)
