"""Is the attack any good? Signs that a measured robust accuracy is not the model's own, each with its remedy."""
