"""What the weights of a model, or of piecewise affine dynamics, prove: one subject a file."""
