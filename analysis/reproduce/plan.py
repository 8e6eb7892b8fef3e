"""Which jobs each table and figure of the paper is made of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from analysis.reproduce import paper
from analysis.reproduce.jobs import Attack, System, Training
from stabdeq.errors import ConfigError, closest

# The recipe values that say "trained on the robust data set" (Ilyas et al. 2019).
ROBUST_DATA: Mapping[str, str | bool] = {"data.robust": True}

EPOCHS: Mapping[str, int] = {**paper.EPOCHS, "digits": 30}
PAPER_ATTACKS = ("ifgsm", "pgd")
HONEST = "honest"
TABLE_1 = ("deq", "deq-orth", "ibp-mondeq", "lyadeq-noorth", "lyadeq", "lyadeq-anchored", "lyadeq-certified")
# What a row of table 1 sets beside its kind.
SETTINGS: Mapping[str, Mapping[str, str | float]] = {
    "ibp-mondeq": {"objective.name": "ibp"},
    "lyadeq-certified": {"model.backbone": "lipschitz-cnn", "margin.radius": 0.5},
}
# Of colour images, whose classes lie closer together, half a pixel leaves little accuracy: the radius that the literature certifies.
COLOUR_MARGIN = 36 / 255
NETWORKS = ("resnet56", "vgg16", "wrn-28-10")


@dataclass(frozen=True, kw_only=True)
class Study:
    """One table or figure: its usual data sets and all that may be asked for, its rows, and the radii of each attack.

    Radii are in 255ths of a pixel.
    """

    title: str
    data: tuple[str, ...]
    other_data: tuple[str, ...] = ()
    systems: tuple[System, ...]
    radii: Mapping[str, tuple[int, ...]]
    seeds: tuple[int, ...] = (0, 1, 2)


def _table_1_system(kind: str) -> System:
    return System(name=kind, kind=kind, settings=dict(SETTINGS.get(kind, {})))


def _adversarial(kind: str, objective: str) -> System:
    settings = {**SETTINGS.get(kind, {}), "objective.name": objective}
    return System(name=f"{kind}-{objective}", kind=kind, settings=settings)


def _at(*radii: int, honest: tuple[int, ...] = ()) -> dict[str, tuple[int, ...]]:
    return dict.fromkeys(PAPER_ATTACKS, radii) | {HONEST: honest or radii}


STUDIES: Mapping[str, Study] = MappingProxyType(
    {
        "table1": Study(
            title="Table 1: accuracy of equilibrium models under attack",
            data=("mnist", "svhn", "cifar10", "cifar100"),
            other_data=("digits",),
            systems=tuple(map(_table_1_system, TABLE_1)),
            radii=_at(*paper.EPS),
        ),
        "table2": Study(
            title="Table 2: LyaDEQ with adversarial training",
            data=("cifar10",),
            other_data=("mnist", "svhn", "cifar100", "digits"),
            systems=(
                _adversarial("lyadeq", "trades"),
                System(name="lyadeq-robust-data", kind="lyadeq", settings=ROBUST_DATA),
                _adversarial("lyadeq", "pgd-at"),
                _adversarial("lyadeq-certified", "trades"),
                _adversarial("lyadeq-certified", "pgd-at"),
            ),
            radii=_at(*paper.EPS),
        ),
        "table3": Study(
            title="Table 3: networks without an equilibrium",
            data=("cifar10",),
            systems=tuple(
                system for kind in NETWORKS for system in (System(name=kind, kind=kind), _adversarial(kind, "trades"))
            ),
            radii=_at(8),
        ),
        "figure3": Study(
            title="Figure 3: states before and after the orthogonal layer",
            data=("cifar10",),
            other_data=("mnist", "svhn", "cifar100", "digits"),
            systems=tuple(map(_table_1_system, ("lyadeq", "lyadeq-anchored", "deq-orth"))),
            radii={},
            seeds=(0,),
        ),
        "figure4": Study(
            title="Figure 4: accuracy against the radius of the attack",
            data=("cifar10",),
            other_data=("mnist", "svhn", "cifar100", "digits"),
            systems=tuple(map(_table_1_system, TABLE_1)),
            radii=_at(*range(2, 21, 2), honest=(2, 4, 6, 8, 12, 16, 20)),
        ),
    }
)


def select(study: Study, data: str | None, kinds: str | None) -> Study:
    """Return ``study`` with the data sets and rows that the comma-separated names ask for; None asks for the usual ones.

    The name of a kind asks for all rows of that kind where it is no row's own.
    Raises ConfigError, with the closest valid name, where a name is unknown.
    """
    rows = {system.name: [system] for system in study.systems}
    for system in study.systems:
        if rows.get(system.kind, [system])[0].name != system.kind:
            rows.setdefault(system.kind, []).append(system)
    names = study.data if data is None else _names("--data", data, (*study.data, *study.other_data))
    wanted = rows if kinds is None else _names("--kinds", kinds, rows)
    chosen = {system.name: system for name in wanted for system in rows[name]}
    return replace(study, data=tuple(names), systems=tuple(chosen.values()))


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return comma-separated seeds, each once; raises ConfigError where one is not a whole number from 0 up.

    >>> parse_seeds("0,2")
    (0, 2)
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and int(word) < 2**63 for word in words):
        raise ConfigError(f"--seeds {text!r}: expected whole numbers from 0 to 2^63 - 1 with commas, such as 0,1,2")
    return tuple(dict.fromkeys(map(int, words)))


def _names(option: str, text: str, valid: Iterable[str]) -> list[str]:
    names = list(dict.fromkeys(word.strip() for word in text.split(",")))
    for name in names:
        if name not in valid:
            raise ConfigError(f"{option} {name!r} is not in this table or figure: {closest(name, valid)}")
    return names


def trainings(
    study: Study,
    *,
    seeds: tuple[int, ...],
    epochs: int | None,
    out: Path,
    data_dir: Path | None,
    as_folder: bool = False,
) -> list[Training]:
    """Return the models of ``study``; ``epochs`` None means the paper's; ``as_folder`` is that of ``Training``."""
    return [
        Training(
            data=data,
            system=_fitting(system, data),
            seed=seed,
            epochs=epochs or EPOCHS[data],
            out=out,
            data_dir=data_dir,
            as_folder=as_folder,
        )
        for data in study.data
        for seed in seeds
        for system in study.systems
    ]


def attacks(study: Study, training: Training, *, limit: int | None, honest_limit: int) -> list[Attack]:
    """Return the attacks of ``study`` on one model, the quick ones first."""
    return [
        Attack(training=training, attack=attack, eps=eps, limit=honest_limit if attack == HONEST else limit)
        for attack, radii in study.radii.items()
        for eps in radii
    ]


def _fitting(system: System, data: str) -> System:
    """Return ``system`` with what colour images need: a backbone that has interval bounds, a margin that fits between the classes."""
    if data in ("mnist", "digits"):
        return system
    settings = dict(system.settings)
    if settings.get("objective.name") == "ibp":
        settings["model.backbone"] = "cnn"
    if "margin.radius" in settings:
        settings["margin.radius"] = COLOUR_MARGIN
    return replace(system, settings=settings)
