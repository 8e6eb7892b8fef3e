"""``python -m tools.soak [--files N] [--seed N]``: prints what was tried and what failed as JSON; exit code 1 for a fault."""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from .mutate import soak

parser = argparse.ArgumentParser(prog="python -m tools.soak")
parser.add_argument("--files", type=int, default=100_000, help="damaged files")
parser.add_argument("--seed", type=int, default=0)
given = parser.parse_args()
folder = Path(tempfile.mkdtemp(prefix="soak-"))
found = soak(folder, given.files, given.seed)
print(json.dumps(found, indent=1))
if found["faults"]:
    sys.exit(f"faults: their files are kept in {folder}")
