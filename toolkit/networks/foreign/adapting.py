"""A checkpoint's tensors brought to the names and number types of a network; nothing is guessed silently."""

import difflib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from modelpress.export.errors import InputError
from modelpress.toolkit.networks.foreign.name_map import NameMap, joined, map_names, shapes_of
from modelpress.toolkit.networks.foreign.nested import State

WRAPPERS = ("module", "_orig_mod")  # of DataParallel and of torch.compile, at any depth
_COUNTER = "num_batches_tracked"  # files from before PyTorch 0.4.1 have none
_SHOWN = 3  # names listed of each kind of mismatch


@dataclass(frozen=True)
class Adapted:
    """Tensors with the network's names.

    Attributes:
        tensors: By name; whether they fill the network, `load_into` checks.
        notes: What was done to them, a sentence each.
        name_map: By shape and order, if one was needed.
    """

    tensors: State
    notes: tuple[str, ...] = ()
    name_map: NameMap | None = None


def adapt(theirs: State, own: State, *, map_by_shape: bool, ordered: bool) -> Adapted:
    """Rename and convert what a checkpoint holds, so that it fills a network.

    Args:
        theirs: As found in the file.
        own: The network's state dict; its values do not matter.
        map_by_shape: Whether names that do not fit may be matched by the shapes and the order of their layers.
        ordered: Whether `theirs` is in the order of definition.

    Raises:
        NoCounterpart: It is another network altogether: neither names nor shapes are the same.
        InputError: Names do not fit; each is named with what was expected. A mapping that would fit is proposed, its
            table in the notes of the exception. Shapes under names that fit are left to `load_into`.

    Example:
        >>> own = {"fc.weight": torch.zeros(2, 3)}
        >>> adapt({"module.fc.weight": torch.ones(2, 3)}, own, map_by_shape=False, ordered=True).notes
        ("'module' was taken out of the names",)
    """
    adapted = without_prefixes(theirs, own)
    if not _names_fit(adapted.tensors, own):
        adapted = _mapped(adapted, own, ordered=ordered, permitted=map_by_shape)
    return _converted(_with_counters(adapted, own), own)


def without_prefixes(theirs: State, own: State) -> Adapted:
    """Take off what wrappers put before names, and tensors that belong to something else than the network.

    Raises:
        InputError: Two parts of the checkpoint would fit the network.
    """
    tensors, notes = _without_wrappers(theirs, own)
    if _names_fit(tensors, own):
        return Adapted(tensors, notes)

    whole = [prefix for prefix in _prefixes(tensors) if _names_fit(_below(tensors, prefix), own)]
    if len(whole) > 1:
        raise InputError(
            f"holds the network more than once: under {' and under '.join(whole)}; choose with "
            f"model.checkpoint_key={whole[0].removesuffix('.')}"
        )
    prefix = whole[0] if whole else _common_prefix(tensors, own)
    if not prefix:
        return Adapted(tensors, notes)

    notes += (f"the prefix {prefix!r} was taken off the names",)
    outside = [name for name in tensors if not name.startswith(prefix)]
    if outside:
        notes += (f"tensors outside {prefix!r} are not read: {_some(outside)}",)
    return Adapted(_below(tensors, prefix), notes)


def misfits(theirs: State, own: State) -> list[str]:
    """What is missing, unknown or of another shape, each with what would be near.

    Example:
        >>> misfits({"fc1.weight": torch.zeros(2, 3)}, {"fc.weight": torch.zeros(2, 3)})
        ['1 missing (fc.weight (2, 3), nearest fc1.weight)', '1 unknown (fc1.weight (2, 3))']
    """
    missing = [name for name in _without_counters(own) if name not in theirs]
    unknown = [name for name in _without_counters(theirs) if name not in own]
    reshaped = [name for name, value in own.items() if name in theirs and theirs[name].shape != value.shape]
    return [
        *_counted(
            "missing",
            [_described(name, own) + _nearest(name, own[name].shape, theirs, unknown) for name in missing],
        ),
        *_counted("unknown", [_described(name, theirs) for name in unknown]),
        *_counted(
            "of another shape",
            [f"{_described(name, theirs)} instead of {tuple(own[name].shape)}" for name in reshaped],
        ),
    ]


