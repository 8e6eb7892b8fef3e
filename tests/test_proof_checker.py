"""``stabdeq.checker``: it accepts what ``certify --proof`` writes, on its own, and nothing that claims more."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flint import arb, arb_mat
from proof_mutations import MODELS, Judge, Proved, mutated, outcomes, prove, sample_images, save_model
from torch import Tensor

import stabdeq.checker
import stabdeq.checker.ends as ends
import stabdeq.checker.inequalities as inequalities
from analysis.certify import certify
from analysis.proofs.cells.network import forms_of
from stabdeq.__main__ import main as command
from stabdeq.alteration import prototype
from stabdeq.backbones.lipschitz import networks
from stabdeq.checker.door import check, main
from stabdeq.checker.ends import read_features, read_head
from stabdeq.checker.matrices import require_definite
from stabdeq.checker.parameters import Model, read_cell
from stabdeq.checker.reading import Failure
from stabdeq.checkpoint import load, load_checkpoint, save_checkpoint
from stabdeq.errors import ConfigError
from stabdeq.model import StabilisedDEQ

PLACE = Path(stabdeq.checker.__file__).parent
CLOSE = 1e-12
Edit = Callable[[Any], object]


@pytest.fixture(scope="module", autouse=True)
def few_channels() -> Iterator[None]:
    """Convolutions of 4 and 16 channels, not of 16 and 64."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "CHANNELS", 4)
        prototype.cache_clear()  # it holds networks as they are made, before and after
        yield
    prototype.cache_clear()


@pytest.fixture(scope="module")
def proofs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Proved]:
    """The proof of each small model."""
    return {name: prove(tmp_path_factory.mktemp(name), **options) for name, options in MODELS.items()}


def edited(proved: Proved, edit: Edit) -> bytes:
    proof = json.loads(proved.text)
    edit(proof)
    return json.dumps(proof).encode()


def claim(proof: Any, name: str) -> Any:
    return next(one for one in proof["claims"] if one["claim"] == name)


def values(matrix: arb_mat) -> Tensor:
    return torch.tensor([[float(x) for x in row] for row in matrix.tolist()], dtype=torch.float64)


@pytest.mark.parametrize("name", MODELS)
def test_what_certify_writes_is_valid_with_every_claim_that_it_proved(name: str, proofs: dict[str, Proved]) -> None:
    proved = proofs[name]
    expected = {"gain", "contraction", "stability", "radius"}
    expected |= {"certified": {"lyapunov"}, "interval": {"linf"}}.get(name, set())
    assert set(proved.report["claims"]) == expected
    omitted = {"affine_ball"} if name == "interval" else {"affine_ball", "linf"}  # proved all the same
    assert proved.report["omitted"] == dict.fromkeys(omitted, "proof files have no form for its proof")
    words = check(proved.text.encode(), proved.checkpoint)
    assert words[1:] == [one["words"] for one in json.loads(proved.text)["claims"]]
    assert "Of 4 images, 4 have an l2 radius" in " ".join(words)


