"""``stabdeq reproduce``: its jobs, what runs them, and the tables and figures that come of their files."""

import io
import json
import os
import re
import signal
import sys
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from test_command_line import save_untrained

import stabdeq
from analysis.commands.reproduce import reproduce
from analysis.reproduce import plan, run
from analysis.reproduce.figure3 import draw_states, gather_states
from analysis.reproduce.figure4 import draw_radii
from analysis.reproduce.jobs import Attack, System, Training
from analysis.reproduce.paper import printed
from analysis.reproduce.plan import STUDIES, attacks, parse_seeds, select, trainings
from analysis.reproduce.run import JobsFailedError, LocalEngine, RayEngine, run_jobs
from analysis.reproduce.table import Cell, make_rows, markdown, notes, plain, print_table
from stabdeq.attacks import paper_steps
from stabdeq.checkpoint import load_checkpoint, save_checkpoint
from stabdeq.errors import ConfigError, DataError, StabdeqError

DEQ = System(name="deq", kind="deq")
PNG = b"\x89PNG"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder; what runs in it finds this repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(stabdeq.__file__).parents[1]))
    return tmp_path


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
    save_untrained(job.checkpoint, "lyadeq" if job.system.kind == "lyadeq" else "deq")  # a small one for the networks
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
    epoch = job.epochs if epoch is None else epoch
    save_checkpoint(job.checkpoint, replace(load_checkpoint(job.checkpoint), epoch=epoch, recipe=recipe))


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
                assert (printed(data, system.name, "ifgsm", 8) is None) == (system.name == "lyadeq-anchored")


def test_table_1_is_its_models_and_twelve_attacks_on_each() -> None:
    study = STUDIES["table1"]
    models = trainings(study, seeds=(0, 1, 2), epochs=None, out=Path("out"), data_dir=None)
    assert len(models) == len({model.name for model in models}) == 4 * 6 * 3
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": "cifar"}, "--data 'cifar' .* did you mean 'cifar10'"),
        ({"kinds": "deq,lyadec"}, "--kinds 'lyadec' .* did you mean 'lyadeq'"),
        ({"seeds": "0,-1"}, "--seeds '0,-1': expected whole numbers"),
        ({"seeds": ""}, "--seeds ''"),
        ({"limit": 0}, "--limit 0"),
        ({"epochs": -1}, "--epochs -1"),
        ({"jobs": 0}, "--jobs 0"),
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


# What runs the jobs.


def test_attacks_follow_their_training_and_one_failure_does_not_stop_the_others() -> None:
    _, jobs = jobs_of("table3", "cifar10", "resnet56,vgg16")
    script = {"cifar10/resnet56-seed0": 1, "cifar10/vgg16-seed0/pgd-8": 137}
    engine, lines = FakeEngine(jobs, script), []
    failures = run_jobs(jobs, engine, lines.append)
    assert engine.order == [
        "cifar10/resnet56-seed0",
        "cifar10/vgg16-seed0",
        *(f"cifar10/vgg16-seed0/{attack}-8" for attack in ("ifgsm", "pgd", "honest")),
    ]
    assert set(failures) == {
        "cifar10/resnet56-seed0",
        *(f"cifar10/resnet56-seed0/{attack}-8" for attack in ("ifgsm", "pgd", "honest")),
        "cifar10/vgg16-seed0/pgd-8",
    }
    assert failures["cifar10/resnet56-seed0"].startswith("exit code 1: stabdeq: it went wrong (see out")
    assert failures["cifar10/resnet56-seed0/pgd-8"] == "its training failed"
    assert "8/8" in lines[-1]
    assert "about 0 s left" in lines[-1]


def test_a_job_that_leaves_nothing_or_an_engine_that_breaks_is_a_failure() -> None:
    _, jobs = jobs_of("table1")
    script = {"digits/deq-seed0/pgd-2": None, "digits/deq-seed0/pgd-4": OSError("the machine is gone")}
    failures = run_jobs(jobs, FakeEngine(jobs, script), lambda line: None)
    assert failures == {
        "digits/deq-seed0/pgd-2": "it ended well, and left another result than asked",
        "digits/deq-seed0/pgd-4": "the machine is gone",
    }


def test_time_left_is_that_of_like_jobs_and_says_where_it_is_more() -> None:
    _, jobs = jobs_of("table1")
    known = {("digits", "pgd"): [50.0, 70.0]}
    pgd = [job for job in jobs if job.action == "pgd"]
    assert run._left(pgd, known, FakeEngine()) == "about 4 min 0 s left"
    assert run._left(jobs, known, FakeEngine()) == "more than 4 min 0 s left"


