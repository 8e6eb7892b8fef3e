"""A model card: Markdown under YAML, of a report and the checkpoint that it is about."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.findings import Verdict
from analysis.findings.values import mapping, number, printable, sequence
from analysis.report.front_matter import yaml_lines
from analysis.report.made_by import command_line, draws_images
from analysis.report.markdown import badge, escaped, table, why
from analysis.report.next_steps import can_replay, is_repeatable
from analysis.report.plain_words import in_plain_words
from analysis.report.quantities import quantity
from analysis.report.report import Report
from analysis.report.training_log import read_training
from stabdeq.checkpoint import Checkpoint
from stabdeq.config.kinds import KINDS
from stabdeq.errors import ReportError
from stabdeq.metrics_lines import METRICS_NAME
from stabdeq.percent import percent_in_digits

REPORT, RECORD = "the report", f"{METRICS_NAME} beside the checkpoint"  # who says what an accuracy is
MAX_NAME = 200  # characters of what a foreign report calls an accuracy
LIMITS = (
    *(f"{word}: {word.meaning}." for word in (Verdict.PROVED, Verdict.SUPPORTED)),
    "The verdicts are about stability, and where radii are certified about small changes of an image. They say nothing about images of "
    "another origin, about fairness, or about whether the labels are right.",
    "Another file, also one that was trained on from this one, needs an audit of its own.",
)


def model_card(report: Report, checkpoint: Checkpoint, *, report_path: Path, report_sha256: str) -> str:
    """Return the card of ``checkpoint`` with the verdicts of ``report``, which is about that file and may be foreign.

    What the model is comes from the checkpoint; texts of both are escaped: none ends a table's cell or the YAML, and none becomes
    HTML or a link. ``report_path`` is what the commands name, ``report_sha256`` the hash of its content.
    """
    accuracies = _accuracies(report, checkpoint)
    hashes = {"checkpoint_sha256": checkpoint.sha256, "report_sha256": report_sha256}
    facts = {**hashes, "images_sha256": report.sample.get("sha256")}
    told = {key: value for key, value in report.environment.items() if printable(key).strip() not in facts}
    front = {
        "library_name": "stabdeq",
        "pipeline_tag": "image-classification",
        "tags": ["deep-equilibrium-model", "lyapunov-function", checkpoint.kind],
        "datasets": [checkpoint.data.name],
        "model-index": [
            {
                "name": _title(checkpoint),
                "results": _results(report, checkpoint, accuracies),
            }
        ],
        "stabdeq": {
            "verdicts": {str(word): count for word, count in report.counts.items()},
            "refuted": report.exit_code == 1,
            "partial": bool(report.partial),
            **hashes,
        },
    }
    parts = {
        "": _summary(report, checkpoint),
        "Claims": _claims(report),
        "Accuracy": table(
            ("Images", "Accuracy", "From"),
            [(escaped(of), percent_in_digits(share, 4), escaped(source)) for of, share, source in accuracies],
        )
        if accuracies
        else ["The report and the training's record hold none."],
        "Model": _settings(_model(checkpoint)),
        "Data and training": _settings(_training(checkpoint)),
        "Limits": [f"- {line}" for line in (*LIMITS, *_left_out(report))],
        "Replay": _commands(report, checkpoint, report_path),
        "Hashes": _settings({**facts, **told}),
    }
    lines = ["---", *yaml_lines(front), "---", "", f"# {escaped(_title(checkpoint))}"]
    for heading, said in parts.items():
        lines += ["", *([f"## {heading}", ""] if heading else []), *said]
    return "\n".join(lines) + "\n"


def _title(checkpoint: Checkpoint) -> str:
    return f"{checkpoint.kind} on {checkpoint.data.name}"


def _summary(report: Report, checkpoint: Checkpoint) -> list[str]:
    kind = KINDS.get(checkpoint.kind)
    images = " x ".join(map(str, checkpoint.model.config.image_shape))
    count = sum(parameter.numel() for parameter in checkpoint.model.parameters())
    what = f"Kind {checkpoint.kind}{f': {kind.summary}' if kind else ''}. It classifies images of {images} (channels, height, width) "
    said = [f"**{report.sentence}**", *([f"**{escaped(report.partial)}**"] if report.partial else [])]
    return [
        "\n\n".join([*said, escaped(f"{what}into {len(checkpoint.class_names)} classes, and has {count} weights.")])
    ]


def _claims(report: Report) -> list[str]:
    if not report.findings:
        return ["The report judges none."]
    rows = [
        (badge(item.verdict), escaped(item.claim), escaped(in_plain_words(item)), escaped(item.check))
        for item in report.worst_first
    ]
    reasons = why(report)
    return [*table(("Verdict", "Claim", "In plain words", "Check"), rows), *(["", *reasons] if reasons else [])]


def _accuracies(report: Report, checkpoint: Checkpoint) -> list[tuple[str, float, str]]:
    """Return what is known of the accuracy: of which images, the share that is right, and who says so."""
    found: list[tuple[str, Any, str]] = []
    log = _training_log(checkpoint)
    if log.get("epoch") == checkpoint.epoch:
        found.append(("test images", log.get("test_accuracy"), RECORD))
    places = sequence(report.sample.get("images"))
    right = report.sample.get("right")
    if places and type(right) is int:
        images = (
            "test images that were audited" if draws_images(report.command) else "images that were given to the audit"
        )
        found.append((f"{len(places)} {images}", number(right) / len(places), REPORT))
    found += [
        (printable(item.text)[:MAX_NAME], item.value, REPORT)
        for item in report.measurements
        if "accuracy" in printable(item.name)
    ]
    found.append(("validation images, best epoch so far", checkpoint.best_validation, "the checkpoint"))
    return [(of, number(share), source) for of, share, source in found if 0 <= number(share) <= 1]


def _results(report: Report, checkpoint: Checkpoint, accuracies: list[tuple[str, float, str]]) -> list[dict[str, Any]]:
    """Return what a model index lists: accuracies of these weights on the data set's own images, and no others."""
    metrics = [
        {"type": "accuracy", "name": of, "value": share}
        for of, share, source in accuracies
        if source == RECORD or (source == REPORT and draws_images(report.command))
    ]
    data = {"name": checkpoint.data.name, "type": checkpoint.data.name}
    return [{"task": {"type": "image-classification"}, "dataset": data, "metrics": metrics}] if metrics else []


