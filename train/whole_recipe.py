"""A recipe with every setting that decides a run, those of its kind too, written as a recipe file."""

from dataclasses import replace

from stabdeq.config.kinds import KINDS, completed
from stabdeq.toml_text import toml_text
from train.recipe import Recipe, plain_recipe

COMPILED = "# The solver was asked to be compiled, which a file may not: add --set model.solver.compiled=true.\n"
BRINGS_A_NETWORK = "# The kind {kind} is a network of its own: model.state_dim is its width, and no setting.\n"


def whole_recipe(recipe: Recipe) -> str:
    """Return ``recipe`` as TOML with nothing left to defaults: what trains the same model when it is saved and given back.

    Raises ConfigError where the kind contradicts the recipe, or an option of a registered solver or objective has no form in TOML.
    """
    values = plain_recipe(replace(recipe, model=completed(recipe.kind, recipe.model)))
    notes, model = "", values["model"]
    if KINDS[recipe.kind].backbone:
        del model["state_dim"]
        notes += BRINGS_A_NETWORK.format(kind=recipe.kind)
    if model["solver"]["compiled"]:
        del model["solver"]["compiled"]
        notes += COMPILED
    return notes + toml_text(values)
