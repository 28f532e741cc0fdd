"""Mutants of `.press` files by the thousand, read by the product and by the reference decoder.

    python -m tests.attack --mutants 250000 --summary benchmarks/results/attack.json

Every mutant depends on the seed and its number alone. A stopped run is continued by the same command: what was found
so far is in the summary, which is written now and then.
"""

import argparse
import json
import platform
import random
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from rich.progress import Progress

from modelpress.export.files.atomic import write_atomically
from tests.attack.mutators import made
from tests.fuzz import MAX_DECODED_BYTES, MEMORY_EVERY, compiled, not_compiled
from tests.reference.agreement import judged

WAYS = {"compiled": compiled, "plain": not_compiled}
SAVE_EVERY = 1000


def attack(seed, k):
    """(name of the mutator, what came of mutant `k`, what is wrong about it or None)."""
    name, data = made(random.Random(f"{seed}:{k}"))
    outcome, wrong = judged(data, max_decoded_bytes=MAX_DECODED_BYTES, measure_memory=k % MEMORY_EVERY == 0)
    return name, outcome, wrong, data


class Tally:
    """What came of the mutants of one way so far; JSON in and out."""

    def __init__(self, facts=None):
        facts = facts or {}
        self.done, self.seconds = facts.get("mutants", 0), facts.get("processor_seconds", 0.0)
        self.wrong = facts.get("read_differently", [])
        self.outcomes = {name: Counter(found) for name, found in facts.get("by_mutator", {}).items()}

    def add(self, k, name, outcome, wrong):
        self.done = k + 1
        self.outcomes.setdefault(name, Counter())[outcome] += 1
        if wrong:
            self.wrong.append({"mutant": k, "mutator": name, "what": wrong})

    def facts(self):
        total = sum(self.outcomes.values(), Counter())
        return {
            "mutants": self.done,
            "processor_seconds": round(self.seconds, 1),
            "outcomes": dict(sorted(total.items())),
            "by_mutator": {
                name: dict(sorted(found.items())) for name, found in sorted(self.outcomes.items())
            },
            "read_differently": self.wrong,
        }


def summary_of(seed, tallies):
    versions = {"python": platform.python_version(), "numpy": np.__version__, "onnx": onnx.__version__}
    return {
        "command": "python -m tests.attack",
        "seed": seed,
        "memory_measured_every": MEMORY_EVERY,
        "versions": versions,
        "ways": {way: tally.facts() for way, tally in tallies.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=250_000, help="of each way")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--way", choices=WAYS, action="append", help="default: both")
    parser.add_argument("--summary", type=Path, help="JSON file of counts, which a later call continues")
    parser.add_argument("--keep", type=Path, help="folder for mutants that are read differently")
    options = parser.parse_args()

    tallies = {way: Tally() for way in options.way or WAYS}
    if options.summary and options.summary.exists():
        before = json.loads(options.summary.read_text())
        if before["seed"] != options.seed:
            parser.error(f"{options.summary} is of seed {before['seed']}")
        tallies |= {way: Tally(facts) for way, facts in before["ways"].items()}

    with Progress() as progress:
        for way in options.way or WAYS:
            run(way, tallies, options, progress)
    print(json.dumps({way: tally.facts()["outcomes"] for way, tally in tallies.items()}))
    raise SystemExit(any(tally.wrong for tally in tallies.values()))


def run(way, tallies, options, progress):
    """The mutants of one way that are still to do."""
    tally = tallies[way]
    task = progress.add_task(way, total=options.mutants, completed=tally.done)
    with WAYS[way]():
        while tally.done < options.mutants:
            began = time.process_time()
            for k in range(tally.done, min(tally.done + SAVE_EVERY, options.mutants)):
                name, outcome, wrong, data = attack(options.seed, k)
                tally.add(k, name, outcome, wrong)
                if wrong:
                    progress.console.print(f"{way} {k} ({name}): {wrong}", markup=False, highlight=False)
                    keep(options.keep, f"{options.seed}-{k}.press", data)
            tally.seconds += time.process_time() - began
            progress.update(task, completed=tally.done)
            if options.summary:
                text = json.dumps(summary_of(options.seed, tallies), indent=2) + "\n"
                write_atomically(options.summary, text.encode())


def keep(folder, name, data):
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