def _training_log(checkpoint: Checkpoint) -> dict[str, float]:
    """Return the line of the test in the record of the training; empty where there is none."""
    try:
        return {} if checkpoint.path is None else read_training(checkpoint.path.parent).test
    except ReportError:
        return {}


def _model(checkpoint: Checkpoint) -> dict[str, Any]:
    config = checkpoint.model.config
    solver = config.solver
    return {
        "backbone": config.backbone,
        "cell": config.cell,
        "numbers in a state": config.state_dim,
        "stability": config.stability,
        "head": config.head,
        "solver": f"{solver.name}, tolerance {solver.stopping_tolerance:g}, at most {solver.max_evaluations} evaluations",
        "decay rate alpha": config.lyapunov.alpha if config.stability != "none" else None,
    }


def _training(checkpoint: Checkpoint) -> dict[str, Any]:
    data, recipe = checkpoint.data, checkpoint.recipe
    return {
        "data set": data.name,
        "classes": ", ".join(map(printable, checkpoint.class_names[:20]))
        + (", …" if len(checkpoint.class_names) > 20 else ""),
        "robust training images": data.robust or None,
        "scaled to": f"{data.resize} x {data.resize} pixels" if data.resize else None,
        "augmented": data.augment,
        "held out for validation": f"{percent_in_digits(data.validation_fraction, 4)} of the training images",
        "epochs": f"{checkpoint.epoch} of {printable(recipe.get('epochs', 'an unknown number'))}",
        "seed": checkpoint.seed,
        "objective": mapping(recipe.get("objective")).get("name"),
        "learning rate": recipe.get("learning_rate"),
        "batch size": recipe.get("batch_size"),
    }


def _left_out(report: Report) -> list[str]:
    return [f"Not judged: {escaped(item.check)}, {escaped(item.reason)}." for item in report.skipped] + list(
        map(escaped, report.gaps)
    )


def _commands(report: Report, checkpoint: Checkpoint, report_path: Path) -> list[str]:
    file, page = (shlex.quote(printable(path)) for path in (checkpoint.path, report_path))
    elsewhere = checkpoint.data.name != "digits" or checkpoint.data.robust
    data = " --data-dir DIR" if elsewhere else ""
    lines = [f"stabdeq verify {file} {page}{data}"] if is_repeatable(report) else []
    if any(can_replay(report, finding) for finding in report.findings):
        lines.append(f"stabdeq replay {page} --checkpoint {file}{data}")
    made = command_line(report.command)
    lines = [*([f"{made}  # made the report"] if made else []), *lines]
    said = "The verdicts are those of the report."
    if not is_repeatable(report):
        said += " No command repeats it: its images or its model were given in another way."
    return [f"{said} These commands judge the same file again:", "", "```sh", *lines, "```"] if lines else [said]


def _settings(values: Mapping[Any, Any]) -> list[str]:
    rows = [(escaped(key), escaped(_plain(value))) for key, value in values.items() if value is not None]
    return table(("What", "Value"), rows)


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return quantity(value) if isinstance(value, int | float) else value
