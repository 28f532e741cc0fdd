"""Kill every writing command in the midst of its writing, many times: `python -m tests.kills`.

The commands pack, onnx, unpack, report, bench and bundle write over an old output and where there is none. Each is
run in a process that dies at one step of its writing, drawn from a seed: before a rename, half-way through a write,
after an fsync (see `tests.helpers.dying`). Then every output must be the old one or the new one, whole; and after the
next run of the same output nothing else may lie beside it. What bench and bundle measure and report draws is
replaced by constants: the kills fall into the writing. Linux only.
"""

import argparse
import json
import os
import platform
import random
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path

from rich.progress import Progress

from modelpress.benchmarks import suite
from modelpress.benchmarks.records import read_results
from modelpress.benchmarks.report import page
from modelpress.export.errors import InputError
from modelpress.export.files.atomic import write_atomically
from modelpress.export.handoff.bundle import open_bundle
from modelpress.export.handoff.manifest import LatencyClaim
from modelpress.export.onnx_flavours import write_onnx
from modelpress.export.press.writing import write_artifact
from modelpress.toolkit.commands import cli
from modelpress.toolkit.commands.bundle import making
from modelpress.toolkit.model_files import measuring
from tests.helpers.dying import MOMENTS, Steps
from tests.helpers.models import small_model

# imported once for all children
_FASTER = frozenset(
    ["modelpress", "jinja2", "matplotlib", "onnx", "onnxruntime", "pydantic", "rich", "scipy", "typer"]
)
_LATENCY = LatencyClaim(batch=1, threads=1, p50_ms=1, p90_ms=1, samples=1, machine="none: a constant")


@dataclass(frozen=True)
class Setting:
    """A command line and what it writes.

    Attributes:
        arguments: The command and its input.
        output: Name of what `-o` asks for.
        more: Names of what it writes beside that.
        overwrite: Whether there is an old output.
    """

    arguments: tuple[str, ...]
    output: str
    more: tuple[str, ...] = ()
    overwrite: bool = True

    @property
    def name(self):
        return f"{self.arguments[0]} -o {self.output}" + " --overwrite" * self.overwrite

    @property
    def outputs(self):
        return (self.output, *self.more)


def settings(inputs):
    """Every writing command, with and without an old output."""
    press, onnx, results = (str(inputs / name) for name in ("model.press", "model.onnx", "results.json"))
    commands = [
        (("pack", onnx), "new.press", ()),
        (("onnx", press), "new.onnx", ()),
        (("unpack", press), "decoded.onnx", ()),
        (("unpack", press), "decoded.npz", ()),
        (("report", results), "report.html", ()),
        (("report", results), "report.md", ()),
        (("bench", press), "bench.json", ()),
        (("bundle", press, "--no-zip"), "folder", ()),
        (("bundle", press), "handoff", ("handoff.zip",)),
    ]
    return [
        Setting(arguments, output, more, overwrite)
        for arguments, output, more in commands
        for overwrite in (False, True)
    ]


def make_inputs(folder):
    """The files that the commands read."""
    write_artifact(folder / "model.press", small_model())
    write_onnx(folder / "model.onnx", small_model(), flavour="float")
    code, _ = run(["bench", str(folder / "model.press"), "-o", str(folder / "results.json")], Steps(folder))
    assert code == 0, "the command fails when it is not killed"


