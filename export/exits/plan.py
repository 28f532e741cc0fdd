"""What a model says of its early exits: outputs, rule and thresholds, in its metadata."""

_PREFIX = "exit."  # of an output's name, before that of the block


def exit_output(block: str) -> str:
    """Name of the output that the head after a block gives.

    Example:
        >>> exit_output("body_op.2")
        'exit.body_op.2'
    """
    return _PREFIX + block
