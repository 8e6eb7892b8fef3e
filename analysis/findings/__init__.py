"""What an audit says: findings with their verdicts, and the catalogue of checks."""

from analysis.findings.finding import CheckResult, Finding, Measurement, short
from analysis.findings.verdict import Verdict

__all__ = ["CheckResult", "Finding", "Measurement", "Verdict", "short"]
