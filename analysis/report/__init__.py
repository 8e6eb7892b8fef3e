"""The report, and how it is shown: as a page, in a terminal, for a CI system."""
