"""The audit on models with a known truth: ours of every kind, and foreign ones that only meet the protocol."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from short_hunts import shorten_hunts
from torch import Tensor

from analysis.audit import audit
from analysis.checks import decay
from analysis.commands.audit import audit as audit_command
from analysis.findings import Measurement
from analysis.findings.catalogue import default_checks, rows
from analysis.measure import spectrum
from analysis.measure.subject import claims_of, prepare
from analysis.proofs.structure import is_structured
from analysis.report.report import Report
from stabdeq.checkpoint import Checkpoint, save_checkpoint
from stabdeq.config import ArchitectureConfig, DataConfig, LyapunovConfig
from stabdeq.config.kinds import KINDS, model_config
from stabdeq.data import load_data
from stabdeq.errors import ConfigError, DataError, FileError
from stabdeq.lyapunov import InputConvexLyapunov, LyapunovFunction
from stabdeq.model import StabilisedDEQ
from stabdeq.solvers import Anderson, Solution, solve


class ForeignModel:
    """Somebody's model: the cell given, the image's first pixels as features."""

    def __init__(
        self, cell: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...], lyapunov: LyapunovFunction | None = None
    ) -> None:
        self.cell, self.shape, self.lyapunov = cell, shape, lyapunov

    def inject(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, : torch.Size(self.shape).numel()].view(-1, *self.shape)

    def readout(self, z: Tensor) -> Tensor:
        return z.flatten(1).repeat(1, 3)

    def solve(self, h: Tensor) -> Solution:
        f = lambda z: self.cell(z, h)  # noqa: E731
        return solve(f, torch.zeros_like(h), Anderson(), tolerance=1e-8, max_evaluations=100)


class Quadratic:
    """V = weight ||offset||^2, with a gradient scaled by ``gradient_factor`` (1 where it is right)."""

    def __init__(self, centre: str, alpha: float = 1.0, weight: float = 1.0) -> None:
        self.centre, self.alpha, self.weight = centre, alpha, weight

    def __call__(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        return self.weight * offset.square().sum(1), 2 * self.weight * offset


def images(count: int = 12, size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 1, size, size, generator=generator, dtype=torch.float64), torch.arange(count) % 3


def measurements(report: Report) -> dict[str, Measurement]:
    return {f"{measured.check}.{measured.name}": measured for measured in report.measurements}


def our_model(kind: str, **lyapunov: float) -> StabilisedDEQ:
    torch.manual_seed(0)
    architecture = ArchitectureConfig(state_dim=12, lyapunov=LyapunovConfig(hidden=8, **lyapunov))
    return StabilisedDEQ(model_config(kind, architecture, image_shape=(1, 8, 8), classes=3, mean=(0.5,), std=(0.3,)))


def test_an_anchored_model_has_no_claim_refuted() -> None:
    report = audit(our_model("lyadeq-anchored"), *images())
    found = report.named
    assert report.exit_code == 0
    assert {name: finding.verdict for name, finding in found.items()} == {
        "equilibrium.exists": "SUPPORTED",
        "equilibrium.unique": "PROVED",
        "equilibrium.preserved": "PROVED",
        "positivity.zero": "PROVED",
        "positivity.positive": "PROVED",
        "convexity.convex": "PROVED",
        "decay.stabilised": "PROVED",
        "decay.flow": "PROVED",
        "separation.isometry": "PROVED",
        "spectrum.stable": "SUPPORTED",
        "convergence.own solver": "SUPPORTED",
    }
    assert all(finding.evidence and finding.samples for finding in found.values())
    json.loads(report.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.parametrize("kind", ["lyadeq", "lyadeq-noorth"])
def test_a_paper_model_is_refuted_because_its_stabilised_field_has_no_equilibrium(kind: str) -> None:
    report = audit(our_model(kind), *images())
    preserved = report.named["equilibrium.preserved"]
    assert report.exit_code == 1
    assert preserved.verdict == "REFUTED"
    assert "no equilibrium at all" in preserved.evidence
    witness = preserved.witness
    assert witness["replayed_norm"] == pytest.approx(witness["stabilised_norm"], rel=1e-9)
    assert witness["replayed_norm"] >= witness["least_norm_proved"] * (1 - 1e-9) > 0


@pytest.mark.parametrize("kind", ["lyadeq", "deq-orth"])
def test_the_claim_that_an_orthogonal_layer_separates_is_refuted(kind: str) -> None:
    increases = audit(our_model(kind), *images(), checks=["separation"]).named["separation.increases"]
    assert increases.verdict == "REFUTED"
    witness = increases.witness
    assert witness["distance_after"] == pytest.approx(witness["distance_before"], rel=1e-12)


def test_a_plain_deq_is_judged_on_its_equilibria_alone() -> None:
    report = audit(our_model("deq"), *images())
    assert set(report.named) == {"equilibrium.exists", "equilibrium.unique", "convergence.own solver"}
    assert {skipped.check for skipped in report.skipped} == {"positivity", "convexity", "decay"}


def test_a_cell_that_ignores_its_state_keeps_no_equilibrium_when_centred_at_the_origin() -> None:
    model = ForeignModel(lambda z, h: torch.relu(h), (4,), Quadratic("origin"))  # ZOO 13
    preserved = audit(model, *images(), checks=["equilibrium"]).named["equilibrium.preserved"]
    assert preserved.verdict == "REFUTED"
    anchored = ForeignModel(lambda z, h: torch.relu(h), (4,), Quadratic("equilibrium"))
    assert audit(anchored, *images()).named["equilibrium.preserved"].verdict == "SUPPORTED"


def test_a_flow_can_be_stable_where_picard_cycles() -> None:
    model = ForeignModel(lambda z, h: torch.relu(4 - 3 * z), (1,), Quadratic("equilibrium"))  # ZOO 14
    report = audit(model, *images())
    assert report.named["spectrum.stable"].margin == pytest.approx(4)
    assert measurements(report)["spectrum.spectral radius"].value == pytest.approx(3)
    assert measurements(report)["convergence.picard"].value == 0
    assert measurements(report)["convergence.anderson"].value == 1


def test_several_equilibria_refute_uniqueness_with_a_second_one() -> None:
    model = ForeignModel(lambda z, h: 3 * torch.relu(z - 1) - 3 * torch.relu(z - 2), (1,))  # ZOO 16
    unique = audit(model, *images()).named["equilibrium.unique"]
    assert unique.verdict == "REFUTED"
    (state,) = unique.witness["state"]
    assert min(abs(state - 1.5), abs(state - 3)) < 1e-6


def test_a_continuum_of_equilibria_is_not_told_from_one_flat_equilibrium() -> None:
    report = audit(ForeignModel(lambda z, h: torch.relu(z), (2,)), *images())  # ZOO 16
    unique = report.named["equilibrium.unique"]
    assert unique.verdict == "INCONCLUSIVE"
    assert "a kink" in unique.evidence


def test_a_large_gain_alone_refutes_nothing() -> None:
    weight = 10 * torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    model = ForeignModel(lambda z, h: torch.relu(z @ weight.T + torch.tensor([1.0, 2.0])), (2,))  # ZOO 15
    subject = prepare(model, *images())
    assert torch.allclose(subject.equilibria, torch.tensor([0.0, 2.0], dtype=torch.float64))
    assert audit(model, *images()).named["equilibrium.unique"].verdict == "SUPPORTED"


def test_the_spectral_radius_of_a_rotation_is_not_lost() -> None:
    turn = 0.99 * torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    report = audit(ForeignModel(lambda z, h: z @ turn.T + h, (2,)), *images(), checks=["spectrum"])  # ZOO 18
    assert measurements(report)["spectrum.spectral radius"].value == pytest.approx(0.99)


def test_large_states_use_arnoldi_and_agree_with_the_dense_spectrum(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(40, 40, generator=generator, dtype=torch.float64) / 10
    model = ForeignModel(lambda z, h: (z.flatten(1) @ weight.T).view_as(z) + h, (4, 2, 5), Quadratic("equilibrium"))
    dense = audit(model, *images(), checks=["spectrum"])
    monkeypatch.setattr(spectrum, "DENSE", 10)
    sparse = audit(model, *images(), checks=["spectrum"])
    for name in ("spectrum.spectral radius",):
        assert measurements(sparse)[name].value == pytest.approx(measurements(dense)[name].value, rel=1e-6)
    margins = [report.named["spectrum.stable"].margin for report in (dense, sparse)]
    assert margins[0] == pytest.approx(margins[1], rel=1e-6)


@pytest.mark.parametrize("cell", [lambda z, h: z + 1 + h.abs(), lambda z, h: z * torch.nan])
def test_what_has_no_equilibrium_is_inconclusive_and_says_why(cell: Callable[[Tensor, Tensor], Tensor]) -> None:
    report = audit(ForeignModel(cell, (3,), Quadratic("equilibrium")), *images())
    assert report.exit_code in (1, 3)
    exists = report.named["equilibrium.exists"]
    assert exists.verdict == "INCONCLUSIVE"
    assert exists.witness["status"] in ("diverged", "nan", "stagnated", "max_steps")
    assert "decay" in {skipped.check for skipped in report.skipped}


def test_a_cell_that_couples_its_batch_is_not_supported() -> None:
    model = ForeignModel(lambda z, h: h + 0.1 * (z.mean(0, keepdim=True) - 0 * z), (3,))
    exists = audit(model, *images()).named["equilibrium.exists"]
    assert exists.verdict == "INCONCLUSIVE"
    assert "couples samples" in exists.evidence


@pytest.mark.parametrize(
    ("value", "check", "name"),
    [
        (lambda offset: offset.square().sum(1) + 1, "positivity", "zero"),  # ZOO 6
        (lambda offset: 0 * offset.square().sum(1), "positivity", "positive"),  # ZOO 6
        (lambda offset: offset.square().prod(1) + 0.1 * offset.square().sum(1), "convexity", "convex"),  # ZOO 4
    ],
)
def test_a_wrong_foreign_v_is_refuted(value: Callable[[Tensor], Tensor], check: str, name: str) -> None:
    class Foreign(Quadratic):
        def __call__(self, offset: Tensor) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                leaf = offset if offset.requires_grad else offset.detach().requires_grad_()
                v = value(leaf)
                return v, torch.autograd.grad(v.sum(), leaf, create_graph=True)[0]

    model = ForeignModel(lambda z, h: 0.5 * z + h, (2,), Foreign("equilibrium"))
    assert audit(model, *images(), checks=[check]).named[f"{check}.{name}"].verdict == "REFUTED"


def test_a_v_that_vanishes_at_its_centre_and_is_nan_around_it_is_not_refuted() -> None:
    class Broken(Quadratic):
        def __call__(self, offset: Tensor) -> tuple[Tensor, Tensor]:
            value, gradient = super().__call__(offset)
            return torch.where(value > 0.1, torch.nan, value), gradient

    model = ForeignModel(lambda z, h: 0.5 * z + h, (2,), Broken("equilibrium"))
    zero = audit(model, *images(), checks=["positivity"]).named["positivity.zero"]
    assert zero.verdict == "INCONCLUSIVE"


def test_a_lyapunov_function_of_a_subclass_is_not_proved_by_structure() -> None:
    class Altered(InputConvexLyapunov):
        def forward(self, offset: Tensor) -> tuple[Tensor, Tensor]:
            value, gradient = super().forward(offset)
            return value - 0.05, gradient

    model = our_model("lyadeq-anchored")
    torch.manual_seed(0)
    model.lyapunov = Altered(12, model.config.lyapunov, "equilibrium")
    found = audit(model, *images(), checks=["positivity", "convexity"]).named
    assert found["positivity.zero"].verdict == "REFUTED"
    assert found["positivity.positive"].verdict == "REFUTED"
    assert found["convexity.convex"].verdict == "SUPPORTED"


def test_the_decay_of_a_field_that_is_not_projected_right_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.measure.subject.stabilised_field", lambda field, z, centre, lyapunov: field)
    model = ForeignModel(lambda z, h: 2 * z - 0 * h + h, (3,), Quadratic("equilibrium"))  # ZOO 12, unprojected
    found = audit(model, *images(), checks=["decay"]).named
    assert found["decay.stabilised"].verdict == "REFUTED"
    assert found["decay.stabilised"].witness["replayed_relative"] > 0
    assert found["decay.flow"].verdict == "REFUTED"


def test_an_expanding_field_decays_once_projected_and_euler_is_limited() -> None:
    model = ForeignModel(lambda z, h: 2 * z + h, (3,), Quadratic("equilibrium", alpha=1.0))  # ZOO 12
    report = audit(model, *images(), checks=["decay"])
    assert {finding.verdict for finding in report.findings} == {"SUPPORTED"}
    # F^ = -(alpha / 2) z, so V grows for steps beyond 4 / alpha.
    step = measurements(report)["decay.largest Euler step"].value
    last = float(decay.STEPS[decay.STEPS < 4].max())
    assert step == pytest.approx(last)
    assert measurements(report)["decay.unprojected field"].value == 1


def test_bad_input_is_refused() -> None:
    x, labels = images()
    model = our_model("deq")
    with pytest.raises(ConfigError, match="did you mean 'decay'"):
        audit(model, x, labels, checks=["decai"])
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        audit(model, x * 255, labels)
    with pytest.raises(DataError, match="labels"):
        audit(model, x, labels[:-1])
    with pytest.raises(DataError, match="reads images"):
        audit(model, torch.rand(3, 1, 9, 9), labels[:3])
    with pytest.raises(DataError, match="expected images"):
        audit(model, x[:0], labels[:0])


def test_the_command_writes_both_reports_and_exits_with_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_hunts(monkeypatch)
    data = load_data(DataConfig())
    for kind, checks, expected in (("lyadeq-anchored", (), 0), ("lyadeq", ("equilibrium",), 1)):
        torch.manual_seed(0)
        config = model_config(
            kind, ArchitectureConfig(state_dim=16), image_shape=(1, 8, 8), classes=10, mean=data.mean, std=data.std
        )
        checkpoint = Checkpoint(
            model=StabilisedDEQ(config), data=DataConfig(), class_names=data.classes, seed=0, epoch=0
        )
        path = tmp_path / f"{kind}.safetensors"
        save_checkpoint(path, checkpoint)
        assert audit_command(str(path), out=tmp_path / kind, samples=(10,), checks=checks) == expected
        report = json.loads((tmp_path / kind / "report.json").read_text())
        assert report["checkpoint"]["kind"] == kind
        assert report["exit_code"] == expected
        assert (tmp_path / kind / "report.html").read_text().startswith("<!")
        keys = [
            "check",
            "claim",
            "verdict",
            "margin",
            "evidence",
            "samples",
            "tolerance",
            "dtype",
            "seed",
            "seconds",
            "witness",
        ]
        assert all(set(keys) <= finding.keys() for finding in report["findings"])
    assert "no equilibrium at all" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="choose another --out"):
        audit_command(str(path), out=tmp_path / "file" / "below")


def test_the_report_holds_the_images_that_witnesses_name_and_no_others() -> None:
    x, labels = images()
    places = torch.arange(100, 100 + len(x))
    report = audit(our_model("lyadeq"), x, labels, indices=places, checks=["equilibrium"], seed=3)
    assert (report.sample["seed"], report.sample["images"]) == (3, places.tolist())
    place = report.named["equilibrium.preserved"].witness["image"]
    assert list(report.images) == [str(place)]
    held = report.images[str(place)]
    assert held["label"] == int(labels[place - 100])
    assert (torch.tensor(held["pixels"]) / 255 - x[place - 100]).abs().max() <= 0.5 / 255
    assert audit(our_model("deq"), x, labels, checks=["equilibrium"]).images == {}


def test_the_audit_is_reproducible() -> None:
    first, second = (audit(our_model("lyadeq-anchored"), *images(), checks=["decay"], seed=3) for _ in range(2))
    timeless = [[replace(finding, seconds=0.0) for finding in report.findings] for report in (first, second)]
    assert timeless[0] == timeless[1]
    assert first.series == second.series


def test_every_check_is_a_module_and_every_kind_can_be_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_hunts(monkeypatch)
    audited_above = {"lyadeq-anchored", "lyadeq", "lyadeq-noorth", "deq"}
    for kind in [
        name for name, kind in KINDS.items() if kind.backbone in (None, "resnet20") and name not in audited_above
    ]:
        assert audit(our_model(kind), *images(6), checks=default_checks()).named


@pytest.mark.parametrize("checks", [["spectrum", "separation"], ["decay"]])
def test_a_check_that_could_not_look_leaves_the_audit_open(checks: list[str]) -> None:
    model = ForeignModel(lambda z, h: z + 1 + h, (3,), Quadratic("equilibrium"))
    assert audit(model, *images(), checks=checks).exit_code == 3


def test_an_audit_that_judged_nothing_is_no_pass() -> None:
    assert audit(our_model("deq"), *images(), checks=["positivity"]).exit_code == 3


def test_a_flat_equilibrium_is_not_taken_for_two() -> None:
    model = ForeignModel(lambda z, h: z - 0.1 * (z - h) ** 3, (1,))
    assert audit(model, *images(), checks=["equilibrium"]).named["equilibrium.unique"].verdict != "REFUTED"
    runaway = ForeignModel(lambda z, h: z + torch.exp(-z), (1,))
    found = audit(runaway, *images(), checks=["equilibrium"]).named
    assert {finding.verdict for finding in found.values()} == {"INCONCLUSIVE"}


def test_a_field_that_is_not_finite_ends_the_flow_inconclusive() -> None:
    class Broken(Quadratic):
        def __call__(self, offset: Tensor) -> tuple[Tensor, Tensor]:
            value, gradient = super().__call__(offset)
            return torch.where(value > 0.1, torch.nan, value), gradient

    model = ForeignModel(lambda z, h: 0.5 * z + h, (2,), Broken("equilibrium"))
    report = audit(model, *images(), checks=["decay"])
    assert report.named["decay.flow"].verdict == "INCONCLUSIVE"
    assert measurements(report)["decay.unprojected field"].value > 0
    negative = ForeignModel(lambda z, h: 2 * z + h, (2,), Quadratic("equilibrium", weight=-1.0))
    assert audit(negative, *images(), checks=["decay"]).named["decay.flow"].verdict == "INCONCLUSIVE"


def test_a_solver_that_lies_is_refuted() -> None:
    class Liar(ForeignModel):
        def solve(self, h: Tensor) -> Solution:
            zeros = torch.zeros(len(h), dtype=torch.int64)
            return Solution(torch.full_like(h, 7), torch.zeros(len(h), dtype=h.dtype), zeros, zeros)

    own = audit(Liar(lambda z, h: 0.5 * z + h, (2,)), *images(), checks=["convergence"]).named
    assert own["convergence.own solver"].verdict == "REFUTED"
    assert "called converged" in own["convergence.own solver"].evidence


def test_structure_proves_nothing_of_an_altered_or_broken_v() -> None:
    model = our_model("lyadeq-anchored")
    assert model.lyapunov is not None
    with torch.no_grad():
        model.lyapunov.network.raw_mix.fill_(torch.nan)
    assert audit(model, *images(), checks=["equilibrium"]).named["equilibrium.unique"].verdict != "PROVED"
    flat = our_model("lyadeq-anchored")
    assert flat.lyapunov is not None
    flat.lyapunov.eta = 0.0
    assert audit(flat, *images(), checks=["equilibrium"]).named["equilibrium.unique"].verdict != "PROVED"


def test_a_foreign_head_and_config_are_left_alone() -> None:
    model = ForeignModel(lambda z, h: 0.5 * z + h, (2,))
    model.head, model.config = torch.nn.Linear(2, 2), object()  # pyrefly: ignore
    assert measurements(audit(model, *images(), checks=["separation", "convergence"]))


def test_a_defective_eigenvalue_does_not_hide_a_contraction() -> None:
    shift = 0.5 * torch.diag(torch.ones(5, dtype=torch.float64), 1)
    model = ForeignModel(lambda z, h: z @ shift.T + h, (6,), Quadratic("equilibrium"))
    assert audit(model, *images(), checks=["spectrum"]).named["spectrum.stable"].verdict == "SUPPORTED"


def test_an_orthogonal_layer_with_a_hook_is_not_judged_by_its_weights() -> None:
    model = our_model("lyadeq-anchored")
    assert model.head.rotation is not None
    model.head.rotation.register_forward_hook(lambda layer, given, output: 3 * output)
    isometry = audit(model, *images(), checks=["separation"]).named["separation.isometry"]
    assert isometry.verdict == "INCONCLUSIVE"
    assert "hook" in isometry.evidence


def alter_by_hook(lyapunov: InputConvexLyapunov) -> None:
    lyapunov.register_forward_hook(lambda module, given, output: (-output[0], output[1]))


def alter_network(lyapunov: InputConvexLyapunov) -> None:
    lyapunov.network.register_forward_pre_hook(lambda module, given: (-given[0],))


def alter_bound(lyapunov: InputConvexLyapunov) -> None:
    lyapunov.growth_bound = lambda: 1e-9


@pytest.mark.parametrize("alter", [alter_by_hook, alter_network, alter_bound])
def test_an_altered_energy_proves_nothing_by_its_weights(alter: Callable[[InputConvexLyapunov], None]) -> None:
    lyapunov = our_model("lyadeq-anchored").lyapunov
    assert isinstance(lyapunov, InputConvexLyapunov)
    lyapunov.double()
    assert is_structured(lyapunov)
    alter(lyapunov)
    assert not is_structured(lyapunov)


def test_images_of_one_class_leave_no_claim_of_separation_out() -> None:
    x, labels = images()
    found = audit(our_model("lyadeq-anchored"), x, torch.zeros_like(labels), checks=["separation"]).named
    assert found["separation.isometry"].verdict == "PROVED"
    found = audit(our_model("lyadeq"), x, torch.zeros_like(labels), checks=["separation"]).named
    assert found["separation.increases"].verdict == "INCONCLUSIVE"
    found = audit(our_model("lyadeq-anchored"), x[:1], labels[:1], checks=["separation"]).named
    assert found["separation.isometry"].verdict == "PROVED"


def test_the_claims_of_all_kinds_are_those_that_some_make() -> None:
    kinds = ("deq", "deq-orth", "lyadeq", "lyadeq-noorth", "lyadeq-anchored", "lyadeq-certified")
    by_some = {f"{check.name}.{claim.name}" for check in rows() for claim in check.claims if claim.by_some}
    assert frozenset().union(*(claims_of(our_model(kind)) for kind in kinds)) == by_some
