"""Replays: a witness refutes again what it refuted, and neither a false witness nor a mended model is taken for one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.nn.utils import parametrize

from analysis.audit import audit
from analysis.checks.robustness import check as robustness
from analysis.checks.witness import Replay
from analysis.commands.audit import audit as audit_command
from analysis.commands.replay import replay as replay_command
from analysis.commands.report import report as report_command
from analysis.findings import CheckResult, Finding, Verdict
from analysis.measure.subject import prepare
from analysis.replay import Replayer
from analysis.report.report import Report
from stabdeq.checkpoint import Checkpoint, save_checkpoint
from stabdeq.config import ArchitectureConfig, DataConfig
from stabdeq.config.kinds import model_config
from stabdeq.data import load_data
from stabdeq.errors import NotReplayableError, StabdeqError
from stabdeq.lyapunov import LyapunovFunction
from stabdeq.model import StabilisedDEQ
from stabdeq.solvers import Anderson, Solution, solve


class Foreign:
    """Somebody's model: the cell given, the image's first pixels as features."""

    def __init__(
        self, cell: Callable[[Tensor, Tensor], Tensor], dim: int, lyapunov: LyapunovFunction | None = None
    ) -> None:
        self.cell, self.dim, self.lyapunov = cell, dim, lyapunov

    def inject(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, : self.dim]

    def readout(self, z: Tensor) -> Tensor:
        return z.repeat(1, 3)

    def solve(self, h: Tensor) -> Solution:
        f = lambda z: self.cell(z, h)  # noqa: E731
        return solve(f, torch.zeros_like(h), Anderson(), tolerance=1e-8, max_evaluations=100)


class Liar(Foreign):
    """Calls converged what is not."""

    def solve(self, h: Tensor) -> Solution:
        zeros = torch.zeros(len(h), dtype=torch.int64)
        return Solution(torch.full_like(h, 7), torch.zeros(len(h), dtype=h.dtype), zeros, zeros)


class Random(Foreign):
    """Answers by chance where there is ``noise``, and has no gradient."""

    noise = 1.0

    def solve(self, h: Tensor) -> Solution:
        solution = super().solve(h.detach())
        z = solution.z + self.noise * torch.rand(h.shape)
        return Solution(z, solution.residual, solution.status, solution.evaluations)


class Mended(Random):
    """The same without chance."""

    noise = 0.0


class Energy:
    """A V given by its ``value``; its gradient is automatic."""

    centre: Literal["equilibrium", "origin"] = "equilibrium"

    def __init__(self, value: Callable[[Tensor], Tensor]) -> None:
        self.value, self.alpha = value, 1.0

    def __call__(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = offset if offset.requires_grad else offset.detach().requires_grad_()
            value = self.value(leaf)
            return value, torch.autograd.grad(value.sum(), leaf, create_graph=True)[0]


def square(offset: Tensor) -> Tensor:
    return offset.square().sum(1)


def contracting(z: Tensor, h: Tensor) -> Tensor:
    return 0.5 * z + h


def ours(kind: str) -> StabilisedDEQ:
    torch.manual_seed(0)
    config = model_config(
        kind, ArchitectureConfig(state_dim=12), image_shape=(1, 8, 8), classes=3, mean=(0.5,), std=(0.3,)
    )
    return StabilisedDEQ(config)


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(12, 1, 8, 8, generator=generator, dtype=torch.float64), torch.arange(12) % 3


def fetch(places: list[int]) -> tuple[Tensor, Tensor]:
    x, labels = images()
    return x[places], labels[places]


def audited(model: Any, name: str) -> dict[str, Any]:
    """The report on ``model`` as a file holds it, of which the finding ``name`` must be refuted."""
    report = json.loads(audit(model, *images(), checks=[name.partition(".")[0]]).to_json())
    assert named(report, name)["verdict"] == "REFUTED"
    return report


def named(report: dict[str, Any], name: str) -> dict[str, Any]:
    return report["findings"][list(Report.parse(report).named).index(name)]


def replayed(report: dict[str, Any], name: str | None, model: Any) -> Replay:
    """Replay the finding ``name``, by default the first."""
    read = Report.parse(report)
    finding = read.findings[0] if name is None else read.named[name]
    return Replayer(report=read, model=model, fetch=fetch).replay(finding)


def skewed(kind: str = "lyadeq-anchored") -> StabilisedDEQ:
    """A model whose orthogonal layer is not orthogonal."""
    model = ours(kind)
    rotation = model.head.rotation
    assert isinstance(rotation, torch.nn.Linear)
    parametrize.remove_parametrizations(rotation, "weight")
    with torch.no_grad():
        rotation.weight.mul_(2)
    return model


def steps(z: Tensor, h: Tensor) -> Tensor:
    return 3 * torch.relu(z - 1) - 3 * torch.relu(z - 2)


# The claim, a model that it is false of, and the same mended.
FALSE = {
    "equilibrium.unique": (lambda: Foreign(steps, 1), lambda: Foreign(contracting, 1)),
    "equilibrium.preserved": (lambda: ours("lyadeq"), lambda: ours("lyadeq-anchored")),
    "positivity.zero": (
        lambda: Foreign(contracting, 2, Energy(lambda x: square(x) + 1)),
        lambda: Foreign(contracting, 2, Energy(square)),
    ),
    "positivity.positive": (
        lambda: Foreign(contracting, 2, Energy(lambda x: torch.relu(x[:, 0]) ** 2)),
        lambda: Foreign(contracting, 2, Energy(square)),
    ),
    "convexity.convex": (
        lambda: Foreign(contracting, 2, Energy(lambda x: x.square().prod(1) + 0.1 * square(x))),
        lambda: Foreign(contracting, 2, Energy(square)),
    ),
    "separation.increases": (lambda: ours("lyadeq"), lambda: skewed("lyadeq")),
    "separation.isometry": (skewed, lambda: ours("lyadeq-anchored")),
    "spectrum.stable": (
        lambda: Foreign(lambda z, h: 2 * z + h, 3, Energy(square)),
        lambda: Foreign(contracting, 3, Energy(square)),
    ),
    "convergence.own solver": (lambda: Liar(contracting, 2), lambda: Foreign(contracting, 2)),
    "robustness.deterministic": (lambda: Random(contracting, 3), lambda: Mended(contracting, 3)),
}


@pytest.mark.parametrize("name", FALSE)
def test_a_witness_refutes_its_model_again_and_no_mended_one(name: str) -> None:
    make, mend = FALSE[name]
    report = audited(make(), name)
    again = replayed(report, name, make())
    assert again.refutes
    assert again.is_same_amount or name == "robustness.deterministic"
    assert not replayed(report, name, mend()).refutes


@pytest.mark.parametrize("name", ["decay.stabilised", "decay.flow"])
def test_a_field_that_is_not_projected_right_is_refuted_again_until_it_is(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Foreign(lambda z, h: 2 * z + h, 3, Energy(square))
    with monkeypatch.context() as patch:
        patch.setattr("analysis.measure.subject.stabilised_field", lambda field, z, centre, lyapunov: field)
        report = audited(model, name)
        again = replayed(report, name, model)
        assert again.refutes
        assert again.is_same_amount
    assert not replayed(report, name, model).refutes


TAMPERED: list[tuple[str, dict[str, Any]]] = [
    ("equilibrium.unique", {"state": [1.25]}),  # no equilibrium
    ("equilibrium.unique", {"state": [0.0]}),  # the first again
    ("equilibrium.unique", {"first": [1.4999]}),
    ("equilibrium.preserved", {"state": [0.0] * 12}),
    ("positivity.zero", {"state": [1.0, 0.0]}),
    ("positivity.positive", {"state": [1.0, 0.0]}),
    ("positivity.positive", {"state": [0.0, 0.0]}),  # the centre itself
    ("positivity.positive", {"state": [0.0, 1e-200]}),  # so near that any V underflows
    ("convexity.convex", {"state": [1.0, 1.0, 1.0, 1.0]}),
    ("separation.increases", {"images": [0, 3]}),  # of one class
    ("spectrum.stable", {"state": [1.0, 2.0, 3.0]}),
]


@pytest.mark.parametrize(("name", "change"), TAMPERED)
def test_a_false_witness_refutes_nothing(name: str, change: dict[str, Any]) -> None:
    make, _ = FALSE[name]
    report = audited(make(), name)
    witness = named(report, name)["witness"]
    witness |= change
    for place in witness.get("images", []):
        report["images"][str(place)] = {"pixels": (255 * images()[0][place]).round().int().tolist()}
    again = replayed(report, name, make())
    assert not again.refutes
    assert again.now is not None


def test_another_amount_is_seen() -> None:
    report = audited(FALSE["separation.increases"][0](), "separation.increases")
    named(report, "separation.increases")["witness"]["distance_after"] *= 2
    again = replayed(report, "separation.increases", ours("lyadeq"))
    assert again.refutes
    assert not again.is_same_amount


def without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda report: report.pop(key)


def in_finding(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda report: report["findings"][0].update(values)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (without("sample"), "older"),
        (lambda report: report["sample"].update(seed="x"), "older"),
        (without("images"), "other data"),
        (lambda report: report["images"]["0"]["pixels"][0][0].__setitem__(0, 999), "other data"),
        (in_finding(witness=None), "names no image"),
        (in_finding(witness={"image": 0}), "no 'state'"),
        (in_finding(witness={"image": 0, "state": ["nan"]}), "finite"),
        (in_finding(witness={"image": 0, "state": [1.0, 2.0]}), "of 1 finite"),
        (in_finding(witness={"images": [0, 1], "state": [1.0], "first": [1.0]}), "names 2 images"),
        (in_finding(check="convergence", name="own solver", witness={"images": [0, 1]}), "names 2 images"),
        (in_finding(check="cleanliness"), "no check 'cleanliness'"),
        (in_finding(check=["a"]), "no check"),
        (in_finding(name="exists"), "no claim 'exists'"),
        (in_finding(check="decay", name="flow"), "no Lyapunov function"),
        (in_finding(check="separation", name="increases"), "makes no such claim"),
    ],
)
def test_what_a_report_lacks_is_said(spoil: Callable[[dict[str, Any]], Any], reason: str) -> None:
    report = audited(Foreign(steps, 1), "equilibrium.unique")
    report["findings"] = [named(report, "equilibrium.unique")]
    report["findings"][0]["witness"]["image"] = 0
    for place in (0, 1):
        report["images"][str(place)] = {"pixels": (255 * images()[0][place]).round().int().tolist()}
    assert replayed(report, None, Foreign(steps, 1)).refutes
    spoil(report)
    with pytest.raises(NotReplayableError, match=reason):
        replayed(report, None, Foreign(steps, 1))


def test_an_image_without_equilibrium_or_pair_cannot_be_replayed() -> None:
    runaway = Foreign(lambda z, h: z + 1 + h, 2, Energy(square))
    finding = {"check": "decay", "name": "stabilised", "witness": {"image": 0, "state": [1.0, 1.0]}}
    held = {"0": {"pixels": (255 * images()[0][0]).round().int().tolist()}}
    report = {"sample": {"seed": 0, "images": [0]}, "images": held, "findings": [finding]}
    with pytest.raises(NotReplayableError, match="no equilibrium was found"):
        replayed(report, None, runaway)
    finding = {"check": "separation", "name": "increases", "witness": {}}
    with pytest.raises(NotReplayableError, match="no pair"):
        replayed(report | {"findings": [finding]}, None, ours("lyadeq"))


@pytest.mark.parametrize(
    ("change", "stands"),
    [
        ({}, True),
        ({"prediction_attacked": 1}, False),
        ({"prediction_clean": 2}, False),
        ({"eps": 0.01}, False),
        ({"attacked_image": None}, None),
        ({"image": 77}, None),
    ],
)
def test_an_attacked_image_must_be_what_the_witness_says(change: dict[str, Any], stands: bool | None) -> None:
    subject = prepare(Foreign(contracting, 3), *images())
    x = images()[0][4]
    attacked = x.clone().flatten()
    attacked[:3] = torch.tensor([0.0, 0.0, 1.0])
    witness = {
        "image": 4,
        "prediction_clean": int(x.flatten()[:3].argmax()),
        "prediction_attacked": 2,
        "eps": 1.0,
        "attacked_image": attacked.tolist(),
    } | change
    finding = Finding(
        check="robustness", name="steps", claim="", verdict=Verdict.REFUTED, margin=-0.5, evidence="", samples=12,
        tolerance=0.0, dtype="float64", seed=0, witness=witness,
    )  # fmt: skip
    again = CheckResult(findings=[finding])
    if stands is None:
        with pytest.raises(NotReplayableError):
            robustness.replay(subject, finding, again)
        return
    assert robustness.replay(subject, finding, again).refutes is stands
    with pytest.raises(NotReplayableError, match="no claim 'steps'"):
        robustness.replay(subject, finding, CheckResult())


# The commands.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoint.safetensors of an untrained lyadeq, and its report."""
    folder = tmp_path_factory.mktemp("run")
    data = load_data(DataConfig())
    config = model_config(
        "lyadeq", ArchitectureConfig(state_dim=16), image_shape=(1, 8, 8), classes=10, mean=data.mean, std=data.std
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = StabilisedDEQ(config)
    checkpoint = Checkpoint(model=model, data=DataConfig(), class_names=data.classes, seed=0, epoch=0)
    save_checkpoint(folder / "checkpoint.safetensors", checkpoint)
    assert (
        audit_command(str(folder / "checkpoint.safetensors"), samples=(10,), checks=("equilibrium", "separation")) == 1
    )
    return folder


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def run(path: Path, **options: Any) -> int:
    return replay_command(path, **options)


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    report = json.loads(path.read_text())
    change(report)
    path.write_text(json.dumps(report))


def test_every_refuted_finding_is_replayed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder / "report.json") == 0
    printed = capsys.readouterr().out
    assert "2 of 2 witnesses refute their claim again." in printed
    assert all(words in printed for words in ("equilibrium.preserved", "separation.increases", "yes"))
    assert "another amount" not in printed
    assert run(folder / "report.json", finding="separation.increases") == 0
    assert "equilibrium.preserved" not in capsys.readouterr().out


