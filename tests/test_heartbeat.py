"""Long work says what it does, again and again, and stops saying it."""

from __future__ import annotations

import threading
import time

import pytest

from converters.heartbeat import heartbeat


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def test_stages_are_said_at_once_and_again():
    said = []
    with heartbeat(said.append, seconds=0.02) as stage:
        stage("tracing")
        assert said == ["tracing"]
        wait_for(lambda: len(said) >= 3)
        stage("lowering")
        wait_for(lambda: said[-1].startswith("lowering: "))
    count = len(said)
    time.sleep(0.1)
    assert len(said) == count and "tracing: 0 s so far" in said
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}


def test_a_failure_ends_it_too():
    with pytest.raises(RuntimeError, match="lost"), heartbeat(lambda line: None, seconds=0.01) as stage:
        stage("tracing")
        raise RuntimeError("lost")
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}
