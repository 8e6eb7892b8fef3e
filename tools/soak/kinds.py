"""The kinds of files that are read from strangers: a whole one of each, and the function that reads it."""

import hashlib
import io
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import stabdeq
from analysis.report.reading import read_report
from analysis.reproduce.jobs import Attack, System, Training
from analysis.reproduce.plan import Study
from analysis.reproduce.table import make_rows
from analysis.shards.attacks import attack_part, joined_attack
from analysis.shards.part import Part, read_part, write_part
from analysis.shards.work import Work
from analysis.user_function.onnx_files import load_onnx
from analysis.user_function.onnx_files.messages import (
    Dimension,
    GraphMessage,
    ModelMessage,
    NodeMessage,
    OperatorSet,
    Shape,
    TensorType,
    Type,
    ValueInfo,
    encoded,
)
from analysis.user_function.onnx_files.tensors import DOUBLE, message_of
from stabdeq.checker.door import check as check_proof
from stabdeq.checker.reading import Failure, Unreadable
from stabdeq.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stabdeq.config import ArchitectureConfig, DataConfig
from stabdeq.config.kinds import model_config
from stabdeq.data.folder import read_images
from stabdeq.errors import ConfigError, StabdeqError
from stabdeq.model import StabilisedDEQ
from stabdeq.shard import Shard
from train.metrics import lines_up_to, metrics_line
from train.recipe import load_recipe

ATTACKED = 4  # images of the attack's result

# What each reader promises to raise for what it refuses.
REFUSALS = (StabdeqError, Failure, Unreadable)


def _run_onnx(path: Path) -> Tensor:
    return load_onnx(path)(torch.zeros(2, 2, dtype=torch.float64))


def _job(folder: Path) -> Attack:
    """Return the job of reproducing a table whose result is in ``folder``."""
    system = System(name="deq", kind="deq")
    training = Training(data="digits", system=system, seed=0, epochs=1, out=folder, data_dir=None)
    return Attack(training=training, attack="pgd", eps=2, limit=ATTACKED)


def _read_result(path: Path) -> object:
    """Read ``path`` as the result of the job in its folder, and make the table's row of it, as ``reproduce`` does."""
    job = _job(path.parent)
    job.result.parent.mkdir(parents=True, exist_ok=True)
    job.training.checkpoint.touch()
    path.replace(job.result)
    if job.read() is None:
        raise ConfigError("the job would be run again")
    study = Study(title="", data=("digits",), systems=(job.training.system,), radii={"pgd": (2,)})
    return [cell.text() for row in make_rows(study, [job]) for cell in row.cells.values()]


def _join_forged(path: Path) -> object:
    """Join the part in ``path``, alone, whose SHA-256 was made anew of what is there: so the rest of it is read, too."""
    try:
        plain = json.loads(path.read_bytes())
        text = json.dumps(plain["part"], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        path.write_text(json.dumps(plain | {"sha256": hashlib.sha256(text.encode()).hexdigest()}))
    except (ValueError, KeyError, TypeError, RecursionError):
        pass  # it is read as it is
    return joined_attack([read_part(path)]).to_json()


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "checkpoints": (".safetensors", load_checkpoint),
    "reports": (".json", read_report),
    "metrics": (".jsonl", lambda path: lines_up_to(path, 10**6)),
    "recipes": (".toml", lambda path: load_recipe(str(path))),
    "images": (".png", lambda path: read_images([path])),
    "proofs": (".json", lambda path: check_proof(path.read_bytes())),
    "ONNX files": (".onnx", _run_onnx),
    "results of attacks": (".json", _read_result),
    "parts of shards": (".part.json", _join_forged),
}


def originals(folder: Path) -> dict[str, bytes]:
    """Return a whole file of each kind in ``READERS``, made in ``folder`` by the functions that write them."""
    folder.mkdir(parents=True)
    shape = {"image_shape": (1, 8, 8), "classes": 10, "mean": (0.4,), "std": (0.3,)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = StabilisedDEQ(model_config("deq", ArchitectureConfig(state_dim=4), **shape)).eval()
    checkpoint = folder / "checkpoint.safetensors"
    names = tuple("0123456789")
    save_checkpoint(checkpoint, Checkpoint(model=model, data=DataConfig(), class_names=names, seed=0, epoch=0))
    metrics = [metrics_line({"epoch": epoch, "loss": 1 / epoch, "val_accuracy": 0.5}) for epoch in range(1, 9)]
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), (10, 200, 30)).save(picture, "png")
    attacked = stabdeq.attack(checkpoint, name="pgd", eps="2/255", samples=ATTACKED)
    whole = Shard(1, 1)
    part: Part = attack_part(Work("attack", str(checkpoint), {}), whole, attacked)
    return {
        "checkpoints": checkpoint.read_bytes(),
        "reports": stabdeq.audit(checkpoint, samples=2).to_json().encode(),
        "metrics": "".join(f"{line}\n" for line in metrics).encode(),
        "recipes": files("train").joinpath("recipes", "digits.toml").read_bytes(),
        "images": picture.getvalue(),
        "proofs": _proof(folder / "proof.json"),
        "ONNX files": _onnx(),
        "results of attacks": attacked.to_json().encode(),
        "parts of shards": write_part(folder, part).read_bytes(),
    }


def _proof(path: Path) -> bytes:
    """Return a proof of x^2 + y^2 along -x, -y, in as many boxes as the claims need."""
    claims = ["zero", "positive", "decay"]
    stabdeq.check(
        lambda z: z.square().sum(1), lambda z: -z, dim=2, alpha=1.0, claims=claims, samples=64, starts=1, proof=path
    )
    return path.read_bytes()


def _onnx() -> bytes:
    """Return tanh(x W + b) c of two numbers, with constants of float64."""
    constants = {"W": torch.eye(2), "b": torch.tensor([0.5, -1.0]), "c": torch.tensor([[1.0], [2.0]])}
    lines = [("MatMul", "x W", "h"), ("Add", "h b", "a"), ("Tanh", "a", "t"), ("MatMul", "t c", "y")]
    nodes = [NodeMessage(given.split(), [made], made, operation) for operation, given, made in lines]
    known = [message_of(value.double(), name) for name, value in constants.items()]
    of_type = {
        name: Type(TensorType(DOUBLE, Shape([Dimension(1), Dimension(size)]))) for name, size in (("x", 2), ("y", 1))
    }
    graph = GraphMessage(nodes, "g", known, [ValueInfo("x", of_type["x"])], [ValueInfo("y", of_type["y"])])
    return encoded(ModelMessage(ir_version=8, graph=graph, opset_import=[OperatorSet(version=17)]))
