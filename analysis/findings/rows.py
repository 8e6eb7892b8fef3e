"""The rows of the catalogue: the audit's checks, what weights prove, and what is judged of a user's own V."""

from analysis.findings.catalogue import Check, ClaimWords
from analysis.findings.robustness_claims import ROBUSTNESS_CLAIMS

EQUILIBRIUM = Check(
    name="equilibrium",
    question="Does the model settle in a state, in one only, and does stabilising leave that state alone?",
    claims=(
        ClaimWords(
            name="exists",
            title="every audited image has an equilibrium",
            holds="every image leads the model to a state in which it comes to rest",
        ),
        # Of an anchored model the claim is about its stabilised field.
        ClaimWords(
            name="unique",
            about="stabilised field",
            title="the stabilised model has one equilibrium only",
            holds=(
                "the stabilised model rests where a resting state was found, and nowhere else; of the model without stabilising this "
                "says nothing"
            ),
            fails="We found an image with two resting states, so what the model says of it may depend on where it starts.",
        ),
        ClaimWords(
            name="unique",
            title="the cell alone has one equilibrium only",
            holds="for an image on which the cell comes to rest at all, it does so in one state only, wherever it starts",
            fails="We found an image with two resting states, so what the model says of it may depend on where it starts.",
        ),
        ClaimWords(
            name="preserved",
            title="stabilising keeps the equilibrium in place",
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
            title="V is zero at its centre",
            holds="the model's energy V is zero at its centre",
            fails="The model's energy V is not zero at its centre, as an energy must be.",
        ),
        ClaimWords(
            name="positive",
            title="V is positive everywhere else",
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
            title="V is convex",
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
            title="V falls as promised at every state",
            holds="from every state but its centre the stabilised model loses energy, as fast as promised or faster",
            fails="We found a state from which the model's energy grows, or falls more slowly than promised, although it is stabilised.",
        ),
        ClaimWords(
            name="unprojected",
            title="V falls as promised without stabilising",
            holds="even without stabilising, the model loses energy as fast as promised or faster, from every state but its rest",
            fails="We found a state from which the energy of the model, not stabilised, grows or falls more slowly than promised.",
            by_some=True,
        ),
        ClaimWords(
            name="flow",
            title="V falls as promised along whole trajectories",
            holds="the energy of the stabilised model, followed over time, falls as fast as promised or faster",
            fails="We followed the stabilised model from a random state, and its energy did not fall as fast as promised.",
        ),
    ),
    pieces={
        "claims": ("stabilised", "unprojected", "flow"),
        "field": ("unprojected field", "largest Euler step", "raw", "margin"),
        "planes": ("planes",),
    },
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
            title="the orthogonal layer keeps distances",
            holds="the orthogonal layer keeps the distance between any two resting states",
            fails="The orthogonal layer changes distances between resting states, which it is claimed to keep.",
            by_some=True,
        ),
        ClaimWords(
            name="increases",
            title="the orthogonal layer moves classes apart",
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
            title="small pushes die out without stabilising",
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
            title="the model's own solver reaches its tolerance",
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
            title="a step depends on the state",
            holds="the model looks at its own state when it takes a step, so that iterating can change something",
            fails="We found an image for which a step is the same from any state: the model does not iterate, it computes once.",
        ),
        ClaimWords(
            name="longer",
            title="iterating longer changes no answer",
            holds="iterating longer than the model does would not change its answers",
            fails="We found an image whose answer changes when the model iterates longer.",
        ),
        ClaimWords(
            name="start",
            title="starting elsewhere changes no answer",
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
    claims=ROBUSTNESS_CLAIMS,
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
        title="every step draws states closer",
        holds="with every step the model draws any two states closer, in one way of measuring, whatever the image",
    ),
    ClaimWords(
        name="stability",
        title="all states settle in one equilibrium",
        holds="from wherever the states start, they settle in one resting state, exponentially fast",
    ),
    ClaimWords(
        name="gain",
        title="changed features move the equilibrium by a bounded multiple",
        holds="a change of the features moves the resting state by no more than a known multiple of it",
    ),
    ClaimWords(
        name="well_posed",
        title="every image has exactly one equilibrium",
        holds="whatever the image, there is exactly one resting state",
    ),
    ClaimWords(
        name="affine_ball",
        title="a region around each equilibrium returns to it",
        holds="around each resting state that was looked at there is a region that returns to it",
    ),
    ClaimWords(
        name="radius",
        title="changes below the certified size alter no prediction",
        holds="no change of an image smaller than the size certified for it, which may be zero, changes its prediction",
    ),
    ClaimWords(
        name="deployed",
        title="certified answers hold as the model runs, rounding included",
        holds="as the model runs, with its rounding and its solver's tolerance, no change within the certified size changes the answer",
    ),
    ClaimWords(
        name="linf",
        title="certified images withstand the stated change of every pixel",
        holds="on images counted as certified, no change of each pixel by up to the stated size changes the answer",
    ),
    ClaimWords(
        name="unprojected",
        title="V falls as promised without stabilising",
        holds="even without stabilising, the model loses energy as fast as promised or faster, whatever the image",
        fails="We found an image and a state from which the energy of the model, not stabilised, does not fall as fast as promised.",
    ),
    ClaimWords(
        name="iss_gain",
        title="V bounds how far changed features move the equilibrium",
        holds="since V falls even without stabilising, changed features move the resting state by a bounded multiple",
    ),
)

# What ``stabdeq check`` says of a V, and of dynamics, that a user wrote.
OF_A_FUNCTION = (
    ClaimWords(name="zero", title="V is zero at the centre", holds="V is zero at the centre"),
    ClaimWords(
        name="positive",
        title="V is positive elsewhere in the region",
        holds="V is above zero everywhere in the region but at the centre",
    ),
    ClaimWords(name="proper", title="V grows without bound far out", holds="V grows without bound far from the centre"),
    ClaimWords(name="convex", title="V is convex", holds="V is a single bowl in the region, with no second dip"),
    ClaimWords(name="equilibrium", title="the centre is an equilibrium", holds="what starts at the centre stays there"),
    ClaimWords(name="decrease", title="V falls", holds="V falls from every state of the region but the centre"),
    ClaimWords(
        name="decay",
        title="V falls as promised",
        holds="V falls from every state of the region but the centre, as fast as promised or faster",
    ),
    ClaimWords(
        name="invariant", title="trajectories stay in the region", holds="what starts in the region stays in it"
    ),
    ClaimWords(
        name="attraction",
        title="trajectories tend to the equilibrium",
        holds="what starts in the region tends to the equilibrium",
    ),
    ClaimWords(
        name="global",
        title="the equilibrium is globally asymptotically stable",
        holds="what starts at any state whatever tends to the centre",
    ),
    ClaimWords(
        name="kept",
        title="the dynamics keep the set",
        holds="whatever begins on the set stays on it",
    ),
    ClaimWords(
        name="initial",
        title="the initial set lies before the barrier",
        holds="all of the initial set lies on the near side of the barrier, where B is at most zero",
    ),
    ClaimWords(
        name="unsafe",
        title="the unsafe set lies behind the barrier",
        holds="all of the unsafe set lies on the far side of the barrier, where B is above zero",
    ),
    ClaimWords(
        name="barrier",
        title="nothing crosses the barrier",
        holds="nothing crosses the barrier from the near side to the far side within the region",
    ),
)
