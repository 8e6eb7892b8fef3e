"""The rows of the catalogue: the audit's checks, what weights prove, and what is judged of a user's own V."""

from analysis.findings.catalogue import Check, ClaimWords

EQUILIBRIUM = Check(
    name="equilibrium",
    question="Does the model settle in a state, in one only, and does stabilising leave that state alone?",
    claims=(
        ClaimWords(name="exists", holds="every image leads the model to a state in which it comes to rest"),
        # Of an anchored model the claim is about its stabilised field.
        ClaimWords(
            name="unique",
            about="stabilised field",
            holds="the stabilised model rests in the state that was found and nowhere else; without stabilising there may be others",
            fails="We found an image with two resting states, so what the model says of it may depend on where it starts.",
        ),
        ClaimWords(
            name="unique",
            holds="for each image there is one resting state only, wherever one starts to look for it",
            fails="We found an image with two resting states, so what the model says of it may depend on where it starts.",
        ),
        ClaimWords(
            name="preserved",
            holds="stabilising leaves the resting state, which the prediction is read from, where it was",
            fails=(
                "We found an image for which the stabilised model does not rest where its prediction is read: it is pushed away "
                "from there."
            ),
            by_some=True,
        ),
    ),
    run="analysis.checks.equilibrium:check",
    replay="analysis.checks.equilibrium:replay",
    seconds={"": 2.0},
    needs=frozenset({"image"}),
)

POSITIVITY = Check(
    name="positivity",
    question="Is V an energy: zero at the equilibrium and positive everywhere else?",
    claims=(
        ClaimWords(
            name="zero",
            holds="the model's energy V is zero at its centre",
            fails="The model's energy V is not zero at its centre, as an energy must be.",
        ),
        ClaimWords(
            name="positive",
            holds="the model's energy V is above zero in every state but its centre",
            fails="We found a state, away from the centre, whose energy V is lower than promised.",
        ),
    ),
    run="analysis.checks.positivity:check",
    replay="analysis.checks.positivity:replay",
    seconds={"": 1.0},
    needs=frozenset({"lyapunov"}),
)

CONVEXITY = Check(
    name="convexity",
    question="Is V a single bowl, with no second dip where a trajectory could be caught?",
    claims=(
        ClaimWords(
            name="convex",
            holds="the model's energy V is a single bowl, with no second dip where a state could be caught",
            fails="We found two states between which the energy V bulges upwards: it is no bowl, and may have a second dip.",
        ),
    ),
    run="analysis.checks.convexity:check",
    replay="analysis.checks.convexity:replay",
    seconds={"": 3.0},
    needs=frozenset({"lyapunov"}),
)

DECAY = Check(
    name="decay",
    question="Does V fall along every trajectory, at the promised rate, until the equilibrium is reached?",
    claims=(
        ClaimWords(
            name="stabilised",
            holds="from every state but its centre the stabilised model loses energy, as fast as promised or faster",
            fails="We found a state from which the model's energy grows, or falls more slowly than promised, although it is stabilised.",
        ),
        ClaimWords(
            name="unprojected",
            holds="even without stabilising, the model loses energy as fast as promised or faster, from every state but its rest",
            fails="We found a state from which the energy of the model, not stabilised, grows or falls more slowly than promised.",
            by_some=True,
        ),
        ClaimWords(
            name="flow",
            holds="the energy of the stabilised model, followed over time, falls as fast as promised or faster",
            fails="We followed the stabilised model from a random state, and its energy did not fall as fast as promised.",
        ),
    ),
    run="analysis.checks.decay:check",
    replay="analysis.checks.decay:replay",
    seconds={"": 20.0},
    needs=frozenset({"image", "equilibria", "lyapunov"}),
    figures={
        "V where it grows fastest and slowest": "analysis.report.figures.phase_plane:growth_plane",
        "V towards other equilibria": "analysis.report.figures.phase_plane:classes_plane",
        "V along trajectories of the stabilised field": "analysis.report.figures.decay:flow",
        "Decay margin against distance": "analysis.report.figures.decay:margin",
        "Violations of the unprojected field": "analysis.report.figures.decay:raw_field",
    },
)

SEPARATION = Check(
    name="separation",
    question="Do the classes lie apart, and does the orthogonal map change how far?",
    claims=(
        ClaimWords(
            name="isometry",
            holds="the orthogonal layer keeps the distance between any two resting states",
            fails="The orthogonal layer changes distances between resting states, which it is claimed to keep.",
            by_some=True,
        ),
        ClaimWords(
            name="increases",
            holds="the orthogonal layer moves images of different classes further apart",
            fails="The orthogonal layer moves no two classes further apart: it keeps every distance as it is.",
            by_some=True,
        ),
    ),
    run="analysis.checks.separation:check",
    replay="analysis.checks.separation:replay",
    seconds={"": 2.5},
    needs=frozenset({"equilibria", "classes"}),
    figures={
        "Class distances before the orthogonal map": "analysis.report.figures.separation:distances_before",
        "Class distances after the orthogonal map": "analysis.report.figures.separation:distances_after",
        "Map of the states (t-SNE)": "analysis.report.figures.embedding:states",
    },
)

