"""A work that several processes share: the parts that they write, and the whole that is joined of these."""
