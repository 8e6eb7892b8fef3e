"""What a finding means, in one sentence for a person who does not know Lyapunov theory."""

from analysis.findings import Finding, Verdict
from analysis.findings.catalogue import words_of
from analysis.findings.finding import NOT_JUDGED


def in_plain_words(finding: Finding) -> str:
    """Return what a finding, which may be foreign, means: one sentence that claims no more than its verdict."""
    if finding.name == NOT_JUDGED:
        return "This was not looked into, so nothing is known of it."
    words = words_of(finding.check, finding.name, finding.claim)
    if words is None:
        return _OF_ANY_CLAIM[finding.verdict]
    if finding.verdict is Verdict.REFUTED and words.fails:
        return words.fails
    return _SENTENCES[finding.verdict].format(words.holds)


_SENTENCES = {
    Verdict.PROVED: "This is proved: {}.",
    Verdict.SUPPORTED: "As far as we looked, {}.",
    Verdict.REFUTED: "We found a case that speaks against it: it is not true that {}.",
    Verdict.INCONCLUSIVE: "We cannot tell whether {}.",
    Verdict.UNKNOWN: "The report does not say, in words known here, whether {}.",
}
_OF_ANY_CLAIM = {
    Verdict.PROVED: "This is proved.",
    Verdict.SUPPORTED: "We looked for a case that speaks against it and found none; that is no proof.",
    Verdict.REFUTED: "We found a case that speaks against it.",
    Verdict.INCONCLUSIVE: "We cannot tell whether this is true.",
    Verdict.UNKNOWN: "The report does not say, in words known here, whether this is true.",
}
