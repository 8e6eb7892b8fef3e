"""Attacks on certificates of models and on their proof files: sums that overflow, tensors of other shapes, crafted checkpoints."""

import json
import struct
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from deployed_models import _plain_model
from proof_mutations import MODELS, Proved, prove
from torch import Tensor, nn

from analysis.certify import certify
from analysis.findings import Verdict
from analysis.proofs.cells.deployed import Arithmetic, Near, equilibria
from analysis.proofs.cells.deployed_extractor import features
from analysis.proofs.cells.extractor import extractor_of
from analysis.proofs.structure import is_structured
from stabdeq.bounds.ends import require_unaltered_model
from stabdeq.cells import is_as_made
from stabdeq.cells.relu import FoldedReluCell
from stabdeq.checker.door import check, main
from stabdeq.checker.reading import Failure, Unreadable
from stabdeq.config import LyapunovConfig, ModelConfig
from stabdeq.errors import ConfigError
from stabdeq.model import StabilisedDEQ

Edit = Callable[[Any], object]


# The model as it runs.


def overflowing_logits() -> StabilisedDEQ:
    """Logits 1e38 z_1 and 1e38 z_1 + 1e37, z_1 = 3.1 + 0.4 times the mean pixel: both are infinite in float32 for bright images."""
    model = _plain_model(2)
    model.backbone.linear.weight[0] = 0.4 / 16  # pyrefly: ignore
    model.backbone.linear.bias.copy_(torch.tensor([3.1, 1.0]))  # pyrefly: ignore
    model.head.classifier.weight.copy_(torch.tensor([[1e38, 0.0], [1e38, 1e37]]))
    return model


def test_where_logits_may_overflow_nothing_is_certified_of_the_model_as_it_runs() -> None:
    model, dark, bright = overflowing_logits(), torch.full((1, 1, 4, 4), 0.25), torch.ones(1, 1, 4, 4)
    assert (model(dark).argmax(1), model(bright).argmax(1)) == (1, 0)
    report = certify(model, dark, torch.tensor([1]), deployed=True)
    verdicts = {finding.check: finding.verdict for finding in report.findings}
    assert verdicts["radius"] is Verdict.PROVED
    assert report.series["certify"]["deployed"]["radius"] == [0.0]
    assert verdicts["deployed"] is Verdict.INCONCLUSIVE


