"""What the measured numbers of our checks are, in a few words each: for tables in which they stand without their sentences."""

_TITLES = {
    ("equilibrium", "second equilibria"): "share of images with a second equilibrium",
    ("decay", "unprojected field"): "share of states at which V falls too slowly without stabilising",
    ("decay", "largest Euler step"): "longest Euler step that lowers V at every state tried",
    ("separation", "between classes"): "distance between classes, as a multiple of that within a class",
    ("iteration", "difficulty"): "rank correlation of evaluations with the margin of the answer",
    ("iteration", "movement"): "change of the state, relative, when its answer is fixed",
    ("spectrum", "spectral radius"): "largest spectral radius of the Jacobian J",
    ("spectrum", "numerical abscissa"): "largest eigenvalue of the symmetric part of J - I",
}
_OF_A_CHECK = {
    "convergence": "share of images on which {} arrives",
    "iteration": "share of right answers, read from {}",
}


def title_of_number(check: str, name: str) -> str:
    """Return what the number ``name`` of ``check`` is; its name where nobody says.

    >>> title_of_number("convergence", "picard"), title_of_number("radius", "accuracy")
    ('share of images on which picard arrives', 'accuracy')
    """
    return _TITLES.get((check, name)) or _OF_A_CHECK.get(check, "{}").replace("{}", name)
