"""Files of torch.save in both formats, and the refusal of one."""

from pathlib import Path
from typing import Any

import torch

FORMATS = {"old": False, "zip": True}


def save(content: Any, path: Path, form: str = "old") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path, _use_new_zipfile_serialization=FORMATS[form])
    return path
