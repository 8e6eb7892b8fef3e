"""Metadata of checkpoints of schema 1 as schema 2 writes it.

Schema 1 stored ``window`` and ``mixing`` for every solver, and all settings that any objective has, None for another's: what
the solver or the objective named there never read is left out.
"""

from collections.abc import Callable
from typing import Any

Group = dict[str, Any]

FOREIGN = {"broyden": ("window", "mixing"), "picard": ("window",)}  # stored by schema 1 and never read


def from_schema_1(values: Group) -> Group:
    """Return the metadata ``values`` of schema 1 as those of schema 2; what is not as schema 1 wrote it stays as it is."""
    values = _changed(values, "model", lambda model: _changed(model, "solver", _own_to_the_solver))
    return _changed(values, "recipe", _recipe)


def _recipe(recipe: Group) -> Group:
    recipe = _changed(recipe, "model", lambda model: _changed(model, "solver", _own_to_the_solver))
    return _changed(recipe, "objective", _own_to_the_objective)


def _own_to_the_solver(solver: Group) -> Group:
    name = solver.get("name")
    foreign = FOREIGN.get(name, ()) if isinstance(name, str) else ()
    return {key: value for key, value in solver.items() if key not in foreign}


def _own_to_the_objective(objective: Group) -> Group:
    return {key: value for key, value in objective.items() if value is not None}


def _changed(group: Group, key: str, change: Callable[[Group], Group]) -> Group:
    """Return ``group`` with ``change`` made to the group at ``key``, where there is one: the file may hold anything."""
    return group | {key: change(group[key])} if isinstance(group.get(key), dict) else group