def test_an_interrupt_stops_the_engine_and_goes_on() -> None:
    _, jobs = jobs_of("table1")
    engine = FakeEngine(jobs, {jobs[3].name: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, engine, lambda line: None)
    assert engine.stopped


def python(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let a local engine run ``code`` in place of stabdeq."""
    monkeypatch.setattr(run, "command_line", lambda arguments: [sys.executable, "-c", code, *arguments])


def test_the_local_engine_keeps_the_output_and_the_exit_code(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    python(monkeypatch, "import os, sys; print(os.environ.get('OMP_NUM_THREADS'), sys.argv[1]); sys.exit(3)")
    for lanes, threads in ((1, "None"), (2, "1")):
        engine = LocalEngine(lanes)
        assert engine.submit(["a b"], folder / "log").result()[0] == 3
        assert (folder / "log").read_text() == f"{threads} a b\n"
        engine.stop()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe")
def test_stopping_the_local_engine_ends_its_process_and_starts_no_more(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    os.mkfifo(folder / "pipe")
    python(monkeypatch, "import signal; open('pipe', 'w').close(); signal.pause()")
    engine = LocalEngine(1)
    running, queued = (engine.submit([], folder / name) for name in ("first", "second"))
    (folder / "pipe").read_bytes()  # waits until the first one runs
    engine.stop()
    assert running.result()[0] == -signal.SIGTERM
    assert queued.cancelled() or queued.result()[0] == 130


def test_without_ray_nothing_is_run_or_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'stabdeq\[ray\]'"):
        call("table1", ray=True)
    assert not list(Path("out").iterdir())
    assert capsys.readouterr().out == ""


def test_ray_gets_command_lines(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    asked: dict[str, Any] = {}

    def remote(**resources: Any) -> Any:
        asked.update(resources)
        return lambda function: SimpleNamespace(
            remote=lambda *a: SimpleNamespace(future=lambda: finished(function(*a)))
        )

    def finished(value: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(value)
        return future

    resources = {"CPU": 8.0, "GPU": 2.0}
    fake = SimpleNamespace(
        init=lambda **_: None, cluster_resources=lambda: resources, remote=remote, shutdown=lambda: asked.clear()
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    python(monkeypatch, "import os, sys; print(os.getcwd(), sys.argv[1:]); sys.exit(4)")
    engine = RayEngine()
    assert (engine.lanes, asked["num_gpus"], asked["num_cpus"]) == (2, 1, 1)
    assert engine.submit(["train"], Path("log")).result()[0] == 4
    assert (folder / "log").read_text() == f"{folder} ['train']\n"
    engine.stop()
    assert not asked


# The table.


def test_cells() -> None:
    assert Cell(values=(90.0, 92.0, 97.0), asked=3).text() == "93.00±3.61"  # sqrt((9 + 1 + 16) / 2)
    assert Cell(values=(90.0, 92.0), asked=3).text() == "91.00±1.41*"
    assert Cell(values=(90.0,)).text() == "90.00"
    assert Cell(values=(), asked=3).text() == "-"


def filled(seeds: tuple[int, ...] = (0, 1)) -> tuple[Any, list[Any]]:
    """Table 1 for DEQ on MNIST: accuracy 0.8 and 0.6 by seed; the second seed lacks PGD at 4 / 255, both honest at 8 / 255."""
    study, jobs = jobs_of("table1", "mnist", seeds=seeds)
    results = [job for job in jobs if isinstance(job, Attack)]
    for job in jobs:
        if isinstance(job, Training):
            write_checkpoint(job)
    for job in results:
        seed = job.training.seed
        if (job.attack, job.eps, seed) == ("pgd", 4, 1) or (job.attack, job.eps) == ("honest", 8):
            continue
        write_attack(job, 0.8 - 0.2 * seed, warnings=["blind"] if job.eps == 2 and job.attack == "pgd" else [])
    return study, results


def test_rows_hold_mean_and_spread_beside_the_printed_figures() -> None:
    study, results = filled()
    rows = {row.label: row for row in make_rows(study, results)}
    assert list(rows) == ["I-FGSM paper", "I-FGSM n=100", "PGD paper", "PGD n=100", "honest n=50"]
    texts = {label: [cell.text() for cell in row.cells.values()] for label, row in rows.items()}
    assert texts["PGD paper"] == ["96.99", "45.98", "45.80", "45.47", "45.23"]
    assert texts["I-FGSM n=100"] == ["90.00±0.00", *["70.00±14.14"] * 4]
    assert texts["PGD n=100"] == ["90.00±0.00", "70.00±14.14", "80.00*", "70.00±14.14", "70.00±14.14"]
    assert texts["honest n=50"] == ["90.00±0.00", *["35.00±7.07"] * 3, "-"]
    found = notes(list(rows.values()))
    assert found[0] == "Ours on mnist were trained for 1 epochs, the paper's for 10."
    assert found[1].startswith("3 of 24 results are missing")
    assert found[2] == "2 warnings of the attacks; the first: mnist/deq-seed0/pgd-2: blind."


def test_images_without_an_equilibrium_are_a_warning() -> None:
    study, results = filled((0,))
    write_attack(results[0], 0.8, unconverged={"clean": 0.0, "eps_0": 0.0, "robust": 0.25})
    rows = make_rows(study, results)
    assert "25.00% of the attacked images" in rows[1].warnings[0]


def test_the_terminal_table_fits_80_columns_and_needs_no_unicode() -> None:
    study, results = filled()
    rows = make_rows(study, results)
    wide = {0: Cell(values=(100.0, 0.0), asked=3)}
    rows.append(replace(rows[1], system="lyadeq-anchored", cells=rows[1].cells | wide))
    raw = io.BytesIO()
    ascii_only = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    for file in (unicode := io.StringIO(), ascii_only):
        print_table(study, rows, (0, 1), Console(file=file, width=80, force_terminal=False))
    for text in (unicode.getvalue(), raw.getvalue().decode()):
        lines = text.splitlines()
        assert max(map(len, lines)) <= 80
        assert not any(line != line.rstrip() for line in lines)
    assert re.search(r"^mnist +clean +2/255 +4/255 +6/255 +8/255$", unicode.getvalue(), re.MULTILINE)
    assert re.search(r"^ honest n=50 +90.00±0.00 .* -$", unicode.getvalue(), re.MULTILINE)


def test_markdown_and_json_hold_every_row() -> None:
    study, results = filled()
    rows = make_rows(study, results)
    lines = [line for line in markdown(study, rows, (0, 1)).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(rows)
    assert {line.count("|") for line in lines} == {8}
    content = json.loads(json.dumps(plain(study, rows, (0, 1)), allow_nan=False))
    honest = content["rows"][-1]
    assert (honest["n"], honest["source"], content["rows"][0]["source"]) == (50, "ours", "arXiv 2304.12707")
    assert honest["cells"]["8"] == {"mean": None, "spread": None, "values": []}
    assert honest["cells"]["2"]["values"] == pytest.approx([40, 30])


# The figures.


def test_figure_3_on_40_digits(folder: Path) -> None:
    path = save_untrained(folder / "model.safetensors", "lyadeq")
    states = gather_states(path, None, limit=40, seed=1)
    assert states.before.shape == states.after.shape == (80, 8)
    assert 0 < states.distortion < 1e-5
    assert not torch.allclose(states.before[:40], states.before[40:])
    drawn = [draw_states(states, "lyadeq on digits", seed=1) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert drawn[0][".png"].startswith(PNG)
    svg = drawn[0][".svg"].decode()
    assert "after, PGD, 8/255:" in svg
    assert "before, clean:" in svg


def test_figure_3_needs_an_orthogonal_layer(folder: Path) -> None:
    with pytest.raises(ConfigError, match="has no orthogonal layer"):
        gather_states(save_untrained(folder / "model.safetensors", "deq"), None, limit=4, seed=0)


def test_figure_4_draws_gaps_as_gaps() -> None:
    study, results = filled()
    files = draw_radii(make_rows(study, results), "mnist", 2)
    assert files[".png"].startswith(PNG)
    assert "honest, n=50" in files[".svg"].decode()


# The command.


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine that the command gets; it is told its jobs by the test."""
    fake = FakeEngine()
    monkeypatch.setattr(run, "LocalEngine", lambda lanes: fake)
    return fake


CALL: dict[str, Any] = {"data": "digits", "kinds": "deq", "seeds": "0", "epochs": 1, "limit": 100, "honest_limit": 50}


def call(what: Any, **changes: Any) -> None:
    reproduce(what, **CALL | {"out": Path("out")} | changes)


def test_a_second_run_starts_nothing_and_a_change_starts_the_attacks_alone(
    engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    _, jobs = jobs_of("table1")
    engine.jobs = {job.log: job for job in jobs}
    call("table1")
    assert engine.order == [job.name for job in jobs]
    first = capsys.readouterr()
    assert "0 of 13 jobs are done; to run: 1 trainings, 12 attacks" in first.err
    tables = Path("out/table1.md").read_bytes(), Path("out/table1.json").read_bytes()
    call("table1")
    assert len(engine.order) == len(jobs)
    second = capsys.readouterr()
    assert (second.out, second.err) == (first.out, "")
    assert (Path("out/table1.md").read_bytes(), Path("out/table1.json").read_bytes()) == tables
    changed = [replace(job, limit=99) for job in jobs if job.action in ("ifgsm", "pgd")]
    engine.jobs = {job.log: job for job in changed}
    call("table1", limit=99)
    assert engine.order[len(jobs) :] == [job.name for job in changed]
    assert "8 results of other settings, or older than their checkpoint, are replaced" in capsys.readouterr().err


def test_attacks_of_a_model_that_is_not_trained_to_the_end_do_not_count(engine: FakeEngine) -> None:
    _, jobs = jobs_of("table1")
    engine.jobs = {job.log: job for job in jobs}
    write_checkpoint(jobs[0], epoch=0)
    write_attack(jobs[1], 0.1)
    call("table1")
    assert engine.order == [job.name for job in jobs]


def test_a_failed_job_is_told_after_the_table(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    _, jobs = jobs_of("table1")
    engine.jobs = {job.log: job for job in jobs}
    engine.script = {"digits/deq-seed0/pgd-4": 1}
    with pytest.raises(
        JobsFailedError, match=r"1 jobs failed .* digits/deq-seed0/pgd-4: exit code 1: stabdeq: it went"
    ) as end:
        call("table1")
    assert end.value.exit_code == 1
    assert "1 of 12 results are missing" in " ".join(capsys.readouterr().out.split())


def test_an_interrupted_run_shows_what_is_there(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    _, jobs = jobs_of("table1")
    engine.jobs = {job.log: job for job in jobs}
    engine.script = {jobs[2].name: KeyboardInterrupt()}
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        call("table1")
    assert "of 12 results are missing" in " ".join(capsys.readouterr().out.split())
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_dry_run_prints_what_is_missing_and_writes_nothing(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    call("table1", data="mnist", kinds="deq,lyadeq", seeds="0,1", dry_run=True)
    lines = capsys.readouterr().out.splitlines()
    assert not list(folder.iterdir())
    assert sum(line.startswith("python -m stabdeq train mnist ") for line in lines) == 4
    assert sum(line.startswith("python -m stabdeq attack ") for line in lines) == 48
    assert lines.index("# trainings") < lines.index("# attacks: each needs its training")
    write_checkpoint(training(data="mnist"))
    call("table1", data="mnist", kinds="deq,lyadeq", seeds="0,1", dry_run=True)
    assert "deq-seed0 " not in "".join(
        line for line in capsys.readouterr().out.splitlines() if " train " in line
    ).replace("lyadeq-seed0", "")


def test_the_data_are_asked_for_before_any_job(engine: FakeEngine) -> None:
    with pytest.raises(DataError, match="no mnist data"):
        call("table1", data="mnist", data_dir=Path("nowhere"))
    assert not engine.order


def test_figures_are_written_beside_their_models_and_in_out(engine: FakeEngine) -> None:
    _, jobs = jobs_of("figure4")
    _, others = jobs_of("figure3", kinds="lyadeq")
    engine.jobs = {job.log: job for job in (*jobs, *others)}
    call("figure4")
    assert {path.name for path in Path("out").glob("figure4*")} == {
        "figure4-digits.png",
        "figure4-digits.svg",
        "figure4.md",
        "figure4.json",
    }
    call("figure3", kinds="lyadeq", limit=12)
    assert {path.name for path in Path("out/digits/lyadeq-seed0").glob("figure3*")} == {"figure3.png", "figure3.svg"}


def test_real_jobs_train_and_attack_digits(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    study = replace(STUDIES["table1"], radii={"pgd": (8,)})
    monkeypatch.setattr(plan, "STUDIES", {"table1": study})
    call("table1", limit=None, jobs=2)
    assert re.search(r"PGD n=360 +\d+\.\d\d +\d+\.\d\d", capsys.readouterr().out)
    monkeypatch.setattr(run, "LocalEngine", lambda lanes: pytest.fail("everything is done"))
    call("table1", limit=None)
