"""``python -P -m analysis.reproduce.child PARENT ARGUMENTS``: stabdeq in a process that ends when its parent does, however it ends."""

import ctypes
import os
import signal
import sys

ENDS_WITH_ITS_PARENT = sys.platform == "linux"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with(parent: int) -> None:
    """Have the system kill this process at the end of ``parent``, the process that started it; elsewhere than on Linux, nothing."""
    if not ENDS_WITH_ITS_PARENT:
        return
    system = ctypes.CDLL(None, use_errno=True)
    if system.prctl(PR_SET_PDEATHSIG, signal.SIGKILL):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it ended before
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    from stabdeq.__main__ import main

    main(sys.argv[2:])
