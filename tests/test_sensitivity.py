"""The factors of a model's sensitivity, where all of them are known: an affine model."""

import pytest
import torch

from benchmarks.sensitivity import factors
from stabdeq.config import ModelConfig
from stabdeq.model import StabilisedDEQ


def test_an_affine_model_has_the_factors_that_it_is_made_of() -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        image_shape=(1, 3, 3), classes=2, mean=(0.5,), std=(0.5,), backbone="fcn", cell="constant", state_dim=4
    )
    model = StabilisedDEQ(config).double().eval()
    images = torch.rand(40, 1, 3, 3, dtype=torch.float64)
    labels = model(images).argmax(1)
    found = factors(model, images, labels)
    extractor, reader = model.backbone.linear.weight.detach() / 0.5, model.head.classifier.weight.detach()
    slope = float(((reader[1] - reader[0]) @ extractor).abs().sum())
    logits = model(images).detach()
    margin = float((logits.amax(1) - logits.amin(1)).median())
    expected = {
        "‖E‖": float(torch.linalg.matrix_norm(extractor, 2)),
        "ρ(J)": 0.0,
        "‖D‖": 1.0,
        "‖(I-J)⁻¹ D‖": 1.0,
        "‖R‖": float(torch.linalg.matrix_norm(reader, 2)),
        "margin": margin,
        "‖∇margin‖₁": slope,
        "margin / ‖∇margin‖₁": 255 * margin / slope,
    }
    assert found == pytest.approx(expected)