def _mapped(adapted: Adapted, own: State, *, ordered: bool, permitted: bool) -> Adapted:
    """The names replaced by a mapping, if that is permitted.

    Raises:
        NoCounterpart: There is none, nor a name in common.
        InputError: It is not, or there is none.
    """
    problems = "; ".join(misfits(adapted.tensors, own))
    try:
        name_map = map_names(
            shapes_of(_without_counters(adapted.tensors)), shapes_of(_without_counters(own)), ordered=ordered
        )
    except InputError as error:
        # what shares names with the network is no other one, but of another depth or incomplete
        refused_as = InputError if adapted.tensors.keys() & own.keys() else type(error)
        raise refused_as(f"does not fit the network: {problems}; {error}") from error
    if not permitted:
        refusal = InputError(
            f"does not fit the network by name: {problems}; by shape and order all {len(name_map.layers)} layers fit: "
            "look at the proposed mapping, and use it with --map-names (model.map_names in a recipe)"
        )
        refusal.add_note(name_map.table())
        raise refusal

    modules = name_map.modules()
    tensors = {}
    for name, value in adapted.tensors.items():
        module, _, kind = name.rpartition(".")
        tensors[joined(modules.get(module, module), kind)] = value
    note = f"{len(modules)} layers have other names: mapped by shape and order"
    return replace(adapted, tensors=tensors, notes=(*adapted.notes, note), name_map=name_map)


def _with_counters(adapted: Adapted, own: State) -> Adapted:
    """Batch norm's count of batches, which changes no result, is 0 where the file has none."""
    absent = {name: torch.zeros_like(value) for name, value in own.items() if name.endswith(_COUNTER)}
    return replace(adapted, tensors={**absent, **adapted.tensors})


def _converted(adapted: Adapted, own: State) -> Adapted:
    """Floats in the network's number type, and what that changed; all else stays, and is refused by its type."""
    tensors, changes = dict(adapted.tensors), dict[str, list[float]]()
    for name, value in adapted.tensors.items():
        target = own[name].dtype if name in own else value.dtype
        if value.dtype == target or not (_is_plain_float(value) and target.is_floating_point):
            continue
        tensors[name] = value.to(target)
        kinds = f"were {_kind(value.dtype)}, are {_kind(target)}"
        change = (tensors[name].double() - value.double()).abs().max().item() if value.numel() else 0.0
        changes.setdefault(kinds, []).append(change)

    notes = tuple(
        f"{len(each)} tensors {kinds}: "
        + (f"rounded, by at most {max(each):.1e}" if max(each) else "the values are the same")
        for kinds, each in changes.items()
    )
    return replace(adapted, tensors=tensors, notes=(*adapted.notes, *notes))


def _kind(number: torch.dtype) -> str:
    return str(number).removeprefix("torch.")


def _is_plain_float(value: Tensor) -> bool:
    return value.layout == torch.strided and value.dtype.is_floating_point


def _without_wrappers(theirs: State, own: State) -> tuple[State, tuple[str, ...]]:
    """Names without the parts that wrappers add, unless the network itself has such parts; and what was done."""
    ours = {part for key in own for part in key.split(".")}
    dropped = [part for part in WRAPPERS if part not in ours and any(part in n.split(".") for n in theirs)]
    tensors = {
        ".".join(part for part in name.split(".") if part not in dropped): value
        for name, value in theirs.items()
    }
    if not dropped or len(tensors) < len(theirs):  # two names became one: those were no wrappers
        return dict(theirs), ()
    return tensors, (f"{' and '.join(map(repr, dropped))} was taken out of the names",)


def _prefixes(tensors: State) -> list[str]:
    """Every first part, and every first two parts, of names, with their dot."""
    found: dict[str, None] = {}
    for name in tensors:
        parts = name.split(".")
        for depth in (1, 2):
            if len(parts) > depth:
                found[".".join(parts[:depth]) + "."] = None
    return list(found)


def _common_prefix(tensors: State, own: State) -> str:
    """What all names begin with and not all of the network's; parts that are whole only."""
    prefix = ""
    while True:
        rest = [name.removeprefix(prefix) for name in tensors]
        heads = {name.partition(".")[0] for name in rest if "." in name}
        head = next(iter(heads), "") + "."
        whole = len(heads) == 1 and all("." in name for name in rest)
        if not whole or all(name.startswith(head) for name in own):
            return prefix
        prefix += head


def _below(tensors: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _names_fit(tensors: State, own: State) -> bool:
    return _without_counters(tensors).keys() == _without_counters(own).keys()


def _without_counters(tensors: State) -> State:
    return {name: value for name, value in tensors.items() if not name.endswith(_COUNTER)}


def _nearest(name: str, shape: torch.Size, theirs: State, unknown: list[str]) -> str:
    """Of the same shape: a tensor of another one would not do."""
    candidates = [other for other in unknown if theirs[other].shape == shape]
    near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    return f", nearest {near[0]}" if near else ""


def _described(name: str, tensors: State) -> str:
    return f"{name} {tuple(tensors[name].shape)}"


def _counted(kind: str, names: list[str]) -> list[str]:
    return [f"{len(names)} {kind} ({_some(names)})"] if names else []


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
