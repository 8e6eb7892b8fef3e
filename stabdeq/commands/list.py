"""``stabdeq list``: what there is by name."""

from typing import Annotated

from cyclopts import Parameter

from stabdeq.listing import GroupName, listed


def list_names(
    group: GroupName | None = None,
    *,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """List recipes, kinds, checks, attacks, solvers and claims, with a sentence each.

    Parameters
    ----------
    group
        All of them if not given.
    as_json
        Print JSON instead: by group, a list of name and sentence.
    """
    import json
    from dataclasses import asdict

    groups = listed(group)
    if as_json:
        print(json.dumps({name: [asdict(row) for row in rows] for name, rows in groups.items()}, indent=1))
        return
    for name, rows in groups.items():
        width = max(len(row.name) for row in rows)
        print(name)
        for row in rows:
            print(f"  {row.name:{width}}  {row.sentence}")
