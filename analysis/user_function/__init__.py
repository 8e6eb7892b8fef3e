"""V and dynamics that a user wrote: called with care, differentiated, and judged claim by claim."""
