"""The record of a sweep as one HTML file that needs no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelpress.benchmarks.report.templates import page_template
from modelpress.export.files.atomic import write_atomically
from modelpress.export.safe_text import for_terminal

_FRACTION = "validation"


def write_sweep_page(path: Path, record: Mapping[str, Any]) -> None:
    """Write the page, whole or not at all.

    Args:
        path: The file.
        record: As `sweep.json` holds it.
    """
    write_atomically(path, render_sweep(record).encode())


def render_sweep(record: Mapping[str, Any]) -> str:
    """The page as text; the same record gives the same page."""
    shown = _printable(record)
    trials, measures = shown["trials"], [each["measure"] for each in shown["objectives"]]
    keys = list(dict.fromkeys(key for trial in trials for key in trial["chosen"]))
    return page_template("sweep.html.j2").render(
        cards=_cards(shown, measures),
        keys=keys,
        measures=measures,
        rows=[_row(trial, keys, measures) for trial in trials],
        environment=[(key.replace("_", " "), str(value)) for key, value in shown["environment"].items()],
        limits=_limits(shown["objectives"]),
        has_test=any(trial["test"] for trial in trials),
        data={
            "trials": trials,
            "objectives": shown["objectives"],
            "keys": keys,
            "importance": shown["importance"],
        },
    )


def _printable(value: Any) -> Any:
    """Without letters that steer what shows them."""
    if isinstance(value, str):
        return for_terminal(value)
    if isinstance(value, Mapping):
        return {_printable(key): _printable(item) for key, item in value.items()}
    return [_printable(item) for item in value] if isinstance(value, list | tuple) else value


def shown_value(measure: str, value: float | None) -> str:
    """A value for people.

    Example:
        >>> shown_value("validation", 0.9715), shown_value("bytes", 48211.0)
        ('0.9715', '48,211')
    """
    if value is None:
        return "–"
    if measure in (_FRACTION, "test"):
        return f"{value:.4f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _cards(record: Mapping[str, Any], measures: Sequence[str]) -> list[tuple[str, str, str]]:
    trials = record["trials"]
    done = [trial for trial in trials if trial["state"] == "complete"]
    others = [trial["state"] for trial in trials if trial["state"] != "complete"]
    more = ", ".join(f"{others.count(state)} {state}" for state in dict.fromkeys(others))
    cards = [
        ("trials", str(len(trials)), more or "all complete"),
        ("on the front", str(len(record["front"])), "that no other beats, within all limits"),
    ]
    for objective in record["objectives"]:
        measure, lower = objective["measure"], objective["lower_is_better"]
        fit = [trial for trial in done if trial["within_limits"]]
        if fit:
            best = (min if lower else max)(fit, key=lambda trial: trial["values"][measure])
            value = shown_value(measure, best["values"][measure])
            cards.append((f"{'lowest' if lower else 'highest'} {measure}", value, f"trial {best['number']}"))
    return cards


def _limits(objectives: Sequence[Mapping[str, Any]]) -> str:
    told = [
        f"{each['measure']} {word} {each[key]:,.6g}"
        for each in objectives
        for key, word in (("at_least", "at least"), ("at_most", "at most"))
        if each[key] is not None
    ]
    return ", ".join(told)


def _row(trial: Mapping[str, Any], keys: Sequence[str], measures: Sequence[str]) -> dict[str, Any]:
    values, test = trial["values"], trial["test"]
    cells = [(shown_value(m, values.get(m)), values.get(m)) for m in measures]
    figure = test["figure"] if test else None
    chosen = [(_short(trial["chosen"].get(key)), trial["chosen"].get(key)) for key in keys]
    return {
        **{key: trial[key] for key in ("number", "state", "error", "report", "on_front", "within_limits")},
        "values": cells,
        "test": (shown_value("test", figure), figure),
        "chosen": chosen,
        "seconds": ("–" if trial["seconds"] is None else f"{trial['seconds']:.1f}", trial["seconds"]),
    }


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
