"""Nothing that the tests run reaches beyond this machine; conftest.py watches."""

import socket
from typing import Any

import pytest


def test_what_would_reach_beyond_this_machine_is_refused_and_kept(reached: list[Any]) -> None:
    with pytest.raises(OSError, match="tests have no network"):
        socket.create_connection(("192.0.2.1", 9), timeout=1)  # an address for documentation
    assert [reached.pop()] == [("192.0.2.1", 9)]
    assert not reached
