"""
Two first verdicts
==================

From ``import stabdeq`` to a verdict: on a Lyapunov function of your own in three lines, on a model in four. This page is a notebook,
which the link at its end downloads: a report that ends a cell is shown as a page, ``print`` shows it as a table.
"""

# %%
# A Lyapunov function of your own
# -------------------------------
# V and the dynamics take states (B, 2), one a row. This V proves that a pendulum with friction comes to rest.

# sphinx_gallery_thumbnail_path = '_static/report.png'
import tempfile

import torch

import stabdeq


def V(z):
    return z[:, 0] ** 2 + z[:, 0] * z[:, 1] + z[:, 1] ** 2


def f(z):
    return torch.stack([z[:, 1], -torch.sin(z[:, 0]) - z[:, 1]], 1)


report = stabdeq.check(V, f, dim=2)

print(report)

# %%
# The same as a page, from which each claim opens to its evidence:

report

# %%
# ``report["decrease"]`` is the part of the report on one claim, ``report.holds`` says whether all claims stand, and
# ``report.save(folder)`` writes the page.

print(report["decrease"].verdict, report.holds)

# %%
# A model
# -------
# Two epochs on the digits that ship with scikit-learn: too few for a good classifier, enough to judge what is claimed of it. V is
# centred at the equilibrium here, so most claims follow from the way the model is built.

trained = stabdeq.train("digits", epochs=2, out=tempfile.mkdtemp(), quiet=True)
report = stabdeq.audit(trained.checkpoint, samples=16)

print(report)

# %%
# The paper's own module, with V centred at the origin, does not keep the equilibrium that it predicts from:

paper = stabdeq.train("digits", kind="lyadeq", epochs=2, out=tempfile.mkdtemp(), quiet=True)
report = stabdeq.audit(paper.checkpoint, samples=16, checks=["equilibrium"])

print(report["equilibrium.preserved"])
