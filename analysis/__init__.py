"""Evidence on what is claimed of a model, or of a Lyapunov function: checks, proofs and reports."""
