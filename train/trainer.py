"""The training loop: epochs, metrics, atomic checkpoints, exact resume, and a clear stop on NaN."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stabdeq.augmentation import augment
from stabdeq.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stabdeq.data import DataSet, Split, batches, resident, to_unit
from stabdeq.errors import ConfigError, TrainingDivergedError
from stabdeq.kinds import model_config
from stabdeq.model import StabilisedDEQ
from train.objective import training_loss
from train.progress import Progress
from train.recipe import Recipe, plain_recipe

CHECKPOINT_NAME = "checkpoint.safetensors"
BEST_NAME = "best.safetensors"
METRICS_NAME = "metrics.jsonl"
EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class Scores:
    """Accuracy, mean cell evaluations, and fraction without an equilibrium, over a whole split."""

    accuracy: float
    unconverged: float
    evaluations: float


def train(
    recipe: Recipe, data: DataSet, out: Path, *, resume: bool = False, progress: Progress | None = None
) -> Scores:
    """Train ``recipe`` on ``data``, write checkpoints and metrics into ``out``, and return the final test scores.

    ``out`` gets ``checkpoint.safetensors`` after every epoch (the result, and what ``resume`` goes on from),
    ``best.safetensors`` (best validation accuracy) and ``metrics.jsonl``. The test split is used once, at the end. On the CPU a
    resumed run gives the same losses to the last bit. Raises ConfigError where ``out`` holds a run and ``resume`` is not
    given, or holds one with other settings; TrainingDivergedError, keeping the last checkpoint, where the loss is not finite.
    """
    progress = progress or Progress(quiet=True)
    run = _Run.resume(recipe, data, out) if resume and (out / CHECKPOINT_NAME).is_file() else _Run.start(recipe, data, out)
    progress.begin(recipe.epochs, run.epoch, run.device)
    while run.epoch < recipe.epochs:
        started = time.perf_counter()
        trained = run.train_epoch(progress)
        validation = run.score(run.data.validation)
        run.finish_epoch(trained, validation, time.perf_counter() - started)
        progress.end_epoch(run.epoch, trained, validation.accuracy if validation else None)
    test = run.score(run.data.test)
    assert test is not None
    run.write_metrics({"epoch": run.epoch, "test_accuracy": test.accuracy, "test_unconverged": test.unconverged})
    progress.finish()
    return test


class _Run:
    """A training run at the end of some epoch."""

    def __init__(self, recipe: Recipe, data: DataSet, out: Path, model: StabilisedDEQ) -> None:
        self.recipe, self.out = recipe, out
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(self.device)
        self.optimiser = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
        self.data = replace(
            data,
            train=resident(data.train, self.device),
            validation=resident(data.validation, self.device),
            test=resident(data.test, self.device),
        )
        self.epoch = 0
        self.best_validation: float | None = None

    @classmethod
    def start(cls, recipe: Recipe, data: DataSet, out: Path) -> "_Run":
        """Begin a run in ``out``, which must hold none."""
        config = model_config(
            recipe.kind,
            recipe.model,
            image_shape=data.image_shape,
            classes=len(data.classes),
            mean=data.mean,
            std=data.std,
        )
        for name in (CHECKPOINT_NAME, BEST_NAME, METRICS_NAME):
            if (out / name).exists():
                raise ConfigError(f"{out} already holds {name}: add --resume to go on with that run, or choose another --out")
        # The weights alone are drawn from the global generator, under the run's seed.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            model = StabilisedDEQ(config)
        out.mkdir(parents=True, exist_ok=True)
        run = cls(recipe, data, out, model)
        run.save(CHECKPOINT_NAME)
        return run

    @classmethod
    def resume(cls, recipe: Recipe, data: DataSet, out: Path) -> "_Run":
        """Go on from the checkpoint in ``out``, whose recipe must be this one."""
        checkpoint = load_checkpoint(out / CHECKPOINT_NAME)
        _require_same_recipe(plain_recipe(recipe), checkpoint.recipe, out)
        run = cls(recipe, data, out, checkpoint.model)
        run.epoch = checkpoint.epoch
        run.best_validation = checkpoint.best_validation
        run.load_optimiser(checkpoint.optimiser)
        run.drop_metrics_after(checkpoint.epoch)
        return run

    def train_epoch(self, progress: Progress) -> dict[str, float]:
        """Run one epoch and return its mean metrics, weighted by batch size."""
        self.model.train()
        generator = self.epoch_generator()
        steps = _steps_per_epoch(self.data.train, self.recipe.batch_size)
        totals: dict[str, Tensor] = {}
        for step, (images, labels) in enumerate(batches(self.data.train, self.recipe.batch_size, generator=generator)):
            self.set_learning_rate((self.epoch + step / steps) / self.recipe.epochs)
            measured = self.step(images.to(self.device), labels.to(self.device), generator)
            for name, value in measured.items():
                totals[name] = totals.get(name, torch.zeros_like(value)) + value * len(labels)
            # Waiting for the device at every step would leave it idle.
            if step % 10 == 9 or step == steps - 1:
                self.require_finite(totals["loss"], step)
                seen = step / steps
                progress.update(self.epoch + seen, {name: float(value) for name, value in totals.items()})
        self.require_finite(totals["loss"], steps)
        return {name: float(value) / len(self.data.train) for name, value in totals.items()}

    def step(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Take one optimiser step on uint8 ``images`` (B, C, H, W) and return the batch's metrics as scalars."""
        if self.recipe.data.augment:
            images = augment(images, generator)
        prediction = self.model.predict(to_unit(images))
        loss = training_loss(self.model, prediction, labels, self.recipe.decay, generator)
        self.optimiser.zero_grad(set_to_none=True)
        loss.total.backward()
        self.optimiser.step()
        solution = prediction.solution
        return {
            "loss": loss.total.detach(),
            "cross_entropy": loss.cross_entropy,
            "decay_loss": loss.decay,
            "decay_violations": loss.violations,
            "accuracy": _mean(prediction.logits.argmax(1) == labels),
            "unconverged": _mean(~solution.converged),
            "adjoint_unconverged": torch.stack([_mean(~adjoint.converged) for adjoint in solution.adjoint]).mean(),
            "evaluations": solution.evaluations.float().mean(),
        }

    def require_finite(self, total: Tensor, step: int) -> None:
        """Stop the run, leaving the last checkpoint as it is, where the loss is NaN or infinite."""
        if not math.isfinite(float(total)):
            raise TrainingDivergedError(
                f"the loss became NaN or infinite in epoch {self.epoch + 1} by step {step + 1}: {self.out / CHECKPOINT_NAME} "
                f"keeps epoch {self.epoch}; lower learning_rate (now {self.recipe.learning_rate:g}) or model.solver.mixing"
            )

    def finish_epoch(self, trained: dict[str, float], validation: Scores | None, seconds: float) -> None:
        """Write the epoch's metrics and checkpoints."""
        for name, parameter in self.model.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise TrainingDivergedError(
                    f"{name} became NaN or infinite in epoch {self.epoch + 1}: {self.out / CHECKPOINT_NAME} keeps "
                    f"epoch {self.epoch}; lower learning_rate (now {self.recipe.learning_rate:g})"
                )
        self.epoch += 1
        metrics: dict[str, Any] = {"epoch": self.epoch, **trained, "seconds": seconds}
        if validation:
            metrics |= {"validation_accuracy": validation.accuracy, "validation_unconverged": validation.unconverged}
        self.write_metrics(metrics)
        best = validation is None or self.best_validation is None or validation.accuracy >= self.best_validation
        if best and validation:
            self.best_validation = validation.accuracy
        if best:
            self.save(BEST_NAME, with_optimiser=False)
        self.save(CHECKPOINT_NAME)

    @torch.no_grad()
    def score(self, split: Split) -> Scores | None:
        """Return the scores on ``split`` in evaluation mode; None where it is empty."""
        if not len(split):
            return None
        self.model.eval()
        correct = converged = evaluations = 0.0
        for images, labels in batches(split, EVALUATION_BATCH):
            prediction = self.model.predict(to_unit(images.to(self.device)))
            correct += float((prediction.logits.argmax(1) == labels.to(self.device)).sum())
            converged += float(prediction.solution.converged.sum())
            evaluations += float(prediction.solution.evaluations.sum())
        count = len(split)
        return Scores(correct / count, 1 - converged / count, evaluations / count)

    def epoch_generator(self) -> torch.Generator:
        """Return the source of this epoch's randomness (order, augmentation, decay states), from seed and epoch alone.

        It needs no state between epochs, so a resumed run draws the same numbers.
        """
        return torch.Generator().manual_seed((self.recipe.seed * 1_000_003 + self.epoch) % 2**63)

    def set_learning_rate(self, fraction: float) -> None:
        """Set the cosine-annealed rate at ``fraction`` of the run."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.learning_rate * (1 + math.cos(math.pi * fraction)) / 2

    def save(self, name: str, *, with_optimiser: bool = True) -> None:
        """Write the run as it stands to the checkpoint ``name``."""
        checkpoint = Checkpoint(
            model=self.model,
            data=self.recipe.data,
            class_names=self.data.classes,
            seed=self.recipe.seed,
            epoch=self.epoch,
            recipe=plain_recipe(self.recipe),
            best_validation=self.best_validation,
            optimiser=self.optimiser_tensors() if with_optimiser else {},
        )
        save_checkpoint(self.out / name, checkpoint)

    def optimiser_tensors(self) -> dict[str, Tensor]:
        """Return Adam's state as named tensors."""
        return {
            f"{name}/{key}": value
            for name, parameter in self.model.named_parameters()
            for key, value in self.optimiser.state[parameter].items()
        }

    def load_optimiser(self, tensors: dict[str, Tensor]) -> None:
        """Put Adam's state back."""
        parameters = dict(self.model.named_parameters())
        for name, value in tensors.items():
            parameter_name, _, key = name.rpartition("/")
            # Adam keeps its step counter on the CPU.
            device = "cpu" if key == "step" else self.device
            self.optimiser.state[parameters[parameter_name]][key] = value.to(device)

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Append one line of JSON."""
        with (self.out / METRICS_NAME).open("a") as file:
            file.write(json.dumps(metrics) + "\n")

    def drop_metrics_after(self, epoch: int) -> None:
        """Remove the lines of epochs that the checkpoint does not hold, and of an earlier final test."""
        path = self.out / METRICS_NAME
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if _is_epoch_up_to(line, epoch)]
        temporary = path.with_name(path.name + ".partial")
        temporary.write_text("".join(kept))
        temporary.replace(path)


def _is_epoch_up_to(line: str, epoch: int) -> bool:
    try:
        metrics = json.loads(line)
    except json.JSONDecodeError:
        return False  # a line cut off by a crash; its epoch is not in the checkpoint either
    return metrics["epoch"] <= epoch and "test_accuracy" not in metrics


def _require_same_recipe(wanted: dict[str, Any], found: dict[str, Any], out: Path) -> None:
    wanted = json.loads(json.dumps(wanted))
    for key in sorted(wanted.keys() | found.keys()):
        if wanted.get(key) != found.get(key):
            raise ConfigError(
                f"{out} was trained with {key} = {found.get(key)}, not {wanted.get(key)}: "
                "resume with the same settings, or choose another --out"
            )


def _steps_per_epoch(split: Split, batch_size: int) -> int:
    return max(1, math.ceil(len(split) / batch_size))


def _mean(outcomes: Tensor) -> Tensor:
    return outcomes.float().mean()
