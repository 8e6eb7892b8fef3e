"""The claims that ``stabdeq check`` judges: their names, and what each says."""

from analysis.findings import exactly

ALONG_THE_FLOW = ("decrease", "decay", "invariant", "attraction")
GLOBAL = "global"  # of the whole space
NEEDS_DYNAMICS = ("equilibrium", *ALONG_THE_FLOW, GLOBAL)
OFF_CENTRE = ("positive", "decrease", "decay")  # what need not hold around the centre
OF_A_BARRIER = ("initial", "unsafe", "barrier")
KEPT = "kept"  # of a set {h = 0}
NAMES = ("zero", "positive", "proper", "convex", *NEEDS_DYNAMICS, KEPT, *OF_A_BARRIER)

_ATTRACTION = "Every trajectory from {} stays in it and tends to one equilibrium, at the centre or next to it."


def sentence(name: str, where: str, rate: float | None = None, *, in_steps: bool = False, is_whole: bool = True) -> str:
    """Return what the claim ``name`` says ``where``, such as "the box [0, 1]^2".

    ``rate`` is alpha, or kappa where the dynamics move ``in_steps``. ``is_whole``: the region holds its centre.
    """
    if name == GLOBAL:
        return "The centre is globally asymptotically stable: every trajectory tends to it, wherever it begins."
    off_centre = ", except at the centre" if is_whole else ""
    if in_steps and name in (*NEEDS_DYNAMICS, KEPT, "barrier"):
        falls = f"V(z+) <= (1 - {exactly(rate)}) V(z)" if rate else "V(z+) < V(z)"
        return {
            "equilibrium": "The step rests at the centre: z+ = c there.",
            "decrease": f"{falls} on {where}{off_centre}.",
            "invariant": f"No step leaves {where}.",
            "attraction": _ATTRACTION.format(where),
            KEPT: f"Steps stay on the set: h(z+) = 0 on {where}.",
            "barrier": f"B(z+) <= 0 wherever B(z) <= 0 on {where}.",
        }[name]
    return {
        "zero": "V vanishes at the centre.",
        "positive": f"V > 0 on {where}{off_centre}.",
        "proper": "V grows without bound with the distance from the centre.",
        "convex": f"V is convex: V at the middle of any two states of {where} is at most their mean.",
        "equilibrium": "The dynamics rest at the centre.",
        "decrease": f"V-dot < 0 on {where}{off_centre}.",
        "decay": f"V-dot <= -{exactly(rate)} V on {where}." if rate else f"V-dot <= 0 on {where}.",
        "invariant": f"No trajectory leaves {where}: V-dot <= 0 on its boundary.",
        "attraction": _ATTRACTION.format(where),
        KEPT: f"Trajectories stay on the set: Dh f = 0 on {where}.",
        "initial": f"B <= 0 on the initial set within {where}.",
        "unsafe": f"B > 0 on the unsafe set within {where}.",
        "barrier": f"B-dot < 0 wherever B = 0 on {where}.",
    }[name]
