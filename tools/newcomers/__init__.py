"""Three people's first hour, from the wheel that users install: each ends in the verdict that they came for."""
