"""Small faults planted at random in the product, one at a time, and whether the tests of their subject notice."""
