"""What an audit says: findings with their verdicts, and the catalogue of all claims."""

from analysis.findings.finding import CheckResult, Finding, Measurement, Skipped, exactly, short
from analysis.findings.verdict import Verdict

__all__ = ["CheckResult", "Finding", "Measurement", "Skipped", "Verdict", "exactly", "short"]