def run(arguments, steps):
    """The command in a forked process that counts its steps, and dies at one if told to.

    Returns:
        Its exit code, negative for a signal, and how many steps it took of every kind.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os._exit(_command(arguments, steps, writing))
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    status = os.waitpid(child, 0)[1]
    counts, modules = json.loads(text) if text else ({}, [])
    for name in modules:
        import_module(name)  # the next child finds it there
    return os.waitstatus_to_exitcode(status), Counter(counts)


def _command(arguments, steps, answer):
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    measuring.add_latency = lambda *_, **__: []
    measuring._Bench.examine = lambda *_: None
    suite._size = lambda *_: None
    page.render_report = lambda *_: "<p>a page</p>" * 10_000
    making.latency_claim = lambda *_, **__: _LATENCY
    known = set(sys.modules)
    sys.argv = ["modelpress", *arguments]
    steps.install()
    try:
        cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    loaded = [name for name in sys.modules if name not in known and name.partition(".")[0] in _FASTER]
    with os.fdopen(answer, "w") as file:
        file.write(json.dumps([steps.counts, loaded]))
    return code


@dataclass
class Tally:
    """What became of the kills of one setting.

    Attributes:
        steps: Kills by kind of step and moment.
        found: Outputs found afterwards: old, new, or none where none was before.
        left: Kills that left a temporary, to be swept by the next run.
        mixed: Kills after which the folder of a bundle was new and its zip was old, both whole.
    """

    kills: int = 0
    steps: Counter = field(default_factory=Counter)
    found: Counter = field(default_factory=Counter)
    left: int = 0
    mixed: int = 0


class Place:
    """A folder in which one setting is killed again and again."""

    def __init__(self, setting, folder):
        self.setting, self.folder, self.tally = setting, folder, Tally()
        self.old, self.counts = folder.with_name(f"{folder.name}.old"), Counter()
        self._make_old()
        self._reset()
        self.counts = self._run(self.setting.overwrite)
        self.new = self._contents()

    def _make_old(self):
        self.old.mkdir()
        if self.setting.arguments[0] != "bundle":
            (self.old / self.setting.output).write_bytes(b"the old output")
            return
        arguments = [*self.setting.arguments, "--license", "old", "-o", str(self.old / self.setting.output)]
        assert run(arguments, Steps(self.old))[0] == 0, arguments

    def _reset(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.setting.overwrite:
            shutil.copytree(self.old, self.folder)
        else:
            self.folder.mkdir()

    def _arguments(self, overwrite):
        output = str(self.folder / self.setting.output)
        return [*self.setting.arguments, "-o", output, *["--overwrite"] * overwrite]

    def _run(self, overwrite):
        code, counts = run(self._arguments(overwrite), Steps(self.folder))
        if code:
            raise WrongError(f"exit code {code} when not killed")
        return counts

    def _contents(self):
        return {name: _content(self.folder / name) for name in self.setting.outputs}

    def kill(self, rng):
        """Kill once, look, and run again; what is wrong is raised as `WrongError`."""
        self._reset()
        before = self._contents()
        kind = rng.choice(sorted(self.counts))
        number, moment = rng.randint(1, self.counts[kind]), rng.choice(MOMENTS)
        code, _ = run(self._arguments(self.setting.overwrite), Steps(self.folder, kind, number, moment))
        where = f"killed {moment} {kind} {number}"
        if code != -9:
            raise WrongError(f"{where}: it was not, exit code {code}")

        self.tally.kills += 1
        self.tally.steps[f"{moment} {kind}"] += 1
        self.tally.left += bool(self._strangers())
        states = [self._state(name, before, where) for name in self.setting.outputs]
        self.tally.found.update(states)
        self.tally.mixed += len(set(states)) > 1

        self._run(overwrite=True)
        if self._strangers():
            raise WrongError(f"{where}: the next run leaves {', '.join(self._strangers())}")
        for name in self.setting.outputs:
            if self._state(name, {}, where) != "new":
                raise WrongError(f"{where}: {name} is not new after the next run")

    def _strangers(self):
        return sorted({path.name for path in self.folder.iterdir()} - set(self.setting.outputs))

    def _state(self, name, before, where):
        """Old, new or none; whole in any case."""
        path = self.folder / name
        content = _content(path)
        if content == before.get(name, b""):
            return "none" if content is None else "old"
        if content is None:
            raise WrongError(f"{where}: {name} is gone")
        if self.setting.arguments[0] == "bench":
            whole = _is_whole(lambda: read_results(path))
        elif self.setting.arguments[0] == "bundle":
            whole = _is_whole(lambda: _read_bundle(path))  # dates differ
        else:
            whole = content == self.new[name]
        if not whole:
            raise WrongError(f"{where}: {name} is torn")
        return "new"


class WrongError(Exception):
    """What a kill must not lead to."""


def _content(path):
    """The bytes of a file, those of every file of a folder by name, or None."""
    if path.is_dir():
        return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    return path.read_bytes() if path.exists() else None


def _is_whole(read):
    try:
        read()
    except InputError:
        return False
    return True


def _read_bundle(path):
    with open_bundle(path) as bundle:
        for name in bundle.manifest.files:
            bundle.read(name)


def kill_all(n_kills, seed, folder, *, only="", on_kill=lambda: None):
    """Kill so often, the settings in turn; returns the tallies by setting, and what is wrong.

    Args:
        n_kills: In all.
        seed: Of the draw.
        folder: Empty, for everything.
        only: Begin of the settings' names.
        on_kill: Called after each.
    """
    rng, wrong = random.Random(seed), []
    inputs = folder / "inputs"
    inputs.mkdir()
    make_inputs(inputs)
    chosen = [setting for setting in settings(inputs) if setting.name.startswith(only)]
    places = [Place(setting, folder / f"{k}") for k, setting in enumerate(chosen)]
    for k in range(n_kills):
        place = places[k % len(places)]
        try:
            place.kill(rng)
        except WrongError as error:
            wrong.append(f"{place.setting.name}: {error}")
        on_kill()
    return {place.setting.name: place.tally for place in places}, wrong


def summary(tallies, wrong, seed):
    """For people and programs."""
    total = Counter()
    for tally in tallies.values():
        total.update(tally.steps)
    return {
        "seed": seed,
        "kills": sum(tally.kills for tally in tallies.values()),
        "wrong": wrong,
        "steps": dict(sorted(total.items())),
        "commands": {
            name: {
                "kills": tally.kills,
                **{state: tally.found[state] for state in ("old", "new", "none")},
                "left_a_temporary": tally.left,
                "folder_and_zip_differ": tally.mixed,
            }
            for name, tally in tallies.items()
        },
        "system": f"{platform.system()}, Python {platform.python_version()}",
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--only", default="", help="settings whose names begin so, as in 'bundle'")
    parser.add_argument("--json", type=Path, help="write the counts here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Progress(disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("kills", total=options.kills)
        on_kill = partial(progress.advance, task)
        found = kill_all(options.kills, options.seed, Path(folder), only=options.only, on_kill=on_kill)
    record = summary(*found, options.seed)
    if options.json:
        write_atomically(options.json, (json.dumps(record, indent=2) + "\n").encode())
    print(*record["wrong"], sep="\n", end="\n" * bool(record["wrong"]))
    print(f"{record['kills']:,} kills of seed {options.seed}: {len(record['wrong'])} wrong")
    raise SystemExit(bool(record["wrong"]))


if __name__ == "__main__":
    main()