def test_the_folder_runs_by_itself_with_python_flint_alone(proofs: dict[str, Proved], tmp_path: Path) -> None:
    shutil.copytree(PLACE, tmp_path / "checker")
    (tmp_path / "proof.json").write_text(proofs["certified"].text)
    (tmp_path / "model").write_bytes(proofs["certified"].checkpoint)
    script = (
        "import sys; sys.path.insert(0, '.'); from checker.door import main; code = main(sys.argv[1:]);"
        "print(sorted({'torch', 'numpy', 'stabdeq', 'safetensors'} & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, "proof.json", "model"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, *_, last = done.stdout.splitlines()
    assert (first, last) == ("VALID", "[]")


def test_the_command_and_its_exit_codes(
    proofs: dict[str, Proved], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proof, checkpoint, absent = tmp_path / "proof.json", tmp_path / "model", tmp_path / "absent"
    proof.write_text(proofs["certified"].text)
    checkpoint.write_bytes(proofs["certified"].checkpoint)
    assert main([str(proof), str(checkpoint)]) == 0
    assert capsys.readouterr().out.startswith("VALID\nAll is about the real function that the parameters")
    assert main([str(proof)]) == 1
    assert "INVALID: the checkpoint is missing" in capsys.readouterr().out
    for arguments in ([], [str(absent)], [str(checkpoint), str(checkpoint)]):
        assert main(arguments) == 2
        assert "UNREADABLE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("group", "redirected", "code", "printed"),
    [
        ('{"é": 0, "é": 0}', "", 1, "INVALID: a key stands twice in an object with the keys ['\\xe9']\n"),
        ("{", "2>/dev/full", 70, ""),
        ('{"version": 2}', ">/dev/full", 70, ""),
        ('{"version": 2}', ">&-", 70, ""),
    ],
)
def test_output_that_fails_is_no_verdict(group: str, redirected: str, code: int, printed: str, tmp_path: Path) -> None:
    (tmp_path / "proof.json").write_text(group, encoding="utf-8")
    line = f'"{sys.executable}" -P -m checker proof.json {redirected}'
    environment = {"PYTHONPATH": str(PLACE.parent), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, printed, "")


def test_a_reader_that_has_gone_changes_no_verdict(tmp_path: Path) -> None:
    (tmp_path / "proof.json").write_text("{}")
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-P", "-m", "checker", "proof.json"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(PLACE.parent)}, stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def change(name: str, key: str, value: Any) -> Edit:
    return lambda proof: claim(proof, name).__setitem__(key, value)


FAULTS: list[tuple[Edit, str]] = [
    (lambda proof: proof.update(version=2), "version: expected 1"),
    (lambda proof: proof.update(kind="other"), "kind: expected one of"),
    (lambda proof: proof.update(sha256="0" * 64), "another checkpoint"),
    (lambda proof: proof.update(about="All is about float32."), "about: expected"),
    (lambda proof: proof.update(extra=0), "unknown key 'extra'"),
    (lambda proof: proof.pop("step"), "lacks 'step'"),
    (lambda proof: proof.update(step=None), "contraction: expected the step"),
    (lambda proof: proof["step"].update(low=proof["step"]["high"]), "step.low"),
    (lambda proof: proof["step"].update(high=proof["step"]["low"]), "step.high"),
    (lambda proof: proof.update(claims=[]), "there are none"),
    (lambda proof: proof["claims"].append(proof["claims"][0]), "a second gain"),
    (lambda proof: proof.update(images=None), "radius: expected images"),
    (change("gain", "claim", "unheard of"), "expected one of"),
    (change("gain", "words", "The gain is 0."), "words: expected 'For every h there"),
    (change("gain", "symbols", "||dz*|| <= 0"), "symbols: expected"),
    (change("gain", "gain", "nan"), "finite float.hex"),
    (change("gain", "gain", "inf"), "finite float.hex"),
    (change("gain", "gain", 1.0), "finite float.hex"),
    (change("gain", "gain", (0.1).hex()), "positive definite"),
    (change("gain", "gain", (-2.0).hex()), "expected a positive number"),
    (lambda proof: claim(proof, "gain")["multiplier"].pop(), "expected a list of 6"),
    (lambda proof: claim(proof, "gain")["multiplier"].__setitem__(0, (0.0).hex()), "expected positive numbers"),
    (change("contraction", "rate", (1.0).hex()), "between 0 and 1"),
    (change("contraction", "rate", (0.01).hex()), "positive definite"),
    (change("stability", "rate", (-0.1).hex()), "expected a positive number"),
    (change("stability", "rate", (0.99).hex()), "positive definite"),
    (lambda proof: claim(proof, "stability")["norm"][0].__setitem__(0, (-1.0).hex()), "stability: P is not"),
    (lambda proof: claim(proof, "stability")["norm"].pop(), "stability.norm: expected a list of 6"),
    (change("lyapunov", "alpha", (1.5).hex()), "alpha <= 1"),
    (change("lyapunov", "alpha", (0.999).hex()), "lyapunov.alpha: not proved"),
    (change("lyapunov", "decay", (0.9).hex()), "lyapunov.decay"),
    (change("lyapunov", "lipschitz", (0.01).hex()), "lyapunov.lipschitz"),
    (change("lyapunov", "size", (0.01).hex()), "lyapunov.size"),
    (change("lyapunov", "bend", (1e-6).hex()), "lyapunov.bend"),
    (lambda proof: claim(proof, "radius")["radii"][0].__setitem__(2, (50.0).hex()), "is too small for it"),
    (lambda proof: claim(proof, "radius")["radii"][0].__setitem__(2, (-1.0).hex()), "positive radius"),
    (lambda proof: claim(proof, "radius")["radii"][-1].__setitem__(0, 4), "image: expected an integer from 3 to 3"),
    (lambda proof: claim(proof, "radius")["radii"][1].__setitem__(0, 0), "image: expected an integer from 1 to 3"),
    (lambda proof: claim(proof, "radius")["radii"][0].__setitem__(1, 3), "class: expected an integer from 0 to 2"),
    (lambda proof: claim(proof, "radius")["counts"][0].__setitem__(1, 4), "radii of the right class reach 0.1"),
    (lambda proof: claim(proof, "radius")["pairs"].pop(), "no gain is given for classes"),
    (lambda proof: proof["images"]["labels"].__setitem__(1, 3), "images.labels[1]: expected an integer from 0 to 2"),
    (lambda proof: proof["images"]["labels"].pop(), "images.labels: expected a list of 4"),
    (lambda proof: proof["images"]["activations"].pop(), "images.activations: expected a list of 4"),
    (lambda proof: proof["images"].update(pixels="AAAA"), "expected 16 bytes for each image"),
    (lambda proof: proof["images"].update(pixels="é"), "expected base64"),
]


@pytest.mark.parametrize(("edit", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_each_fault_is_named(edit: Edit, message: str, proofs: dict[str, Proved]) -> None:
    proved = proofs["certified"]
    with pytest.raises(Failure) as found:
        check(edited(proved, edit), proved.checkpoint)
    assert message in str(found.value)


def test_a_key_that_stands_twice_and_a_bare_nan_are_refused(proofs: dict[str, Proved]) -> None:
    proved = proofs["certified"]
    with pytest.raises(Failure, match="stands twice"):
        check(proved.text.replace('"version": 1', '"version": 1, "version": 1').encode(), proved.checkpoint)
    with pytest.raises(Failure, match="NaN is no number"):
        check(proved.text.replace('"version": 1', '"version": NaN').encode(), proved.checkpoint)


def test_boxes_of_the_interval_cell_are_checked(proofs: dict[str, Proved]) -> None:
    proved = proofs["interval"]

    def larger(proof: Any) -> None:
        claim(proof, "linf")["at"][0]["eps"] = (0.5).hex()

    def moved(proof: Any) -> None:
        box = claim(proof, "linf")["at"][0]["boxes"][0]
        box[1], box[2] = ([(float.fromhex(x) + 1).hex() for x in side] for side in box[1:])

    def relabelled(proof: Any) -> None:
        proof["claims"] = [claim(proof, "linf")]
        image = proof["claims"][0]["at"][0]["boxes"][0][0]
        proof["images"]["labels"][image] = (proof["images"]["labels"][image] + 1) % 3

    for edit, message in ((larger, "into itself"), (moved, "into itself"), (relabelled, "is not excluded")):
        with pytest.raises(Failure, match=message):
            check(edited(proved, edit), proved.checkpoint)


@pytest.mark.parametrize("name", MODELS)
def test_no_mutation_is_valid_that_claims_what_is_not_so(name: str, proofs: dict[str, Proved]) -> None:
    counted, wrong = outcomes(proofs[name], range(70))
    assert not wrong
    endings = {line.split(": ")[1] for line in counted}
    assert endings >= {"invalid", "still proves", "unreadable"}


def test_the_judge_of_mutations_sees_a_checker_that_accepts_every_matrix(
    proofs: dict[str, Proved], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inequalities, "require_definite", lambda matrix, what: None)
    _, wrong = outcomes(proofs["certified"], range(400, 500))
    assert any("gain" in line or "stability" in line or "contraction" in line for line in wrong)


def test_a_mutation_is_the_same_for_the_same_seed(proofs: dict[str, Proved]) -> None:
    assert mutated(proofs["certified"].text, 3) == mutated(proofs["certified"].text, 3)
    assert not Judge(proofs["certified"]).false_claims(proofs["certified"].text)


def definite(rows: list[list[Any]]) -> bool:
    try:
        require_definite(arb_mat(rows), "it")
    except Failure:
        return False
    return True


def test_positive_definite_matrices_are_told_from_others() -> None:
    assert definite([[2.0, 1.0], [1.0, 2.0]])
    assert definite([[1.0, 1.0], [1.0, 1.0 + 2**-40]])
    for rows in ([[1.0, 1.0], [1.0, 1.0]], [[1.0, 2.0], [2.0, 1.0]], [[0.0]], [[-1.0]], [[1.0, 0.0], [0.0, -1e-300]]):
        assert not definite(rows)


def test_of_a_matrix_in_a_ball_all_are_definite_or_it_is_refused() -> None:
    for radius, holds in ((1e-9, True), (1e-3, False)):  # det = 1e-6 in the middle
        assert definite([[1.0, arb(1, radius)], [arb(1, radius), 1 + 1e-6]]) is holds


def test_rows_of_far_apart_sizes_are_weighed_by_their_own() -> None:
    assert definite([[1e200, 1.0], [1.0, 1e-190]])
    assert not definite([[1e200, 1e10], [1e10, 1e-190]])


@pytest.mark.parametrize("cell", ["certified", "monotone", "interval", "batchnorm"])
def test_the_cell_of_the_parameters_is_the_cell_that_certify_folds(cell: str, tmp_path: Path) -> None:
    path = save_model(tmp_path, cell=cell)
    model = load(path).double()
    network, equation, _ = forms_of(model.cell)
    read = read_cell(Model(path.read_bytes()), None)
    pairs = [
        (read.D, network.output),
        (read.N, network.hidden),
        (read.M, equation.weight),
        (read.U, equation.injection),
    ]
    if read.B is not None:
        pairs.append((read.B, network.state))
    for mine, theirs in pairs:
        torch.testing.assert_close(values(mine), theirs.centre, rtol=0, atol=CLOSE)
    torch.testing.assert_close(values(read.c)[:, 0], equation.bias.centre, rtol=0, atol=CLOSE)
    torch.testing.assert_close(values(read.d)[:, 0], equation.shift.centre, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("head", ["linear", "orthogonal", "orthogonal-direct"])
@pytest.mark.parametrize("backbone", ["fcn", "lipschitz-fcn", "lipschitz-fcn-8", "lipschitz-cnn"])
def test_features_and_logits_of_the_parameters_are_the_models(backbone: str, head: str, tmp_path: Path) -> None:
    shape = (2, 4, 4)
    options = {"backbone": backbone, "head": head, "image_shape": shape, "mean": (0.4, 0.5), "std": (0.3, 0.2)}
    path = save_model(tmp_path, cell="certified", **options)
    model, images = load(path).double(), sample_images(shape=shape)
    assert isinstance(model, StabilisedDEQ)
    read = Model(path.read_bytes())
    levels = bytes((255 * images).round().to(torch.uint8).flatten().tolist())
    h, E = read_features(read, levels, arb(0))
    torch.testing.assert_close(values(h), model.inject(images).detach(), rtol=0, atol=1e-11)
    R, r = read_head(read)
    z = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(z @ values(R).T + values(r)[:, 0], model.head(z).detach(), rtol=0, atol=1e-11)

    jacobian = torch.autograd.functional.jacobian(lambda x: model.inject(x[None])[0], images[0]).flatten(1)
    bound = values(E) @ values(E).T - jacobian @ jacobian.T
    assert float(torch.linalg.eigvalsh(bound).min()) > -1e-10
    if backbone != "fcn":
        torch.testing.assert_close(values(E) @ values(E).T, 25 * torch.eye(6).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("backbone", ["lipschitz-fcn-8", "lipschitz-cnn"])
def test_features_in_few_bits_hold_those_in_many(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Model(save_model(tmp_path, cell="certified", backbone=backbone).read_bytes())
    levels = bytes((255 * sample_images()).round().to(torch.uint8).flatten().tolist())
    found = []
    for bits in (20, 200):
        monkeypatch.setattr(ends, "BITS", bits)
        found.append(read_features(read, levels, arb(0))[0].entries())
    assert all(rough.contains(fine) for rough, fine in zip(*found, strict=True))
    assert all(1e-7 < float(rough.rad()) < 1e-1 for rough in found[0])


def test_a_proof_is_about_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a proof file is about a checkpoint"):
        certify(load(save_model(tmp_path)), sample_images(), torch.zeros(4).long(), proof=tmp_path / "proof.json")


def test_the_command_says_what_the_file_holds_and_what_it_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digits = {"image_shape": (1, 8, 8), "classes": 10, "class_names": tuple("0123456789")}
    path = save_model(tmp_path, cell="certified", stability="anchored", **digits)
    file = tmp_path / "proof.json"
    with pytest.raises(SystemExit):
        command(["certify", str(path), "--images", "5", "--proof", str(file)])
    told = " ".join(capsys.readouterr().out.split())
    assert f"wrote {file}: gain, contraction, stability, lyapunov, radius" in told
    assert main([str(file), str(path)]) == 0


def test_where_no_claim_is_held_there_is_no_file_nor_one_of_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, file = save_model(tmp_path, cell="batchnorm"), tmp_path / "proof.json"
    loaded = load_checkpoint(path)
    with torch.no_grad():
        for parameter in loaded.model.cell.parameters():
            parameter.mul_(4)
    save_checkpoint(path, loaded)
    np.savez(tmp_path / "mine.npz", images=sample_images().numpy(), labels=np.zeros(4, dtype=np.int64))
    file.write_text("a proof of before")
    with pytest.raises(SystemExit):
        command(["certify", str(path), "--images", str(tmp_path / "mine.npz"), "--proof", str(file)])
    assert "no proof file: no claim can be in it" in " ".join(capsys.readouterr().out.split())
    assert not file.exists()
