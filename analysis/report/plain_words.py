"""What a finding means, in one sentence for a person who does not know Lyapunov theory."""

from collections.abc import Mapping
from typing import Any

from analysis.findings.values import printable
from analysis.report.reading import verdict

# What holds where the claim is true, as the end of "We cannot tell whether ..."; V is the model's energy.
HOLDS = {
    "equilibrium.exists": "every image leads the model to a state in which it comes to rest",
    "equilibrium.unique": "for each image there is one resting state only, wherever one starts to look for it",
    "equilibrium.preserved": "stabilising leaves the resting state, which the prediction is read from, where it was",
    "positivity.zero": "the model's energy V is zero at its centre",
    "positivity.positive": "the model's energy V is above zero in every state but its centre",
    "convexity.convex": "the model's energy V is a single bowl, with no second dip where a state could be caught",
    "decay.stabilised": "from every state but its centre the stabilised model loses energy, as fast as promised or faster",
    "decay.flow": "the energy of the stabilised model, followed over time, falls as fast as promised or faster",
    "separation.isometry": "the orthogonal layer keeps the distance between any two resting states",
    "separation.increases": "the orthogonal layer moves images of different classes further apart",
    "spectrum.stable": "the model returns to its resting state when pushed out of it a little, even without stabilising",
    "convergence.own solver": "the model's own solver gets as close to the resting state as it is set to, on every image",
    "robustness.eps = 0": "an attack that may change nothing changes no prediction",
    "robustness.first drop": "accuracy does not collapse at the smallest change of the image and then stay flat",
    "robustness.monotone": "an attack that may change more never leaves more images right",
    "robustness.unbounded": "where the attack may change everything, the model does no better than guessing",
    "robustness.gradients": "on every image that withstood it, the attack could see which way to go",
    "robustness.guide": "the direction that the attack follows is better than a random one",
    "robustness.steps": "a longer attack breaks no more images",
    "robustness.restarts": "other starting points of the attack break no more images",
    "robustness.silent success": "the attack reports every image that it broke on its way",
    "robustness.single step": "a single large step breaks no image that withstood the whole attack",
    "robustness.random points": "random changes break no image that withstood the attack",
    "robustness.no gradients": "trial and error breaks no image that withstood the attack",
    "robustness.another loss": "another measure of error leads the attack to no more broken images",
    "robustness.another gradient": "another way of computing directions leads the attack to no more broken images",
    "robustness.transfer from its twin": "attacks made on the same model without stabilising break no image that withstood",
    "robustness.transfer from a stranger": "attacks made on a simple imitation of the model break no image that withstood",
    "robustness.derivatives": "the direction that the model gives an attack is its true slope",
    "robustness.deterministic": "asked twice, the model gives the same answer",
    "robustness.batch": "the answer for an image does not depend on the images beside it",
    "robustness.same model": "the model that is attacked and the model that is judged give the same answers",
    "robustness.solver": "solving more accurately changes no answer on attacked images",
    "robustness.attacked equilibria": "the model comes to rest on attacked images, too",
    "contraction.contraction": "with every step the model draws any two states closer, in one way of measuring, whatever the image",
    "stability.stability": "from wherever the states start, they settle in one resting state, exponentially fast",
    "gain.gain": "a change of the features moves the resting state by no more than a known multiple of it",
    "well_posed.well_posed": "whatever the image, there is exactly one resting state",
    "affine_ball.affine_ball": "around each resting state that was looked at there is a region that returns to it",
    "radius.radius": "no change of an image smaller than the size certified for it, which may be zero, changes its prediction",
    "linf.linf": "on images counted as certified, no change of each pixel by up to the stated size changes the answer",
    "iss_gain.iss_gain": "since V falls even without stabilising, changed features move the resting state by a bounded multiple",
    "zero.zero": "V is zero at the centre",
    "positive.positive": "V is above zero everywhere in the region but at the centre",
    "proper.proper": "V grows without bound far from the centre",
    "convex.convex": "V is a single bowl in the region, with no second dip",
    "equilibrium.equilibrium": "what starts at the centre stays there",
    "decrease.decrease": "V falls from every state of the region but the centre",
    "decay.decay": "V falls from every state of the region but the centre, as fast as promised or faster",
    "invariant.invariant": "what starts in the region stays in it",
}

