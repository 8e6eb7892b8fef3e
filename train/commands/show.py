"""``stabdeq show``: a recipe with every setting, as a recipe file."""

from typing import Annotated

from cyclopts import Parameter


def show(
    recipe: str,
    *,
    kind: str | None = None,
    settings: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
) -> None:
    """Print a recipe with every setting that decides a run, defaults too, as TOML that "stabdeq train FILE.toml" takes.

    Parameters
    ----------
    recipe
        digits, mnist, mnist-robust, svhn, cifar10, cifar100 or another that "stabdeq list recipes" has, or the path of a TOML file.
    kind
        The kind of model, as "stabdeq list kinds" has them.
    settings
        Replace a recipe value, such as --set model.lyapunov.alpha=0.2; may be given several times.
    """
    from train.recipe import load_recipe
    from train.whole_recipe import whole_recipe

    print(whole_recipe(load_recipe(recipe, {"kind": kind}, settings)), end="")
