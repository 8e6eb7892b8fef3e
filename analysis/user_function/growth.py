"""Is V radially unbounded?"""

import torch

from analysis.evidence.sampling import directions
from analysis.findings import Finding, Verdict
from analysis.user_function.subject import REFERENCE_STATES, Subject

DECADES = 6


def proper(subject: Subject) -> Finding:
    """Follow V out along rays: growth over decades supports the claim, and nothing that is sampled can refute it."""
    dim = len(subject.centre)
    axes = torch.eye(dim, dtype=torch.float64)
    drawn = directions(REFERENCE_STATES, dim, torch.Generator().manual_seed(subject.seed))
    rays = torch.cat([axes, -axes, drawn])
    lengths = subject.region.radius * 10.0 ** torch.arange(DECADES + 1, dtype=torch.float64)
    with torch.no_grad():
        value = subject.value((subject.centre + lengths[:, None, None] * rays).reshape(-1, dim))
    value = value.reshape(len(lengths), len(rays))
    gain = value.nan_to_num(nan=torch.nan, posinf=torch.finfo(torch.float64).max).diff(dim=0)
    # A bounded V gains less with every decade, ln(1 + r^2) as much in each. An overflow is growth.
    overflows = value[-1].isposinf()
    flat = ~((gain[-1] > 0.01 * gain.amax(0)) | overflows)
    span = f"between {float(lengths[0]):g} and {float(lengths[-1]):g} from the centre"
    if not bool(flat.any()):
        words = f"V grows through every decade {span} along {len(rays)} rays; this is not a proof."
        return subject.finding("proper", Verdict.SUPPORTED, words, samples=value.numel())
    ray = int(flat.nonzero()[0])
    words = (
        f"Along one ray V goes from {float(value[0, ray]):.6g} to {float(value[-1, ray]):.6g} {span}, and stops growing; no "
        "sample can tell whether it grows further out. It matters for global stability alone."
    )
    witness = {
        "state": (subject.centre + lengths[-1] * rays[ray]).tolist(),
        "value": float(value[-1, ray]),
        "ray": rays[ray].tolist(),
    }
    return subject.finding("proper", Verdict.INCONCLUSIVE, words, samples=value.numel(), witness=witness)