# What was seen where the claim is refuted.
FAILS = {
    "equilibrium.unique": "We found an image with two resting states, so what the model says of it may depend on where it starts.",
    "equilibrium.preserved": (
        "We found an image for which the stabilised model does not rest where its prediction is read: it is pushed away from there."
    ),
    "positivity.zero": "The model's energy V is not zero at its centre, as an energy must be.",
    "positivity.positive": "We found a state, away from the centre, whose energy V is lower than promised.",
    "convexity.convex": "We found two states between which the energy V bulges upwards: it is no bowl, and may have a second dip.",
    "decay.stabilised": (
        "We found a state from which the model's energy grows, or falls more slowly than promised, although it is stabilised."
    ),
    "decay.flow": "We followed the stabilised model from a random state, and its energy did not fall as fast as promised.",
    "separation.isometry": "The orthogonal layer changes distances between resting states, which it is claimed to keep.",
    "separation.increases": "The orthogonal layer moves no two classes further apart: it keeps every distance as it is.",
    "spectrum.stable": "We found an image whose resting state is unstable without stabilising: a small push away from it grows.",
    "convergence.own solver": "We found an image on which the model's own solver stops too far from the resting state.",
    "robustness.eps = 0": "An attack that may change nothing changes predictions: the figures count something else than attacks.",
    "robustness.first drop": (
        "Accuracy collapses at the smallest change of the image and then stays flat: a fault in handling images, not an attack."
    ),
    "robustness.monotone": "An attack that may change more leaves more images right: it misses what it found before.",
    "robustness.unbounded": "Images stay right where the attack may change everything: the attack fails, not the model holds.",
    "robustness.gradients": "On some images that withstood it, the attack saw no way to go: they were not really attacked.",
    "robustness.guide": "The direction that the attack follows is no better than a random one, so it is easily withstood.",
    "robustness.steps": "A longer attack breaks more images: the measured robustness is too high.",
    "robustness.restarts": "Other starting points break more images: the measured robustness is too high.",
    "robustness.silent success": "The attack broke images on its way and gave them back unbroken: the measured robustness is too high.",
    "robustness.single step": "A single large step breaks images that withstood the whole attack, so that attack is at fault.",
    "robustness.random points": "Random changes break images that withstood the attack: the measured robustness is too high.",
    "robustness.no gradients": "Trial and error breaks images that withstood the attack: the measured robustness is too high.",
    "robustness.another loss": "With another measure of error the attack breaks more images: the measured robustness is too high.",
    "robustness.another gradient": (
        "With directions computed in another way the attack breaks more images: the measured robustness is too high."
    ),
    "robustness.transfer from its twin": (
        "Attacks made on the same model without stabilising break images that withstood: stabilising hides the way, no more."
    ),
    "robustness.transfer from a stranger": (
        "Attacks made on a simple imitation of the model break images that withstood: the measured robustness is too high."
    ),
    "robustness.derivatives": "The direction that the model gives an attack is not its true slope, so the attack is misled.",
    "robustness.deterministic": "Asked twice, the model gives two answers, so counts of broken images are a matter of chance.",
    "robustness.batch": "The answer for an image depends on the images beside it, so an image broken here may stand elsewhere.",
    "robustness.same model": "The model that is attacked and the model that is judged give different answers.",
    "robustness.solver": "Solving more accurately changes answers on attacked images: the measured figures are of unfinished work.",
    "robustness.attacked equilibria": "On some attacked images the model does not come to rest, so the attack was on something else.",
}

UNIQUE_WHEN_STABILISED = (
    "the stabilised model rests in the state that was found and nowhere else; without stabilising there may be others"
)


def in_plain_words(finding: Mapping[Any, Any]) -> str:
    """Return what a finding of a report, which may be foreign, means: one sentence that claims no more than its verdict.

    >>> in_plain_words({"check": "decay", "name": "flow", "verdict": "SUPPORTED"})
    'As far as we looked, the energy of the stabilised model, followed over time, falls as fast as promised or faster.'
    """
    word = verdict(dict(finding))
    if finding.get("name") == "not judged":
        return "This was not looked into, so nothing is known of it."
    key = f"{printable(finding.get('check'))}.{printable(finding.get('name'))}"
    if word == "REFUTED" and key in FAILS:
        return FAILS[key]
    # One name, two claims: that of an anchored model is about its stabilised field.
    stabilised = key == "equilibrium.unique" and "stabilised field" in printable(finding.get("claim"))
    holds = UNIQUE_WHEN_STABILISED if stabilised else HOLDS.get(key)
    if holds is None:
        return _OF_ANY_CLAIM[word]
    return _SENTENCES[word].format(holds)


_SENTENCES = {
    "PROVED": "This is proved: {}.",
    "SUPPORTED": "As far as we looked, {}.",
    "REFUTED": "We found a case that speaks against it: it is not true that {}.",
    "INCONCLUSIVE": "We cannot tell whether {}.",
    "UNKNOWN": "The report does not say, in words known here, whether {}.",
}
_OF_ANY_CLAIM = {
    "PROVED": "This is proved.",
    "SUPPORTED": "We looked for a case that speaks against it and found none; that is no proof.",
    "REFUTED": "We found a case that speaks against it.",
    "INCONCLUSIVE": "We cannot tell whether this is true.",
    "UNKNOWN": "The report does not say, in words known here, whether this is true.",
}
