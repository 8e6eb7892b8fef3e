"""
Robustness curves, honest and flat
==================================

An honest attack breaks more images the more it may change them. An attack that takes normalised images for pixels, and
clamps them to [0, 1], breaks nearly half of these before it has changed anything: the curve drops at eps = 0, and then
hardly falls. That is the mark of a broken measurement, not of a robust model.
"""

# %%
# A plain deep equilibrium model, a few epochs on the digits of scikit-learn.
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt

import stabdeq
from stabdeq.attacks import PGD, ClampNormalised, evaluate
from stabdeq.data import Split, load_data
from train.recipe import load_recipe
from train.trainer import train

recipe = load_recipe("digits", {"kind": "deq", "epochs": 3})
data = load_data(recipe.data)
with TemporaryDirectory() as folder:
    train(recipe, data, Path(folder))
    model = stabdeq.load(Path(folder) / "checkpoint.safetensors")

# %%
# PGD in steps of a quarter of eps, once as it should be, once with its images clamped after normalisation.
levels = [0, 4, 8, 16, 24, 32]
images = Split(data.test.images[:150], data.test.labels[:150])


def accuracy(attack):
    """Return how many of the images are classified rightly under ``attack``, in %."""
    return 100 * float(evaluate(attack, model, images, seed=0).robust_correct.double().mean())


attacks = [PGD(eps=level / 255, steps=10, step_size=max(level, 1) / 4 / 255) for level in levels]
honest = [accuracy(attack) for attack in attacks]
faulty = [accuracy(ClampNormalised(attack=attack, mean=data.mean, std=data.std)) for attack in attacks]

figure, axes = plt.subplots(figsize=(7, 4.5))
axes.plot(levels, honest, "o-", label="PGD")
axes.plot(levels, faulty, "s--", color="tab:red", label="PGD, clamped after normalisation")
axes.set(xlabel="eps, in 255ths", ylabel="right under attack, %", ylim=(0, 100), title="The same model twice")
axes.grid(alpha=0.3)
axes.legend()
