"""A claim that was searched in vain and is proved besides: the proof is what counts."""

from dataclasses import replace

from analysis.findings import Finding, Verdict


def proved(finding: Finding, proof: str) -> Finding:
    """Return ``finding``, SUPPORTED by a search, as PROVED: ``proof`` says how, and how many states were tried ends it.

    A margin below 0, which only rounding left, says nothing beside a proof.
    """
    margin = None if finding.margin is None or not finding.margin >= 0 else finding.margin
    evidence = f"{proof} Besides, {finding.samples} states were tried."
    return replace(finding, verdict=Verdict.PROVED, margin=margin, evidence=evidence)
