"""Early exits in rows and sentences, for page and terminal."""

from collections.abc import Iterator

from modelpress.benchmarks.records import ExitsRecord
from modelpress.benchmarks.report.tables import NONE, Row, percent

EXIT_HEADINGS = {
    "after": "exit after",
    "threshold": "threshold",
    "share": "images",
    "top1": "top-1 of these",
    "alone": "top-1 of all",
    "latency": "latency, ms",
    "ratio": "ratio",
}


def exit_rows(record: ExitsRecord) -> Iterator[Row]:
    """A row for each exit, the last one at the end."""
    for exit in record.exits:
        latency = exit.latency_ms
        yield {
            "after": exit.after,
            "threshold": NONE if exit.threshold is None else f"{exit.threshold:.3f}",
            "share": percent(exit.share, digits=1),
            "top1": percent(exit.top1, digits=2),
            "alone": percent(exit.alone_top1, digits=2),
            "latency": NONE if latency is None else f"{latency:.3f}",
            "ratio": NONE if latency is None else f"{latency / record.baseline_ms:.2f}x",
        }


def exits_summary(record: ExitsRecord) -> Iterator[str]:
    """Sentences under the table."""
    change = 100 * (record.top1 - record.baseline_top1)
    yield (
        f"Mean latency {record.ratio:.2f}x of the full network's ({record.latency_ms:.3f} ms against "
        f"{record.baseline_ms:.3f} ms of {record.clock}; {record.n_timed:,} images one at a time, one thread, in turns "
        f"with {record.baseline})."
    )
    yield (
        f"Top-1 {percent(record.top1, digits=2)} against {percent(record.baseline_top1, digits=2)} of the full network "
        f"({change:+.2f} points), over {record.n_images:,} images."
    )
    yield (
        f"Overthinking: {record.overthinking:,} images "
        f"({percent(record.overthinking / record.n_images, digits=1)}) that an early exit gets right and the last one "
        "wrong."
    )
