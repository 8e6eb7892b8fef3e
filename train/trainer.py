"""The training loop: epochs, metrics, atomic checkpoints, exact resume, and a clear stop on NaN."""

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stabdeq import processes
from stabdeq.bounds.interval import require_interval_bounds
from stabdeq.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stabdeq.config import ModelConfig, parse_config
from stabdeq.config.kinds import model_config
from stabdeq.data import DataSet, Split, augment, batches, on_device, resident, to_unit
from stabdeq.errors import CheckpointError, ConfigError, TrainingDivergedError
from stabdeq.files import append_line, replace_file
from stabdeq.model import StabilisedDEQ
from stabdeq.shared_batch import shared, size
from stabdeq.solvers.implicit import InexactGradientWarning, is_lost
from train.loss import training_loss
from train.metrics import lines_up_to, metrics_line
from train.objectives.ibp import IntervalTraining
from train.precision import backbone_in, precision_of
from train.progress import Progress
from train.proved_decay import limit_curvature
from train.recipe import Recipe, plain_recipe
from train.run_folder import BEST_NAME, CHECKPOINT_NAME, METRICS_NAME, RunFolder
from train.same_recipe import require_same_recipe
from train.shared_norms import shared_norms
from train.tensorboard import event_files
from train.together import require_shareable, sum_gradients

EVALUATION_BATCH = 1000
ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Scores:
    """Accuracy, mean cell evaluations, and fraction without an equilibrium, over a whole split."""

    accuracy: float
    unconverged: float
    evaluations: float


def train(
    recipe: Recipe,
    data: DataSet,
    out: Path,
    *,
    resume: bool = False,
    tensorboard: bool = False,
    progress: Progress | None = None,
) -> Scores:
    """Train ``recipe`` on ``data``, write checkpoints and metrics into ``out``, and return the final test scores.

    ``out`` gets ``checkpoint.safetensors`` after every epoch (the result, and what ``resume`` goes on from),
    ``best.safetensors`` (best validation accuracy) and ``metrics.jsonl``, and with ``tensorboard`` the same numbers as event files in
    a folder of that name. The test split is used once, at the end. On the CPU a resumed run gives the same losses to the last bit.
    Raises ConfigError where ``out`` holds a run and ``resume`` is not given, or holds one with other settings, or where another
    training is at work in it; MetricsError where ``resume`` finds metrics that training did not write; TrainingDivergedError, keeping
    the last checkpoint, where the loss is not finite; FileError, keeping it too, where a file cannot be written.

    Where torch.distributed has a group of several processes, each calls this alike and takes its rows of every batch, and the first
    one writes: the losses are those of one process but for rounding. Raises LostProcessError where another of them ends or does not
    answer.
    """
    progress = progress or Progress(quiet=True)
    if not processes.is_first():
        return _finish(_Run.follow(recipe, data, out), progress)
    with RunFolder(out) as folder:
        resumes = resume and folder.has_checkpoint()
        run = (_Run.resume if resumes else _Run.start)(recipe, data, folder)
        run.agree()
        if not tensorboard:
            return _finish(run, progress)
        with event_files(out) as run.tell:
            return _finish(run, progress)


def _finish(run: "_Run", progress: Progress) -> Scores:
    """Train to the last epoch, and score the test images."""
    recipe = run.recipe
    progress.begin(recipe.epochs, run.epoch, run.device, recipe.precision)
    try:
        while run.epoch < recipe.epochs:
            started = time.perf_counter()
            trained = run.train_epoch(progress)
            validation = run.score(run.data.validation)
            run.finish_epoch(trained, validation, time.perf_counter() - started)
            progress.end_epoch(run.epoch, trained, validation.accuracy if validation else None)
        test = run.score(run.data.test)
    finally:
        progress.finish()  # a bar left running would keep the terminal's cursor hidden
    assert test is not None
    run.write_metrics({"epoch": run.epoch, "test_accuracy": test.accuracy, "test_unconverged": test.unconverged})
    return test


