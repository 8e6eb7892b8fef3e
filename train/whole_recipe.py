"""A recipe with every setting that decides a run, those of its kind too, written as a recipe file."""

from stabdeq.config.kinds import KINDS
from stabdeq.toml_text import toml_text
from train.recipe import Recipe, plain_recipe

COMPILED = "# The solver was asked to be compiled, which a file may not: add --set model.solver.compiled=true.\n"
BRINGS_A_NETWORK = "# The kind {kind} is a network of its own: model.state_dim is its width, and no setting.\n"


def whole_recipe(recipe: Recipe) -> str:
    """Return ``recipe`` as TOML with nothing left to defaults: what trains the same model when it is saved and given back.

    Raises ConfigError where an option of a registered solver or objective has no form in TOML.
    """
    values = plain_recipe(recipe)
    notes = ""
    kind, model = KINDS[recipe.kind], values["model"]
    for part in ("cell", "stability", "head"):
        model[part] = model[part] or getattr(kind, part)
    model["lyapunov"]["alpha"] = model["lyapunov"]["alpha"] or kind.alpha
    if kind.backbone:
        model["backbone"] = kind.backbone
        del model["state_dim"]
        notes += BRINGS_A_NETWORK.format(kind=recipe.kind)
    if model["solver"]["compiled"]:
        del model["solver"]["compiled"]
        notes += COMPILED
    return notes + toml_text(values)
