"""The checks of the audit, a file each: they judge what a model claims, and evaluate the witnesses of a report anew."""
