"""What is claimed where an attack is said to have measured robustness: that it is strong, and counted right."""

from analysis.findings.catalogue import ClaimWords

ROBUSTNESS_CLAIMS = (
    ClaimWords(
        name="eps = 0",
        title="an attack of size 0 changes nothing",
        holds="an attack that may change nothing changes no prediction",
        fails="An attack that may change nothing changes predictions: the figures count something else than attacks.",
    ),
    ClaimWords(
        name="first drop",
        title="accuracy does not collapse at once",
        holds="accuracy does not collapse at the smallest change of the image and then stay flat",
        fails="Accuracy collapses at the smallest change of the image and then stays flat: a fault in handling images, not an attack.",
    ),
    ClaimWords(
        name="monotone",
        title="larger attacks break no fewer images",
        holds="an attack that may change more never leaves more images right",
        fails="An attack that may change more leaves more images right: it misses what it found before.",
    ),
    ClaimWords(
        name="unbounded",
        title="unlimited attacks break all but guesses",
        holds="where the attack may change everything, the model does no better than guessing",
        fails="Images stay right where the attack may change everything: the attack fails, not the model holds.",
    ),
    ClaimWords(
        name="gradients",
        title="the attack sees a direction on every image",
        holds="on every image that withstood it, the attack could see which way to go",
        fails="On some images that withstood it, the attack saw no way to go: they were not really attacked.",
    ),
    ClaimWords(
        name="guide",
        title="the attack's direction beats a random one",
        holds="the direction that the attack follows is better than a random one",
        fails="The direction that the attack follows is no better than a random one, so it is easily withstood.",
    ),
    ClaimWords(
        name="steps",
        title="longer attacks break no more",
        holds="a longer attack breaks no more images",
        fails="A longer attack breaks more images: the measured robustness is too high.",
    ),
    ClaimWords(
        name="restarts",
        title="other starting points break no more",
        holds="other starting points of the attack break no more images",
        fails="Other starting points break more images: the measured robustness is too high.",
    ),
    ClaimWords(
        name="silent success",
        title="the attack reports all that it breaks",
        holds="the attack reports every image that it broke on its way",
        fails="The attack broke images on its way and gave them back unbroken: the measured robustness is too high.",
    ),
    ClaimWords(
        name="single step",
        title="a single step breaks no more",
        holds="a single large step breaks no image that withstood the whole attack",
        fails="A single large step breaks images that withstood the whole attack, so that attack is at fault.",
    ),
    ClaimWords(
        name="random points",
        title="random changes break no more",
        holds="random changes break no image that withstood the attack",
        fails="Random changes break images that withstood the attack: the measured robustness is too high.",
    ),
    ClaimWords(
        name="no gradients",
        title="trial and error breaks no more",
        holds="trial and error breaks no image that withstood the attack",
        fails="Trial and error breaks images that withstood the attack: the measured robustness is too high.",
    ),
    ClaimWords(
        name="another loss",
        title="another measure of error breaks no more",
        holds="another measure of error leads the attack to no more broken images",
        fails="With another measure of error the attack breaks more images: the measured robustness is too high.",
    ),
    ClaimWords(
        name="another gradient",
        title="directions computed otherwise break no more",
        holds="another way of computing directions leads the attack to no more broken images",
        fails="With directions computed in another way the attack breaks more images: the measured robustness is too high.",
    ),
    ClaimWords(
        name="transfer from its twin",
        title="attacks on the model without stabilising break no more",
        holds="attacks made on the same model without stabilising break no image that withstood",
        fails="Attacks made on the same model without stabilising break images that withstood: stabilising hides the way, no more.",
    ),
    ClaimWords(
        name="transfer from a stranger",
        title="attacks on an imitation break no more",
        holds="attacks made on a simple imitation of the model break no image that withstood",
        fails="Attacks made on a simple imitation of the model break images that withstood: the measured robustness is too high.",
    ),
    ClaimWords(
        name="derivatives",
        title="the attacked gradient is the true slope",
        holds="the direction that the model gives an attack is its true slope",
        fails="The direction that the model gives an attack is not its true slope, so the attack is misled.",
    ),
    ClaimWords(
        name="deterministic",
        title="asked twice the model answers alike",
        holds="asked twice, the model gives the same answer",
        fails="Asked twice, the model gives two answers, so counts of broken images are a matter of chance.",
    ),
    ClaimWords(
        name="batch",
        title="other images in the batch change no answer",
        holds="the answer for an image does not depend on the images beside it",
        fails="The answer for an image depends on the images beside it, so an image broken here may stand elsewhere.",
    ),
    ClaimWords(
        name="same model",
        title="the attacked and the judged model agree",
        holds="the model that is attacked and the model that is judged give the same answers",
        fails="The model that is attacked and the model that is judged give different answers.",
    ),
    ClaimWords(
        name="solver",
        title="solving more accurately changes no answer",
        holds="solving more accurately changes no answer on attacked images",
        fails="Solving more accurately changes answers on attacked images: the measured figures are of unfinished work.",
    ),
    ClaimWords(
        name="attacked equilibria",
        title="attacked images have an equilibrium, too",
        holds="the model comes to rest on attacked images, too",
        fails="On some attacked images the model does not come to rest, so the attack was on something else.",
    ),
)
