"""Jobs of ``stabdeq reproduce``, the files that they leave, and an engine that is told what to do."""

import json
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from command_runs import save_untrained

from analysis.commands.reproduce import reproduce
from analysis.reproduce.jobs import Attack, System, Training
from analysis.reproduce.plan import STUDIES, attacks, select, trainings
from stabdeq.attacks import paper_steps
from stabdeq.checkpoint import load_checkpoint, save_checkpoint
from stabdeq.config import DataConfig

DEQ = System(name="deq", kind="deq")


def training(**changes: Any) -> Training:
    settings: dict[str, Any] = {
        "data": "digits",
        "system": DEQ,
        "seed": 0,
        "epochs": 1,
        "out": Path("out"),
        "data_dir": None,
    }
    return Training(**settings | changes)


def write_checkpoint(job: Training, *, epoch: int | None = None, **recipe: Any) -> None:
    """Leave what the job would leave, untrained, with ``recipe`` values of its own."""
    job.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    usual: dict[str, Any] = {
        "kind": job.system.kind,
        "seed": job.seed,
        "epochs": job.epochs,
        "data": {"name": job.data},
    }
    recipe = usual | recipe
    for key, value in job.system.settings.items():
        group, name = key.split(".")
        recipe.setdefault(group, {})[name] = value
    data = DataConfig(**recipe["data"])
    save_untrained(job.checkpoint, recipe["kind"], data if data.name == "folder" else None)
    says = {"seed": recipe["seed"], "data": data, "epoch": job.epochs if epoch is None else epoch}
    save_checkpoint(job.checkpoint, replace(load_checkpoint(job.checkpoint), recipe=recipe, **says))


def write_attack(job: Attack, accuracy: float, **changes: Any) -> None:
    """Leave what the job would leave, with an ``accuracy`` between 0 and 1."""
    content = {
        "schema": 1,
        "data": job.data,
        "attack": job.attack,
        "norm": "linf",
        "eps": job.eps / 255,
        "steps": paper_steps(job.eps / 255),
        "seed": job.training.seed,
        "n": job.count,
        "accuracy": {"clean": 0.9, "eps_0": 0.9, "robust": accuracy, "worst": accuracy / 2},
        "unconverged": {"clean": 0.0, "eps_0": 0.0, "robust": 0.0},
        "warnings": [],
    }
    job.result.parent.mkdir(parents=True, exist_ok=True)
    job.result.write_text(json.dumps(content | changes))


class FakeEngine:
    """Does at once what ``script`` says: leaves the file, unless it gives another exit code or raises."""

    lanes = 1

    def __init__(self, jobs: Any = (), script: Any = None) -> None:
        self.jobs = {job.log: job for job in jobs}
        self.script = script or {}
        self.order: list[str] = []
        self.stopped = False

    def submit(self, arguments: list[str], log: Path) -> "Future[tuple[int, float]]":
        job = self.jobs[log]
        assert arguments == job.command()
        self.order.append(job.name)
        end: Future[tuple[int, float]] = Future()
        action = self.script.get(job.name, 0)
        if isinstance(action, BaseException):
            end.set_exception(action)
            return end
        log.write_text("working\nstabdeq: it went wrong\n\n" if action else "fine\n")
        if action == 0:
            write_checkpoint(job) if isinstance(job, Training) else write_attack(job, 0.5)
        end.set_result((action or 0, 2.0))
        return end

    def stop(self) -> None:
        self.stopped = True


def jobs_of(
    what: str, data: str = "digits", kinds: str = "deq", seeds: tuple[int, ...] = (0,)
) -> tuple[Any, list[Any]]:
    study = select(STUDIES[what], data, kinds)
    models = trainings(study, seeds=seeds, epochs=1, out=Path("out"), data_dir=None)
    return study, [job for model in models for job in (model, *attacks(study, model, limit=100, honest_limit=50))]


CALL: dict[str, Any] = {"data": "digits", "kinds": "deq", "seeds": "0", "epochs": 1, "limit": 100, "honest_limit": 50}


def call(what: Any, **changes: Any) -> None:
    reproduce(what, **CALL | {"out": Path("out")} | changes)
