"""The jobs of ``stabdeq reproduce``: what the paper prints, which jobs that asks for, and when a job is done."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from reproduce_jobs import jobs_of, training, write_attack, write_checkpoint

from analysis.commands.reproduce import reproduce
from analysis.reproduce.jobs import Attack
from analysis.reproduce.paper import printed
from analysis.reproduce.plan import STUDIES, attacks, parse_seeds, select, trainings
from stabdeq.errors import ConfigError, StabdeqError

pytestmark = pytest.mark.usefixtures("folder", "repository_on_path")


# What the paper prints, and the plan.


def test_printed_figures() -> None:
    assert printed("mnist", "deq", "ifgsm", 2) == 50.24
    assert printed("cifar10", "lyadeq", "pgd", 8) == 43.96
    assert printed("svhn", "ibp-mondeq", "pgd", 0) == 91.06
    assert printed("cifar100", "lyadeq", "ifgsm", 8) == 23.35
    assert printed("cifar10", "lyadeq-robust-data", "pgd", 4) == 51.85
    assert printed("cifar10", "wrn-28-10-trades", "pgd", 8) == 75.01


@pytest.mark.parametrize(
    "absent",
    [
        ("cifar100", "lyadeq", "pgd", 2),
        ("digits", "deq", "pgd", 2),
        ("mnist", "deq", "honest", 2),
        ("mnist", "deq", "pgd", 10),
        ("cifar10", "lyadeq-trades", "pgd", 0),
        ("cifar10", "vgg16", "pgd", 2),
        ("mnist", "vgg16", "pgd", 8),
        ("mnist", "lyadeq-anchored", "pgd", 8),
    ],
)
def test_what_the_paper_does_not_print(absent: tuple[str, str, str, int]) -> None:
    assert printed(*absent) is None


def test_every_system_of_the_paper_has_its_figures() -> None:
    for what in ("table1", "table2", "table3"):
        for system in STUDIES[what].systems:
            for data in STUDIES[what].data:
                ours = system.kind in ("lyadeq-anchored", "lyadeq-certified")
                assert (printed(data, system.name, "ifgsm", 8) is None) == ours


def test_table_1_is_its_models_and_twelve_attacks_on_each() -> None:
    study = STUDIES["table1"]
    models = trainings(study, seeds=(0, 1, 2), epochs=None, out=Path("out"), data_dir=None)
    assert len(models) == len({model.name for model in models}) == 4 * 7 * 3
    assert {model.data: model.epochs for model in models} == {"mnist": 10, "svhn": 40, "cifar10": 50, "cifar100": 50}
    jobs = attacks(study, models[0], limit=None, honest_limit=1000)
    assert [(job.attack, job.eps) for job in jobs] == [
        (attack, eps) for attack in ("ifgsm", "pgd", "honest") for eps in (2, 4, 6, 8)
    ]
    assert [job.count for job in jobs] == [10_000] * 8 + [1000] * 4


def test_command_lines() -> None:
    _, (first, *_) = jobs_of("table2", "cifar10", "lyadeq-trades", (3,))
    assert " ".join(first.command()) == (
        "train cifar10 --kind lyadeq --seed 3 --epochs 1 --set objective.name=trades --out out/cifar10/lyadeq-trades-seed3 --resume"
    )
    robust = jobs_of("table2", "cifar10", "lyadeq-robust-data")[1][0].command()
    assert robust[robust.index("--set") + 1] == "data.robust=true"
    attack = Attack(training=training(data_dir=Path("d")), attack="pgd", eps=8, limit=None)
    assert " ".join(attack.command()) == (
        "attack out/digits/deq-seed0/checkpoint.safetensors --attack pgd --eps 8/255 --batch-size 1000 --seed 0 "
        "--data-dir d --json out/digits/deq-seed0/pgd-8.json"
    )


def test_interval_networks_of_colour_images_get_a_backbone_with_bounds() -> None:
    settings = {data: jobs_of("table1", data, "ibp-mondeq")[1][0].system.settings for data in ("mnist", "svhn")}
    assert settings["mnist"] == {"objective.name": "ibp"}
    assert settings["svhn"] == {"objective.name": "ibp", "model.backbone": "cnn"}


def test_the_margin_fits_the_images() -> None:
    margins = [
        jobs_of("table1", data, "lyadeq-certified")[1][0].system.settings["margin.radius"]
        for data in ("mnist", "cifar10")
    ]
    assert margins == [0.5, 36 / 255]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": "cifar"}, "--data 'cifar' .* did you mean 'cifar10'"),
        ({"kinds": "deq,lyadec"}, "--kinds 'lyadec' .* did you mean 'lyadeq'"),
        ({"seeds": "0,-1"}, "--seeds '0,-1': expected whole numbers"),
        ({"seeds": ""}, "--seeds ''"),
        ({"jobs": 2, "ray": True}, "--jobs with --ray"),
        ({"jobs": 2, "dry_run": True}, "--dry-run runs nothing"),
        ({"data": "mnist"}, "--data-dir"),
        ({"data": "digits", "out": Path("file/out")}, "cannot make the folder file/out"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(arguments: dict[str, Any], message: str, folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(StabdeqError, match=message):
        reproduce("table1", **arguments)
    assert not list(folder.rglob("*.safetensors"))


def test_names_and_seeds_are_taken_once() -> None:
    assert parse_seeds("2, 0,2") == (2, 0)
    assert [system.name for system in select(STUDIES["table1"], "mnist,mnist", "lyadeq, deq").systems] == [
        "lyadeq",
        "deq",
    ]
    with pytest.raises(ConfigError, match="Valid: cifar10"):
        select(STUDIES["table3"], "mnist", None)


# When a job is done.


def test_a_training_is_done_at_its_last_epoch() -> None:
    job = training(epochs=3)
    assert not job.is_done()
    write_checkpoint(job, epoch=2)
    assert not job.is_done()
    write_checkpoint(job)
    assert job.is_done()


@pytest.mark.parametrize(
    ("recipe", "what"),
    [
        ({"kind": "lyadeq"}, "kind = lyadeq, not deq"),
        ({"seed": 1}, "seed = 1, not 0"),
        ({"epochs": 2}, "epochs = 2, not 1"),
        ({"data": {"name": "mnist"}}, "data.name = mnist, not digits"),
        ({"data": {"name": "digits", "robust": True}}, "data.robust = True, not False"),
        ({"objective": {"name": "trades"}}, "objective.name = trades, not cross-entropy"),
    ],
)
def test_a_model_of_other_settings_is_refused_and_kept(recipe: dict[str, Any], what: str) -> None:
    job = training()
    write_checkpoint(job, **recipe)
    before = job.checkpoint.read_bytes()
    with pytest.raises(ConfigError, match=re.escape(what)):
        reproduce("table1", data="digits", kinds="deq", seeds="0", epochs=1, out=Path("out"))
    assert job.checkpoint.read_bytes() == before


def test_a_system_s_own_settings_are_asked_of_its_checkpoint() -> None:
    _, (job, *_) = jobs_of("table1", kinds="ibp-mondeq")
    write_checkpoint(job)
    assert job.is_done()
    write_checkpoint(job, objective={})
    assert job.is_done()  # write_checkpoint filled it in
    plain_job = replace(job, system=replace(job.system, settings={}))
    with pytest.raises(ConfigError, match=r"objective\.name = ibp"):
        plain_job.is_done()


def test_an_attack_is_done_where_its_file_says_the_same() -> None:
    job = Attack(training=training(), attack="pgd", eps=8, limit=100)
    write_attack(job, 0.5)
    assert job.read() is None  # of no checkpoint
    write_checkpoint(job.training)
    write_attack(job, 0.5)
    assert job.is_done()
    for changes in (
        {"n": 99},
        {"eps": 0.03},
        {"steps": 11},
        {"attack": "ifgsm"},
        {"norm": "l2"},
        {"seed": 1},
        {"data": "mnist"},
        {"schema": 2},
        {"clamp_normalised": True},
    ):
        write_attack(job, 0.5, **changes)
        assert not job.is_done(), changes
    for text in ("[]", "{", ""):
        job.result.write_text(text)
        assert not job.is_done()


def test_a_result_older_than_its_checkpoint_is_not_that_models() -> None:
    job = Attack(training=training(), attack="pgd", eps=8, limit=None)
    assert job.count == 360
    write_checkpoint(job.training)
    write_attack(job, 0.5)
    later = job.result.stat().st_mtime + 10
    os.utime(job.training.checkpoint, (later, later))
    assert not job.is_done()
