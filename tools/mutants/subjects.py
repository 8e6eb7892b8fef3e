"""Which files faults are planted in, and which test files are to notice them."""

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Subject(NamedTuple):
    """``files`` and ``tests`` are patterns below the root and below ``tests``; the files in ``without`` are left out."""

    files: tuple[str, ...]
    tests: tuple[str, ...]
    without: tuple[str, ...] = ()

    def sources(self) -> list[Path]:
        """Return the files that faults are planted in."""
        left_out = {path for pattern in self.without for path in ROOT.glob(pattern)}
        return sorted({path for pattern in self.files for path in ROOT.glob(pattern)} - left_out)

    def test_files(self) -> list[Path]:
        """Return the test files; raises FileNotFoundError where there is none of that name."""
        paths = [ROOT / "tests" / f"{name}.py" for name in self.tests]
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(f"{path} is named in {__file__}, but there is no such file: correct the table")
        return paths


# Compiled code (solvers/compiled.py) is left out: a mutant of it takes a C++ compiler a minute.
SUBJECTS = {
    "projection": Subject(("stabdeq/lyapunov/projection.py",), ("test_projection",)),
    "lyapunov": Subject(
        ("stabdeq/lyapunov/*.py", "analysis/proofs/cells/iss_gain.py"),
        (
            "test_claim_scales",
            "test_convolution",
            "test_convolutional_bounds",
            "test_lyapunov",
            "test_proved_rate",
            "test_stability",
            "test_underflow",
        ),
        without=("stabdeq/lyapunov/projection.py",),
    ),
    "implicit differentiation": Subject(
        ("stabdeq/solvers/implicit.py",),
        (
            "test_adjoint_histories",
            "test_channels_last",
            "test_fixed_point",
            "test_higher_derivatives",
            "test_implicit",
            "test_unknown_gradients",
            "test_unrolled_gradients",
        ),
    ),
    "attacks": Subject(
        ("stabdeq/attacks/*.py",),
        (
            "test_apgd",
            "test_attack_command",
            "test_attack_contract",
            "test_attack_defaults",
            "test_attack_edges",
            "test_attack_function",
            "test_attacks",
            "test_few_classes",
            "test_honest_speed",
            "test_robust_accuracy",
            "test_square",
            "test_standing",
            "test_strong_attacks",
            "test_worst_attack",
        ),
    ),
    "adapters": Subject(
        ("stabdeq/adapters/*.py",),
        (
            "test_adapters",
            "test_failing_models",
            "test_iteration",
            "test_looped",
            "test_reached_modules",
            "test_second_evaluation",
            "test_states",
            "test_torchdeq_alike",
            "test_torchdeq_drop_in",
            "test_torchdeq_options",
        ),
    ),
    "shards": Subject(
        ("stabdeq/shard.py", "analysis/shards/*.py"),
        ("test_foreign_parts", "test_forged_results", "test_shards", "test_shards_in_processes", "test_shards_units"),
    ),
    "evidence": Subject(
        ("analysis/evidence/*.py",),
        (
            "test_climbs",
            "test_constants",
            "test_constrained_states",
            "test_evidence",
            "test_evidence_parts",
            "test_evidence_regions",
            "test_falsifier",
            "test_judgement_words",
            "test_judgements",
            "test_landmarks",
            "test_largest_levels",
            "test_levels_and_steps",
            "test_noise",
            "test_sets",
            "test_shrinking",
            "test_smoothing",
            "test_states_drawn",
            "test_toy_check",
            "test_zero_sets",
        ),
    ),
    "solvers": Subject(
        ("stabdeq/solvers/*.py",),
        (
            "test_anderson",
            "test_broyden",
            "test_channels_last",
            "test_fixed_point",
            "test_jacobian_term",
            "test_joint_solver",
            "test_skipped_steps",
            "test_solver_batches",
            "test_solver_contract",
            "test_solver_inputs",
            "test_solver_parts",
            "test_solver_precision",
            "test_solver_rates",
            "test_solvers",
            "test_squarem",
            "test_user_solver",
            "test_warm_start",
            "test_wrong_equilibria",
        ),
        without=("stabdeq/solvers/compiled.py", "stabdeq/solvers/implicit.py"),
    ),
    "proofs": Subject(
        ("analysis/proofs/**/*.py",),
        (
            "test_barriers",
            "test_bounds_hold",
            "test_box_proofs",
            "test_certificates",
            "test_certified_radii",
            "test_controlled_dynamics",
            "test_deployed",
            "test_exported_boxes",
            "test_fast_certificates",
            "test_hard_points",
            "test_interval_bounds",
            "test_intervals",
            "test_linear_bounds",
            "test_linf_gain",
            "test_lipschitz_backbones",
            "test_logarithms",
            "test_matrix_proofs",
            "test_more_operations",
            "test_piecewise_affine",
            "test_polynomial_proofs",
            "test_proof_checker",
            "test_proved_rate",
            "test_quadratic_functions",
            "test_relaxations",
            "test_rest",
            "test_second_engine",
            "test_sets",
            "test_turned_boxes",
            "test_volume",
        ),
    ),
}