def one(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def stopped_at(feature: float, bias: float, tolerance: float, transition: float = 0.5, scale: float = 1.0) -> float:
    """The bound of the error of a state at which the solver of relu(transition z + scale (h + b)) stops, z* being about 0."""
    cell = FoldedReluCell(one(transition)[None], one(scale), one(bias))
    near = Near(one(feature)[None], one(0.0), one(0.0))
    return float(equilibria(cell, near, one(0.0)[None], one(0.0), 1.0, Arithmetic(torch.float32, tolerance, {})).error)


def test_a_state_is_not_known_where_what_enters_the_cell_may_overflow() -> None:
    assert stopped_at(-1e38, -1e37, 1e-3) < 1e33
    assert stopped_at(-1e38, -1e38, 1e-3) == torch.inf


def test_a_residual_whose_square_underflows_may_stop_the_solver() -> None:
    """At z = 0 the residual of (1 - s) z + s h is s h = 1e-19, whose square may be flushed to 0, and h the equilibrium."""
    assert stopped_at(1e-14, 0.0, 1e-35, 1 - 1e-5, 1e-5) > 1e-14


def test_flushed_differences_of_pixels_count_for_more_after_a_small_std() -> None:
    model = _plain_model(2).double()
    image, reach = torch.zeros(1, 1, 4, 4, dtype=torch.float64), one(0.0)
    model.std.fill_(1e-37)
    model.backbone.linear.weight[0, 0] = 1.0  # pyrefly: ignore
    assert float(features(model, image, reach, Arithmetic(torch.float32, 1e-3, {})).error) > 1.1e-38 / 1e-37
    model.std.fill_(1e-38)  # a flushed one
    assert not float(features(model, image, reach, Arithmetic(torch.float32, 1e-3, {})).error) < torch.inf


# Tensors of another shape, which the same operations take.


def convolutional() -> StabilisedDEQ:
    torch.manual_seed(0)
    settings = ModelConfig(
        image_shape=(1, 8, 8),
        classes=3,
        mean=(0.4,),
        std=(0.3,),
        cell="certified",
        state_dim=6,
        backbone="lipschitz-cnn",
        stability="anchored",
        lyapunov=LyapunovConfig(hidden=5),
    )
    return StabilisedDEQ(settings).double().eval().requires_grad_(False)


def test_kernels_of_5_x_5_have_no_proof() -> None:
    """They skip the border, of which a proof for kernels of 3 x 3 knows nothing: its features would be off by 0.1."""
    model = convolutional()
    extractor_of(model)
    layer = model.backbone[2]  # pyrefly: ignore
    layer.weight = nn.Parameter(torch.randn(16, 16, 5, 5, dtype=torch.float64))
    model.inject(torch.rand(2, 1, 8, 8, dtype=torch.float64))
    with pytest.raises(
        ConfigError, match=r"backbone's 2.weight is of shape \(16, 16, 5, 5\), expected \(16, 16, 3, 3\)"
    ):
        extractor_of(model)


def test_one_bias_for_all_has_no_proof() -> None:
    model = convolutional()
    require_unaltered_model(model)
    assert is_as_made(model.cell)
    assert is_structured(model.lyapunov)
    model.cell.bias = nn.Parameter(torch.zeros(1).double())  # pyrefly: ignore
    model.head.classifier.bias = nn.Parameter(torch.zeros(1).double())
    model.lyapunov.network.skip.weight = nn.Parameter(torch.ones(6).double())  # pyrefly: ignore
    assert model(torch.rand(2, 1, 8, 8, dtype=torch.float64)).shape == (2, 3)
    assert not is_as_made(model.cell)
    assert not is_structured(model.lyapunov)
    with pytest.raises(ConfigError, match=r"classifier.bias is of shape \(1,\), expected \(3,\)"):
        require_unaltered_model(model)


# Checkpoints that are no models of this library, and proof files.


@pytest.fixture(scope="module")
def proved(tmp_path_factory: pytest.TempPathFactory) -> Proved:
    return prove(tmp_path_factory.mktemp("certified"), **MODELS["certified"])


def crafted(proved: Proved, settings: Edit, header: Edit = lambda header: None) -> tuple[bytes, bytes]:
    """The proof of another checkpoint, with the model's ``settings`` and the ``header`` edited, and that checkpoint."""
    length = 8 + struct.unpack("<Q", proved.checkpoint[:8])[0]
    entries = json.loads(proved.checkpoint[8:length])
    metadata = json.loads(entries["__metadata__"]["stabdeq"])
    settings(metadata["model"])
    entries["__metadata__"]["stabdeq"] = json.dumps(metadata).replace('"huge"', "1e999")
    header(entries)
    text = json.dumps(entries).encode()
    checkpoint = struct.pack("<Q", len(text)) + text + proved.checkpoint[length:]
    return json.dumps(json.loads(proved.text) | {"sha256": sha256(checkpoint).hexdigest()}).encode(), checkpoint


def test_an_unedited_checkpoint_is_valid(proved: Proved) -> None:
    assert len(check(*crafted(proved, lambda settings: None))) == 6


@pytest.mark.parametrize(
    "edit",
    [
        lambda settings: settings["lyapunov"].update(eta=-1.0, smoothing=-1e-9),
        lambda settings: settings["lyapunov"].update(eta="huge"),
        lambda settings: settings["lyapunov"].update(eta="1.0"),
        lambda settings: settings["lyapunov"].update(eta=True),
        lambda settings: settings["lyapunov"].pop("smoothing"),
        lambda settings: settings.pop("lyapunov"),
        lambda settings: settings.update(lyapunov=[]),
        lambda settings: settings.update(state_dim=6.0),
        lambda settings: settings.update(state_dim=10**30),
        lambda settings: settings.update(classes="3"),
        lambda settings: settings.update(image_shape=[0, 4, 4]),
        lambda settings: settings.update(image_shape=[4, 4]),
        lambda settings: settings.update(image_shape=None),
        lambda settings: settings.update(backbone=[]),
    ],
)
def test_settings_that_no_model_has_are_unreadable(proved: Proved, edit: Edit) -> None:
    with pytest.raises(Unreadable, match="no safetensors file of stabdeq"):
        check(*crafted(proved, edit))


def test_v_of_negative_sizes_does_not_fall_at_the_rate_1(proved: Proved) -> None:
    text, checkpoint = crafted(proved, lambda settings: settings["lyapunov"].update(eta=-1.0, smoothing=-1e-9))
    proof = json.loads(text)
    (claim,) = proof["claims"] = [one for one in proof["claims"] if one["claim"] == "lyapunov"]
    claim.update(
        alpha=(1.0).hex(),
        words="For every h and z, the learned V, centred at z*, falls along z' = f(z, h) - z at the rate 1.0 or faster.",
    )
    with pytest.raises(Unreadable):
        check(json.dumps(proof).encode(), checkpoint)


@pytest.mark.parametrize(
    "edit",
    [
        lambda entry: entry.pop("shape"),
        lambda entry: entry.pop("dtype"),
        lambda entry: entry.pop("data_offsets"),
        lambda entry: entry.update(shape=6),
        lambda entry: entry.update(shape=[6.0]),
        lambda entry: entry.update(dtype=[]),
        lambda entry: entry.update(data_offsets=[0.0, 24.0]),
        lambda entry: entry.update(data_offsets=[0]),
        lambda entry: entry.update(data_offsets=[-24, None]),
        lambda entry: entry.update(data_offsets=[-48, -24]),
    ],
)
def test_damaged_entries_of_a_tensor_are_refused_in_words(proved: Proved, edit: Edit) -> None:
    with pytest.raises((Unreadable, Failure), match=r"cell\.bias"):
        check(*crafted(proved, lambda settings: None, lambda header: edit(header["model.cell.bias"])))


def test_an_empty_tensor_is_refused_in_words(proved: Proved) -> None:
    def emptied(header: Any) -> None:
        header["model.lyapunov.network.inner.weight"].update(shape=[0, 6], data_offsets=[0, 0])

    with pytest.raises(Failure, match=r"inner\.weight of shape"):
        check(*crafted(proved, lambda settings: None, emptied))


def test_what_the_checker_says_can_be_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half of a surrogate pair is JSON, and no text of UTF-8."""
    proof = tmp_path / "proof.json"
    proof.write_bytes(b'{"\\ud800": 1, "\\ud800": 2}')
    assert main([str(proof)]) == 1
    capsys.readouterr().out.encode()
    proof.write_bytes(b'{"version": true, "kind": "boxes"}')
    assert main([str(proof)]) == 1
    assert "version: expected 1, got True" in capsys.readouterr().out
