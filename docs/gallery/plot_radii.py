"""
Certified radii against PGD
===========================

A cell that is certified by construction bounds how far an equilibrium moves with its image. So some predictions come with a
radius within which no change of the image can turn them. The proof is a lower bound of the accuracy under every attack;
PGD is an upper bound. The truth lies in between.
"""

# %%
# Training for predictions with room, on the digits of scikit-learn.
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import torch

import stabdeq
from stabdeq.attacks import PGD, evaluate
from stabdeq.data import Split, load_data, to_unit
from train.recipe import load_recipe
from train.trainer import train

settings = ["model.cell=certified", "model.state_dim=32", "learning_rate=0.005", "margin.radius=0.2"]
recipe = load_recipe("digits", {"kind": "deq", "epochs": 4}, settings)
data = load_data(recipe.data)
with TemporaryDirectory() as folder:
    train(recipe, data, Path(folder))
    model = stabdeq.load(Path(folder) / "checkpoint.safetensors")

# %%
# A hundred test images: PGD in the l2 norm, then the proof.
images = Split(data.test.images[:100], data.test.labels[:100])
distances = [0, 0.1, 0.2, 0.4, 0.6, 0.8]
attacked = []
for eps in distances:
    outcome = evaluate(PGD(eps=eps, norm="l2", steps=10), model, images, seed=0)
    attacked.append(100 * float(outcome.worst_correct.double().mean()))

report = stabdeq.certify(model, to_unit(images.images), images.labels)
for finding in report.findings:
    print(finding.verdict, finding.claim)

# %%
# Accuracy against the radius, in pixels of [0, 1].
radii = report.series["certify"]["radii"]
correct = torch.tensor(radii["predicted"]) == torch.tensor(radii["labels"])
radius = torch.tensor(radii["radius"])
certified = [100 * float((correct & (radius >= eps)).double().mean()) for eps in distances]

figure, axes = plt.subplots(figsize=(7, 4.5))
axes.plot(distances, attacked, "o-", label="right under PGD: no more than this")
axes.plot(distances, certified, "s-", label="certified: no less than this")
axes.fill_between(distances, certified, attacked, alpha=0.15, label="open")
axes.set(xlabel="l2 distance, pixels of [0, 1]", ylabel="test images, %", ylim=(0, 100))
axes.grid(alpha=0.3)
axes.legend(loc="lower left")