SPECTRUM = Check(
    name="spectrum",
    question="Does a small push away from the equilibrium die out or grow?",
    claims=(
        ClaimWords(
            name="stable",
            holds="the model returns to its resting state when pushed out of it a little, even without stabilising",
            fails="We found an image whose resting state is unstable without stabilising: a small push away from it grows.",
            by_some=True,
        ),
    ),
    run="analysis.checks.spectrum:check",
    replay="analysis.checks.spectrum:replay",
    seconds={"": 0.2},
    needs=frozenset({"image", "equilibria"}),
    figures={"Eigenvalues of the cell’s Jacobian at the equilibrium": "analysis.report.figures.spectrum:spectrum"},
)

CONVERGENCE = Check(
    name="convergence",
    question="How much work does each solver need to reach the equilibrium?",
    claims=(
        ClaimWords(
            name="own solver",
            holds="the model's own solver gets as close to the resting state as it is set to, on every image",
            fails="We found an image on which the model's own solver stops too far from the resting state.",
        ),
    ),
    run="analysis.checks.convergence:check",
    replay="analysis.checks.convergence:replay",
    seconds={"": 0.1},
    needs=frozenset({"image"}),
    figures={"Residual against evaluations": "analysis.report.figures.convergence:convergence"},
)

ITERATION = Check(
    name="iteration",
    question="Does the iteration do anything, or would one step, or any state, answer as well?",
    claims=(
        ClaimWords(
            name="state",
            holds="the model looks at its own state when it takes a step, so that iterating can change something",
            fails="We found an image for which a step is the same from any state: the model does not iterate, it computes once.",
        ),
        ClaimWords(
            name="longer",
            holds="iterating longer than the model does would not change its answers",
            fails="We found an image whose answer changes when the model iterates longer.",
        ),
        ClaimWords(
            name="start",
            holds="the answers do not depend on where the model starts",
            fails="We found an image whose answer depends on where the model starts: it rests in two states, read as two classes.",
        ),
    ),
    run="analysis.checks.iteration:check",
    replay="analysis.checks.iteration:replay",
    seconds={"": 3.0},
    needs=frozenset({"image", "equilibria", "choices"}),
    figures={"What the iteration brings": "analysis.report.figures.iteration:accuracy"},
    on_request=True,
)

ROBUSTNESS = Check(
    name="robustness",
    question="Is the measured robust accuracy the model's own, or did the attack fail?",
    claims=(
        ClaimWords(
            name="eps = 0",
            holds="an attack that may change nothing changes no prediction",
            fails="An attack that may change nothing changes predictions: the figures count something else than attacks.",
        ),
        ClaimWords(
            name="first drop",
            holds="accuracy does not collapse at the smallest change of the image and then stay flat",
            fails="Accuracy collapses at the smallest change of the image and then stays flat: a fault in handling images, not an attack.",
        ),
        ClaimWords(
            name="monotone",
            holds="an attack that may change more never leaves more images right",
            fails="An attack that may change more leaves more images right: it misses what it found before.",
        ),
        ClaimWords(
            name="unbounded",
            holds="where the attack may change everything, the model does no better than guessing",
            fails="Images stay right where the attack may change everything: the attack fails, not the model holds.",
        ),
        ClaimWords(
            name="gradients",
            holds="on every image that withstood it, the attack could see which way to go",
            fails="On some images that withstood it, the attack saw no way to go: they were not really attacked.",
        ),
        ClaimWords(
            name="guide",
            holds="the direction that the attack follows is better than a random one",
            fails="The direction that the attack follows is no better than a random one, so it is easily withstood.",
        ),
        ClaimWords(
            name="steps",
            holds="a longer attack breaks no more images",
            fails="A longer attack breaks more images: the measured robustness is too high.",
        ),
        ClaimWords(
            name="restarts",
            holds="other starting points of the attack break no more images",
            fails="Other starting points break more images: the measured robustness is too high.",
        ),
        ClaimWords(
            name="silent success",
            holds="the attack reports every image that it broke on its way",
            fails="The attack broke images on its way and gave them back unbroken: the measured robustness is too high.",
        ),
        ClaimWords(
            name="single step",
            holds="a single large step breaks no image that withstood the whole attack",
            fails="A single large step breaks images that withstood the whole attack, so that attack is at fault.",
        ),
        ClaimWords(
            name="random points",
            holds="random changes break no image that withstood the attack",
            fails="Random changes break images that withstood the attack: the measured robustness is too high.",
        ),
        ClaimWords(
            name="no gradients",
            holds="trial and error breaks no image that withstood the attack",
            fails="Trial and error breaks images that withstood the attack: the measured robustness is too high.",
        ),
        ClaimWords(
            name="another loss",
            holds="another measure of error leads the attack to no more broken images",
            fails="With another measure of error the attack breaks more images: the measured robustness is too high.",
        ),
        ClaimWords(
            name="another gradient",
            holds="another way of computing directions leads the attack to no more broken images",
            fails="With directions computed in another way the attack breaks more images: the measured robustness is too high.",
        ),
        ClaimWords(
            name="transfer from its twin",
            holds="attacks made on the same model without stabilising break no image that withstood",
            fails="Attacks made on the same model without stabilising break images that withstood: stabilising hides the way, no more.",
        ),
        ClaimWords(
            name="transfer from a stranger",
            holds="attacks made on a simple imitation of the model break no image that withstood",
            fails="Attacks made on a simple imitation of the model break images that withstood: the measured robustness is too high.",
        ),
        ClaimWords(
            name="derivatives",
            holds="the direction that the model gives an attack is its true slope",
            fails="The direction that the model gives an attack is not its true slope, so the attack is misled.",
        ),
        ClaimWords(
            name="deterministic",
            holds="asked twice, the model gives the same answer",
            fails="Asked twice, the model gives two answers, so counts of broken images are a matter of chance.",
        ),
        ClaimWords(
            name="batch",
            holds="the answer for an image does not depend on the images beside it",
            fails="The answer for an image depends on the images beside it, so an image broken here may stand elsewhere.",
        ),
        ClaimWords(
            name="same model",
            holds="the model that is attacked and the model that is judged give the same answers",
            fails="The model that is attacked and the model that is judged give different answers.",
        ),
        ClaimWords(
            name="solver",
            holds="solving more accurately changes no answer on attacked images",
            fails="Solving more accurately changes answers on attacked images: the measured figures are of unfinished work.",
        ),
        ClaimWords(
            name="attacked equilibria",
            holds="the model comes to rest on attacked images, too",
            fails="On some attacked images the model does not come to rest, so the attack was on something else.",
        ),
    ),
    run="analysis.checks.robustness.check:check",
    replay="analysis.checks.robustness.check:replay",
    seconds={
        "the attack at every eps": 6.0,
        "more steps and restarts": 4.0,
        "rivals without gradients, and surrogates": 8.0,
        "gradients, repeats and equilibria": 1.0,
    },
    needs=frozenset({"image", "pixels", "classes"}),
    figures={"Accuracy against eps": "analysis.report.figures.robustness:accuracy"},
    on_request=True,
    all_images_at_once=True,
)

