"""Addresses at which no cluster answers."""

import socket

import pytest

from modelpress.export.errors import InputError
from modelpress.toolkit.sweeps.plan import Resources

pytest.importorskip("ray", reason="needs the extra sweep: Optuna and Ray")

from modelpress.toolkit.sweeps.cluster import connected


@pytest.fixture
def silent_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_nobody_answers(silent_port):
    with (
        pytest.raises(InputError, match="nobody answers within 10 s"),
        connected(f"ray://127.0.0.1:{silent_port}", Resources()),
    ):
        pass


@pytest.mark.parametrize("address", ["head", "ray://head", "ray://head:port"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(InputError, match="expected HOST:PORT"), connected(address, Resources()):
        pass


def test_a_trial_larger_than_this_machine_is_refused():
    with pytest.raises(InputError, match="resources.cpus is 4096"), connected(None, Resources(cpus=4096)):
        pass