def test_a_false_witness_ends_with_1_and_an_incomplete_one_with_3(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copied / "report.json"

    def zeroed(report: dict[str, Any]) -> None:
        named(report, "equilibrium.preserved")["witness"]["state"] = [0.0] * 16

    edit(path, zeroed)
    assert run(path) == 1
    assert "NO" in capsys.readouterr().out
    edit(path, lambda report: report["images"].clear())
    assert run(path) == 3
    printed = " ".join(capsys.readouterr().out.split())
    assert "cannot be replayed" in printed
    assert "0 of 2 witnesses" in printed


def test_the_checkpoint_is_found_and_must_be_the_one_audited(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, checkpoint = copied / "report.json", copied / "checkpoint.safetensors"
    for named_path in ("gone/checkpoint.safetensors", "checkpoint.safetensors"):
        edit(path, lambda report, named_path=named_path: report["checkpoint"].update(path=named_path))
        assert run(path, finding="separation.increases") == 0
    moved = checkpoint.rename(copied / "moved.safetensors")
    with pytest.raises(StabdeqError, match="no such file: say with --checkpoint"):
        replay_command(path)
    assert run(path, finding="separation.increases", checkpoint=moved) == 0
    moved.write_bytes(moved.read_bytes() + b"\0")
    with pytest.raises(StabdeqError, match="its SHA-256 is not that of the report"):
        replay_command(path, checkpoint=moved)
    edit(path, lambda report: report["checkpoint"].pop("sha256"))
    with pytest.raises(StabdeqError, match="names no checkpoint"):
        replay_command(path, checkpoint=moved)


@pytest.mark.parametrize(
    ("change", "finding", "words"),
    [
        (lambda report: None, "equilibrium.preserve", "did you mean 'equilibrium.preserved'"),
        (lambda report: None, "equilibrium.exists", "it is SUPPORTED, not refuted"),
        (lambda report: report.update(schema=7), None, "schema 1, found 7"),
        (lambda report: report.pop("schema"), None, "schema 1, found none"),
        (lambda report: report.update(findings=report["findings"][:1]), None, "no finding is refuted"),
        (lambda report: report.update(findings="x"), None, "no finding is refuted"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_a_usage_error(
    copied: Path, change: Callable[[dict[str, Any]], Any], finding: str | None, words: str
) -> None:
    edit(copied / "report.json", change)
    with pytest.raises(StabdeqError, match=words) as error:
        replay_command(copied / "report.json", finding=finding)
    assert error.value.exit_code == 2


@pytest.mark.parametrize("command", [replay_command, report_command])
def test_a_file_that_is_no_report_is_refused(command: Callable[[Path], None], folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    whole = (folder / "report.json").read_bytes()
    for content, words in (
        (whole[:1000], "truncated or broken"),
        (b"", "truncated or broken"),
        (b"[" * 100_000, "truncated or broken"),
        (b"\xff\xfe", "not text"),
        (b"[1]", "is list"),
    ):
        path.write_bytes(content)
        with pytest.raises(StabdeqError, match=words) as error:
            command(path)
        assert error.value.exit_code == 2
    with pytest.raises(StabdeqError, match="No such file"):
        command(tmp_path / "missing.json")
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]


def test_the_page_is_drawn_again_from_the_file(copied: Path) -> None:
    page = copied / "report.html"
    before = page.read_text()
    page.unlink()
    report_command(copied / "report.json")
    assert page.read_text() == before
    assert 'src="data:image/png;base64,' in before
    edit(copied / "report.json", lambda report: report.update(schema=7, series=None, images=3))
    report_command(copied / "report.json")
    drawn = page.read_text()
    assert "found schema 7" in drawn
    assert "the report holds no usable pixels of it" in drawn


def replay_unmade(check: str, name: str, change: dict[str, Any], **witness: Any) -> Replay:
    """Replay a finding that no audit of an anchored model would make; ``change`` is what becomes of the report's sample."""
    model = ours("lyadeq-anchored")
    report = json.loads(audit(model, *images(), checks=["separation"]).to_json())
    report["sample"] |= change
    finding = {"check": check, "name": name, "verdict": "REFUTED", "witness": witness}
    for place in range(2):
        report["images"][str(place)] = {"pixels": (255 * images()[0][place]).round().int().tolist()}
    return replayed(report | {"findings": [finding]}, None, model)


def test_a_claim_that_the_model_does_not_make_is_not_refuted_again() -> None:
    with pytest.raises(NotReplayableError, match="makes no such claim"):
        replay_unmade("separation", "increases", {}, images=[0, 1])


def test_a_second_equilibrium_of_the_cell_refutes_no_claim_about_the_stabilised_field() -> None:
    with pytest.raises(NotReplayableError, match="about the stabilised field"):
        replay_unmade("equilibrium", "unique", {}, image=0, state=[1.0] * 12, first=[0.0] * 12)


def test_images_drawn_twice_are_no_draw() -> None:
    with pytest.raises(NotReplayableError, match="which images were drawn"):
        replay_unmade("separation", "isometry", {"images": [0] * 10}, deviation=1.0)


def test_an_image_beyond_the_data_leaves_the_other_witnesses_to_be_replayed(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copied / "report.json"
    edit(path, lambda report: named(report, "equilibrium.preserved")["witness"].update(image=10**30))
    assert run(path) == 3
    out = capsys.readouterr().out
    assert "cannot be" in out
    assert "separation.increases" in out
