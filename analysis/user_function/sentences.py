"""The claims that ``stabdeq check`` judges: their names, and what each says."""

from analysis.findings import exactly

ALONG_THE_FLOW = ("decrease", "decay", "invariant")
NEEDS_DYNAMICS = ("equilibrium", *ALONG_THE_FLOW)
OFF_CENTRE = ("positive", "decrease", "decay")  # what need not hold in a small ball around the centre
NAMES = ("zero", "positive", "proper", "convex", *NEEDS_DYNAMICS)


def sentence(name: str, where: str, alpha: float | None = None) -> str:
    """Return what the claim ``name`` says ``where``, such as "the box [0, 1]^2"; ``alpha`` is the rate of the decay."""
    off_centre = "" if "further than" in where else ", except at the centre"
    return {
        "zero": "V vanishes at the centre.",
        "positive": f"V > 0 on {where}{off_centre}.",
        "proper": "V grows without bound with the distance from the centre.",
        "convex": f"V is convex: V at the middle of any two states of {where} is at most their mean.",
        "equilibrium": "The dynamics rest at the centre.",
        "decrease": f"V-dot < 0 on {where}{off_centre}.",
        "decay": f"V-dot <= -{exactly(alpha)} V on {where}." if alpha else f"V-dot <= 0 on {where}.",
        "invariant": f"No trajectory leaves {where}: V-dot <= 0 on its boundary.",
    }[name]
