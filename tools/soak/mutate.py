"""Damaged files, through the functions that read them: each returns, or raises what it promises."""

import io
import random
import signal
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from analysis.audit import audit
from analysis.report.reading import read_report
from stabdeq.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stabdeq.config import ArchitectureConfig, DataConfig
from stabdeq.config.kinds import model_config
from stabdeq.data.folder import read_images
from stabdeq.errors import StabdeqError
from stabdeq.model import StabilisedDEQ
from train.metrics import lines_up_to, metrics_line
from train.recipe import load_recipe

SECONDS = 10  # that a reader may take

READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "checkpoints": (".safetensors", load_checkpoint),
    "reports": (".json", read_report),
    "metrics": (".jsonl", lambda path: lines_up_to(path, 10**6)),
    "recipes": (".toml", lambda path: load_recipe(str(path))),
    "images": (".png", lambda path: read_images([path])),
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
    return {
        "checkpoints": checkpoint.read_bytes(),
        "reports": audit(checkpoint, samples=2).to_json().encode(),
        "metrics": "".join(f"{line}\n" for line in metrics).encode(),
        "recipes": files("train").joinpath("recipes", "digits.toml").read_bytes(),
        "images": picture.getvalue(),
    }


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return ``content`` with one to four places changed, cut out, doubled or cut off."""
    result = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        # Half of the places lie at the start, where headers are.
        at = rng.randrange(min(len(result), 2000) if rng.random() < 0.5 else len(result)) if result else 0
        length = rng.choice((1, 1, 2, 8, 64))
        match rng.randrange(5):
            case 0:
                result[at : at + length] = rng.randbytes(length)
            case 1:
                del result[at : at + length]
            case 2:
                result[at:at] = result[at : at + length]
            case 3:
                result[at : at + 1] = rng.choice(
                    (b"{", b"]", b'"', b"-", b"9" * 20, b"NaN", b"1e999", b"\0", b"\xff", b"null")
                )
            case 4:
                del result[at:]
    return bytes(result)


def soak(folder: Path, tries: int, seed: int) -> dict[str, Any]:
    """Read ``tries`` damaged files of all kinds; what a reader does not promise is a fault, and its file is kept in ``folder``."""
    rng, start = random.Random(seed), time.monotonic()
    whole, kinds, faults = originals(folder / "whole"), list(READERS), []
    counts = {kind: {"tries": 0, "refused": 0} for kind in kinds}
    before = signal.signal(signal.SIGALRM, _too_slow)
    for number in range(tries):
        kind = kinds[number % len(kinds)]
        suffix, read = READERS[kind]
        path = folder / f"damaged{suffix}"
        path.write_bytes(damaged(whole[kind], rng))
        counts[kind]["tries"] += 1
        signal.alarm(SECONDS)  # a hang is a fault, too
        try:
            read(path)
        except StabdeqError:
            counts[kind]["refused"] += 1
        except Exception as error:
            kept = path.replace(folder / f"fault{number}{suffix}")
            faults.append({"kind": kind, "file": kept.name, "error": f"{type(error).__name__}: {error}"[:300]})
        finally:
            signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    return {"tries": tries, "seed": seed, "kinds": counts, "faults": faults, "seconds": round(time.monotonic() - start)}


def _too_slow(*_: object) -> None:
    raise TimeoutError(f"a reader took over {SECONDS} seconds")
