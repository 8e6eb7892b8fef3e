"""A claim that was searched in vain and is proved besides: the proof is what counts."""

from dataclasses import replace

from analysis.findings import Finding, Verdict


def proved(finding: Finding, proof: str, besides: str | None = None) -> Finding:
    """Return ``finding``, SUPPORTED by a search, as PROVED: ``proof`` says how, and ``besides`` what was tried, the states if not given.

    A margin below 0, which only rounding left, says nothing beside a proof.
    """
    margin = None if finding.margin is None or not finding.margin >= 0 else finding.margin
    evidence = f"{proof} Besides, {besides or f'{finding.samples} states were tried.'}"
    return replace(finding, verdict=Verdict.PROVED, margin=margin, evidence=evidence)
