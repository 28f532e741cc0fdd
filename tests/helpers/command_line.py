"""The command line, in this process."""

import sys

# Rounds of latency are cut short.
QUICK = ["--set", "bench.batch=[1]", "--set", "bench.threads=[1]", "--set", "bench.rounds=1"]
QUICK += ["--set", "onnx=[float]"]


def modelpress(monkeypatch, *arguments):
    """Run a command; returns its exit code."""
    from modelpress.toolkit.commands import cli

    monkeypatch.setattr("sys.argv", ["modelpress", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
            return 1
        return stop.code or 0
    return 0


def one_line(err):
    """An error as users should see it."""
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    return err
