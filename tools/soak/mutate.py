"""Damaged files, through the functions that read them: each returns, or raises what it promises."""

import random
import signal
import time
from pathlib import Path
from typing import Any

from tools.soak.kinds import READERS, REFUSALS, originals

SECONDS = 10  # that a reader may take


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
        content = damaged(whole[kind], rng)
        path.write_bytes(content)
        counts[kind]["tries"] += 1
        signal.alarm(SECONDS)  # a hang is a fault, too
        try:
            read(path)
        except REFUSALS:
            counts[kind]["refused"] += 1
        except Exception as error:
            kept = folder / f"fault{number}{suffix}"
            kept.write_bytes(content)
            faults.append({"kind": kind, "file": kept.name, "error": f"{type(error).__name__}: {error}"[:300]})
        finally:
            signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    return {"tries": tries, "seed": seed, "kinds": counts, "faults": faults, "seconds": round(time.monotonic() - start)}


def _too_slow(*_: object) -> None:
    raise TimeoutError(f"a reader took over {SECONDS} seconds")
