"""Rows of a table by their kind: table 2 has no row that is called as its kind is."""

from itertools import pairwise
from pathlib import Path

import pytest

from analysis.reproduce.plan import STUDIES, select, trainings
from stabdeq.errors import ConfigError
from train.recipe import load_recipe


def rows(what: str, kinds: str | None) -> list[str]:
    return [system.name for system in select(STUDIES[what], None, kinds).systems]


def test_a_kind_is_all_its_rows() -> None:
    certified = ["lyadeq-certified-trades", "lyadeq-certified-pgd-at"]
    assert rows("table2", "lyadeq-certified") == certified
    assert rows("table2", "lyadeq-certified-pgd-at,lyadeq-certified") == certified[::-1]
    assert rows("table2", "lyadeq") == ["lyadeq-trades", "lyadeq-robust-data", "lyadeq-pgd-at"]
    assert rows("table2", None) == [system.name for system in STUDIES["table2"].systems]


def test_a_row_goes_before_its_kind() -> None:
    assert rows("table1", "lyadeq") == ["lyadeq"]
    assert rows("table3", "vgg16") == ["vgg16"]
    with pytest.raises(ConfigError, match="did you mean 'lyadeq-certified'"):
        rows("table2", "lyadeq-certifie")


@pytest.mark.parametrize("data", ["digits", "mnist", "cifar10"])
def test_the_certified_kind_trains_with_a_margin_and_an_attack_in_one(data: str) -> None:
    study = select(STUDIES["table2"], data, "lyadeq-certified")
    jobs = trainings(study, seeds=(0,), epochs=1, out=Path("out"), data_dir=None)
    for job, objective in zip(jobs, ("trades", "pgd-at"), strict=True):
        words = job.command()
        settings = [value for word, value in pairwise(words) if word == "--set"]
        recipe = load_recipe(data, {"kind": "lyadeq-certified"}, settings)
        assert (recipe.objective.name, recipe.model.backbone) == (objective, "lipschitz-cnn")
        assert recipe.margin.radius > 0
