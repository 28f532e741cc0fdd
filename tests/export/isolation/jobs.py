"""Jobs that the process of `foreign_work` is tried with."""

import os
import signal
import time
from pathlib import Path

import numpy as np

from modelpress.export.errors import InputError


def doubled(facts, arrays):
    return {"pid": os.getpid(), **facts}, [2 * array for array in arrays]


def refused(facts, arrays):
    raise InputError("not this one")


def broken(facts, arrays):
    raise KeyError("no error of ours")


def endless(facts, arrays):
    while True:
        time.sleep(0.01)


def deaf(facts, arrays):
    """Holds the interpreter, as native code does, and tells where it is first."""
    Path(facts["tell"]).write_text(str(os.getpid()))
    sum(iter(int, 1))


def crashing(facts, arrays):
    os.kill(os.getpid(), signal.SIGSEGV)


def greedy(facts, arrays):
    return {}, [np.ones(facts["bytes"], np.uint8)[:1].copy()]


def talkative(facts, arrays):
    print("a library says something", flush=True)
    return {}, []