# What ``stabdeq certify`` says of weights.
CERTIFIED = (
    ClaimWords(
        name="contraction",
        holds="with every step the model draws any two states closer, in one way of measuring, whatever the image",
    ),
    ClaimWords(
        name="stability", holds="from wherever the states start, they settle in one resting state, exponentially fast"
    ),
    ClaimWords(
        name="gain", holds="a change of the features moves the resting state by no more than a known multiple of it"
    ),
    ClaimWords(name="well_posed", holds="whatever the image, there is exactly one resting state"),
    ClaimWords(
        name="affine_ball", holds="around each resting state that was looked at there is a region that returns to it"
    ),
    ClaimWords(
        name="radius",
        holds="no change of an image smaller than the size certified for it, which may be zero, changes its prediction",
    ),
    ClaimWords(
        name="deployed",
        holds="as the model runs, with its rounding and its solver's tolerance, no change within the certified size changes the answer",
    ),
    ClaimWords(
        name="linf",
        holds="on images counted as certified, no change of each pixel by up to the stated size changes the answer",
    ),
    ClaimWords(
        name="unprojected",
        holds="even without stabilising, the model loses energy as fast as promised or faster, whatever the image",
        fails="We found an image and a state from which the energy of the model, not stabilised, does not fall as fast as promised.",
    ),
    ClaimWords(
        name="iss_gain",
        holds="since V falls even without stabilising, changed features move the resting state by a bounded multiple",
    ),
)

# What ``stabdeq check`` says of a V, and of dynamics, that a user wrote.
OF_A_FUNCTION = (
    ClaimWords(name="zero", holds="V is zero at the centre"),
    ClaimWords(name="positive", holds="V is above zero everywhere in the region but at the centre"),
    ClaimWords(name="proper", holds="V grows without bound far from the centre"),
    ClaimWords(name="convex", holds="V is a single bowl in the region, with no second dip"),
    ClaimWords(name="equilibrium", holds="what starts at the centre stays there"),
    ClaimWords(name="decrease", holds="V falls from every state of the region but the centre"),
    ClaimWords(
        name="decay", holds="V falls from every state of the region but the centre, as fast as promised or faster"
    ),
    ClaimWords(name="invariant", holds="what starts in the region stays in it"),
    ClaimWords(name="attraction", holds="what starts in the region tends to the equilibrium"),
    ClaimWords(
        name="initial", holds="all of the initial set lies on the near side of the barrier, where B is at most zero"
    ),
    ClaimWords(name="unsafe", holds="all of the unsafe set lies on the far side of the barrier, where B is above zero"),
    ClaimWords(
        name="barrier", holds="nothing crosses the barrier from the near side to the far side within the region"
    ),
)
