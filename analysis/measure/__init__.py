"""Numbers of a model, without a verdict: its equilibria, spectra, runs of solvers, planes of V, an embedding."""
