"""The soak: many damaged files and many kills, far more than the tests have time for."""
