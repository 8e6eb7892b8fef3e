"""The commands that tell of the library itself: what it has by name, and what it finds on this machine."""
