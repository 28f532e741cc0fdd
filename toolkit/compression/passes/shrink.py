"""Pass: whole channels that were removed leave the network, so that what follows is faster."""

from modelpress.toolkit.compression.pruning.shrinking import narrowed
from modelpress.toolkit.compression.state import NetworkState
from modelpress.toolkit.compression.work import Work


def shrink(state: NetworkState, work: Work) -> NetworkState:
    """Take the removed channels out; where that cannot be done they stay masked."""
    found = narrowed(state)
    work.progress.note(found.words)
    if found.stays:
        work.device.place(found.state.network)
    return found.state