class _Run:
    """A training run at the end of some epoch."""

    def __init__(self, recipe: Recipe, data: DataSet, out: Path, model: StabilisedDEQ) -> None:
        self.out = out
        self.objective = recipe.objective
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.recipe = replace(recipe, precision=precision_of(recipe.precision, model.backbone, self.device))
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
        self.tell: Callable[[dict[str, Any]], None] | None = None  # what else gets each line of the metrics

    @classmethod
    def start(cls, recipe: Recipe, data: DataSet, folder: RunFolder) -> "_Run":
        """Begin a run in ``folder``, which must hold none."""
        config = _model_config(recipe, data)
        folder.require_no_run()
        # The weights alone are drawn from the global generator, under the run's seed.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            model = StabilisedDEQ(config).eval()
        # What the solver or the objective refuses is refused before anything is written.
        with torch.no_grad():
            model.predict(to_unit(data.train.images[:1]))
        if isinstance(recipe.objective, IntervalTraining):
            require_interval_bounds(model)
        require_shareable(recipe, model, len(data.train))
        limit_curvature(model)
        folder.make()
        run = cls(recipe, data, folder.path, model)
        run.save(CHECKPOINT_NAME)
        return run

    @classmethod
    def resume(cls, recipe: Recipe, data: DataSet, folder: RunFolder) -> "_Run":
        """Go on from the checkpoint in ``folder``, whose recipe and data must be these."""
        out = folder.path
        # Trusted: nothing of it is run before its settings were found to be the recipe's, which the user gave.
        checkpoint = load_checkpoint(out / CHECKPOINT_NAME, trusted=True)
        # Settings that are newer than the checkpoint had their defaults then.
        trained = parse_config(Recipe, checkpoint.recipe, f"the recipe in {out / CHECKPOINT_NAME}")
        config = _model_config(recipe, data)
        if recipe.precision == "auto":
            recipe = replace(recipe, precision=trained.precision)  # as it began, on whatever machine that was
        require_same_recipe((recipe, config), (trained, checkpoint.model.config), out)
        if checkpoint.model.config != config or checkpoint.class_names != data.classes:
            raise ConfigError(
                f"{out} was trained on other images or classes: give the same --data-dir, or another --out"
            )
        require_shareable(recipe, checkpoint.model, len(data.train))
        run = cls(recipe, data, out, checkpoint.model)
        run.epoch = checkpoint.epoch
        run.best_validation = checkpoint.best_validation
        run.load_optimiser(checkpoint.optimiser)
        replace_file(out / METRICS_NAME, lines_up_to(out / METRICS_NAME, checkpoint.epoch))
        return run

    @classmethod
    def follow(cls, recipe: Recipe, data: DataSet, out: Path) -> "_Run":
        """Join the run that the first process begins or goes on with."""
        model = StabilisedDEQ(_model_config(recipe, data)).eval()
        require_shareable(recipe, model, len(data.train))
        run = cls(recipe, data, out, model)
        run.agree()
        return run

    def agree(self) -> None:
        """Let all processes stand where the first one does."""
        if processes.count() == 1:
            return
        tensors = (
            {name: value.cpu() for name, value in those.items()}
            for those in (self.model.state_dict(), self.optimiser_tensors())
        )
        told = processes.of_the_first((self.epoch, self.best_validation, self.recipe.precision, *tensors))
        self.epoch, self.best_validation, precision, state, optimiser = told
        self.recipe = replace(self.recipe, precision=precision)
        self.model.load_state_dict(state)
        self.load_optimiser(optimiser)

    def train_epoch(self, progress: Progress) -> dict[str, float]:
        """Run one epoch and return its mean metrics, weighted by batch size."""
        self.model.train()
        generator = self.epoch_generator()
        steps = _steps_per_epoch(self.data.train, self.recipe.batch_size)
        totals: dict[str, Tensor] = {}
        means: dict[str, float] = {}
        count = 0
        for step, (images, labels) in enumerate(batches(self.data.train, self.recipe.batch_size, generator=generator)):
            fraction = (self.epoch + step / steps) / self.recipe.epochs
            self.set_learning_rate(fraction)
            with shared(len(labels)) as own, warnings.catch_warnings():
                warnings.simplefilter("ignore", InexactGradientWarning)  # ``adjoint_unconverged`` counts them
                measured = self.step(*on_device(self.device, images[own], labels[own]), generator, fraction)
            for name, value in measured.items():
                totals[name] = totals.get(name, torch.zeros_like(value)) + value * len(labels[own])
            count += len(labels)
            # Waiting for the device, or for other processes, at every step would leave this one idle.
            if step % 10 == 9 or step == steps - 1:
                sums = processes.summed(torch.stack([value.double() for value in totals.values()]))
                means = dict(zip(totals, (sums / count).tolist(), strict=True))
                self.require_finite(means["loss"], step)
                progress.update(self.epoch + step / steps, means)
        return means

    def step(self, images: Tensor, labels: Tensor, generator: torch.Generator, fraction: float) -> dict[str, Tensor]:
        """Take one optimiser step on uint8 ``images`` (B, C, H, W) and return the batch's metrics as scalars.

        Of a shared batch they are this process's, and the metrics means over them. ``fraction`` of the run is behind. ``accuracy`` is
        that of the images whose cross-entropy is minimised.
        """
        if self.recipe.data.augment:
            images = augment(images, generator)
        backbone = self.model.backbone
        with backbone_in(self.recipe.precision, backbone, self.device), shared_norms(backbone):
            outcome = self.objective(self.model, to_unit(images), labels, generator=generator, fraction=fraction)
        prediction = outcome.prediction
        loss = training_loss(self.model, prediction, labels, self.recipe, generator)
        total = loss.total + outcome.term
        self.optimiser.zero_grad(set_to_none=True)
        (total * (len(labels) / size(len(labels)))).backward()  # of a mean over a shared batch, these images' part
        solution = prediction.solution
        adjoints = [adjoint for each in (prediction, *outcome.beside) for adjoint in each.solution.adjoint]
        # Where an adjoint diverged the gradient is NaN: the step is left out, and counted. One short of its tolerance is taken.
        skipped = sum_gradients(self.model, any(bool(is_lost(adjoint).any()) for adjoint in adjoints))
        if not skipped:
            self.optimiser.step()
            limit_curvature(self.model)
        adjoint = {}
        if adjoints:  # a truncated gradient solves no adjoint equation
            adjoint["adjoint_unconverged"] = _mean(torch.cat([~one.converged for one in adjoints]))
            adjoint["steps_skipped"] = total.new_tensor(float(skipped))
        return {
            "loss": total.detach(),
            "cross_entropy": loss.cross_entropy,
            "decay_loss": loss.decay,
            "decay_violations": loss.violations,
            "accuracy": _mean(prediction.logits.argmax(1) == labels),
            "unconverged": _mean(~solution.converged),
            "evaluations": solution.evaluations.float().mean(),
            **({"jacobian": loss.jacobian} if self.recipe.jacobian.weight > 0 else {}),
            **adjoint,
            **outcome.metrics,
        }

    def require_finite(self, loss: float, step: int) -> None:
        """Stop the run, leaving the last checkpoint as it is, where the mean ``loss`` so far is NaN or infinite."""
        if not math.isfinite(loss):
            raise TrainingDivergedError(
                f"the loss became NaN or infinite in epoch {self.epoch + 1} by step {step + 1}: {self.out / CHECKPOINT_NAME} "
                f"keeps epoch {self.epoch}; lower learning_rate (now {self.recipe.learning_rate:g}) or model.solver.mixing"
            )

    def finish_epoch(self, trained: dict[str, float], validation: Scores | None, seconds: float) -> None:
        """Write the epoch's metrics and checkpoints."""
        # Running statistics and Adam's squares can overflow while the loss and the weights are finite.
        for name, value in (self.model.state_dict() | self.optimiser_tensors()).items():
            if not bool(torch.isfinite(value).all()):
                raise TrainingDivergedError(
                    f"{name} became NaN or infinite in epoch {self.epoch + 1}: {self.out / CHECKPOINT_NAME} keeps "
                    f"epoch {self.epoch}; lower learning_rate (now {self.recipe.learning_rate:g})"
                )
        self.epoch += 1
        rate = self.optimiser.param_groups[0]["lr"]  # of the last step
        metrics: dict[str, Any] = {"epoch": self.epoch, **trained, "learning_rate": rate, "seconds": seconds}
        if validation:
            metrics |= {
                "validation_accuracy": validation.accuracy,
                "validation_unconverged": validation.unconverged,
            }
        self.write_metrics(metrics)
        best = validation is None or self.best_validation is None or validation.accuracy >= self.best_validation
        if best:
            self.best_validation = validation.accuracy if validation else None
            self.save(BEST_NAME, with_optimiser=False)
        self.save(CHECKPOINT_NAME)

    @torch.no_grad()
    def score(self, split: Split) -> Scores | None:
        """Return the scores on ``split`` in evaluation mode, of which each process has a part; None where it is empty."""
        if not len(split):
            return None
        self.model.eval()
        sums = torch.zeros(3, dtype=torch.float64)
        own = processes.rows(len(split))
        for batch in batches(Split(split.images[own], split.labels[own]), EVALUATION_BATCH):
            images, labels = on_device(self.device, *batch)
            prediction = self.model.predict(to_unit(images))
            right, solution = prediction.logits.argmax(1) == labels, prediction.solution
            sums += torch.stack([right.sum(), solution.converged.sum(), solution.evaluations.sum()]).cpu()
        correct, converged, evaluations = (processes.summed(sums) / len(split)).tolist()
        return Scores(correct, 1 - converged, evaluations)

    def epoch_generator(self) -> torch.Generator:
        """Return the source of this epoch's randomness, from seed and epoch alone: a resumed run draws the same numbers."""
        return torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.epoch)

    def set_learning_rate(self, fraction: float) -> None:
        """Set the cosine-annealed rate at ``fraction`` of the run."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.learning_rate * (1 + math.cos(math.pi * fraction)) / 2

    def save(self, name: str, *, with_optimiser: bool = True) -> None:
        """Write the run as it stands to the checkpoint ``name``, in the first process."""
        if not processes.is_first():
            return
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
        """Put Adam's state back; raises CheckpointError where it is not whole."""
        path = self.out / CHECKPOINT_NAME
        if self.epoch and not tensors:
            raise CheckpointError(f"{path} holds a model alone, which cannot be resumed: train into another --out")
        for name, parameter in self.model.named_parameters():
            # Adam keeps its step counter on the CPU.
            state = {
                key: tensors[f"{name}/{key}"].to("cpu" if key == "step" else self.device)
                for key in ADAM_STATE
                if f"{name}/{key}" in tensors
            }
            if len(state) not in (0, len(ADAM_STATE)):  # 0: a parameter that the loss does not reach
                raise CheckpointError(f"{path} lacks some of Adam's state of {name}: train into another --out")
            if state:
                self.optimiser.state[parameter] = state

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Append one line of JSON, in the first process."""
        if not processes.is_first():
            return
        append_line(self.out / METRICS_NAME, metrics_line(metrics))
        if self.tell:
            self.tell(metrics)


def _model_config(recipe: Recipe, data: DataSet) -> ModelConfig:
    return model_config(
        recipe.kind,
        recipe.model,
        image_shape=data.image_shape,
        classes=len(data.classes),
        mean=data.mean,
        std=data.std,
    )


def _steps_per_epoch(split: Split, batch_size: int) -> int:
    steps = math.ceil(len(split) / batch_size)
    return steps - 1 if steps > 1 and len(split) % batch_size == 1 else steps  # the last one joins the batch before


def _mean(outcomes: Tensor) -> Tensor:
    return outcomes.float().mean()
