"""The result of an attack as a part holds it, and that of one process, joined of those of all shards."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch

from analysis.shards.part import Part, differences
from analysis.shards.work import Work, files_read, timeless_environment
from stabdeq.attacks.evaluate import Outcome
from stabdeq.attacks.result import AttackResult
from stabdeq.errors import ShardError, StabdeqError
from stabdeq.shard import Shard


def attack_part(work: Work, shard: Shard, result: AttackResult) -> Part:
    """Return the part of ``shard``, whose ``result`` is of its own of the batches; raises ShardError where code was changed meanwhile."""
    images, size = result.drawn["images"], result.settings["batch_size"]
    # Rounding is another on another device.
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = {"images": result.drawn["sha256"]}
    loaded |= {"subject": result.subject["sha256"]} if result.subject["sha256"] else {}
    plain = {
        "units": list(range(-(-images // size))),
        "files": files_read(work, loaded),
        "environment": timeless_environment() | {"device": device},
    }
    named = {each.name: getattr(result, each.name) for each in fields(result)}
    named |= {"indices": result.indices.tolist(), "control": _plain(result.control), "outcome": _plain(result.outcome)}
    return Part(shard=shard, work=work.plain | plain, result=named)


def joined_attack(parts: Sequence[Part]) -> AttackResult:
    """Return the result of one process, from all ``parts`` of an attack.

    Raises ShardError where a part holds none, or where they have not each image that was drawn once.
    """
    try:
        results = [_result(part.result) for part in parts]
        first = results[0]
        for part, result in zip(parts, results, strict=True):
            if said := next(differences(_subject(result), _subject(first)), ""):
                raise ShardError(f"shard {part.shard} is of another attack: {said}: run it again")
        indices = torch.cat([result.indices for result in results])
        whole = replace(
            first,
            indices=indices,
            control=_joined([result.control for result in results]),
            outcome=_joined([result.outcome for result in results]),
        )
        order = indices.argsort()
        drawn = first.drawn["images"]
        complete = len(indices) == len(indices.unique()) == drawn
        if not complete:
            raise ShardError(
                f"the parts have {len(indices.unique())} images of {drawn} that were drawn: run all shards again"
            )
        joined = replace(
            whole, indices=indices[order], control=_sorted(whole.control, order), outcome=_sorted(whole.outcome, order)
        )
        joined.to_json(), str(joined)  # what lacks a setting, or has another thing in its place, is refused here
        return joined
    except ShardError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, ArithmeticError, StabdeqError):
        raise ShardError("a part holds no result of an attack: run all shards again") from None


def _plain(outcome: Outcome) -> dict[str, Any]:
    values = {each.name: getattr(outcome, each.name) for each in fields(outcome)}
    return {name: None if value is None else value.tolist() for name, value in values.items()}


def _result(plain: dict[str, Any]) -> AttackResult:
    if any(type(index) is not int or index < 0 for index in plain["indices"]):
        raise ValueError
    if plain["parts"] and max(plain["outcome"]["broken_by"] or [0]) > len(plain["parts"]):
        raise ValueError
    return AttackResult(
        **plain
        | {
            "parts": tuple(plain["parts"]),
            "indices": torch.tensor(plain["indices"], dtype=torch.int64),
            "control": _outcome(plain["control"], len(plain["indices"])),
            "outcome": _outcome(plain["outcome"], len(plain["indices"])),
        }
    )


def _subject(result: AttackResult) -> dict[str, Any]:
    """Return what the results of all shards have in common."""
    return {name: getattr(result, name) for name in ("subject", "settings", "radius", "parts", "drawn")}


def _outcome(plain: dict[str, Any], samples: int) -> Outcome:
    """Return the outcome of so many samples; raises ValueError where it is of more or fewer, or of other values."""

    tensors: dict[str, Any] = {}
    for name, value in plain.items():
        kind, dtype = (int, torch.int64) if name == "broken_by" else (bool, torch.bool)
        if value is not None and [type(one) for one in value] != samples * [kind]:
            raise ValueError
        tensors[name] = None if value is None else torch.tensor(value, dtype=dtype)
    return Outcome(**tensors)


def _joined(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcomes of all images: a shard without any cannot tell whether the model has equilibria."""
    return Outcome.joined([outcome for outcome in outcomes if len(outcome.clean_correct)])


def _sorted(outcome: Outcome, order: torch.Tensor) -> Outcome:
    tensors: dict[str, Any] = {each.name: getattr(outcome, each.name) for each in fields(outcome)}
    chosen: dict[str, Any] = {name: None if value is None else value[order] for name, value in tensors.items()}
    return Outcome(**chosen)
