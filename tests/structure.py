"""How the code hangs together: modules per folder, import arrows, floors, back-ups and circles.

    python -m tests.structure [--root CHECKOUT] [--summary]

Everything is read from the syntax trees, so that a checkout of any age can be looked at without installing it. Imports
inside functions count like any other: they hide a circle, they do not remove it. Imports for annotations alone (under
``TYPE_CHECKING``) are counted apart; they are no arrows. A module named in a string of its own
(``"modelpress.toolkit.api"``, as tables of things to load hold it) counts as an import inside a function; behind
``"-m"`` it is a program that is started, which is no arrow either.

The *rooms* of a folder are its modules and its sub-folders. An *arrow* runs between two rooms if anything in the one
imports anything in the other. A *circle* is a set of rooms that all reach each other; a *back-up* is an arrow that has
to go for there to be no circle (the one with the fewest imports is taken), or one against ``toolkit → benchmarks →
export``. *Floors* are the rooms on the longest way along the arrows, a circle being one floor.
"""

import argparse
import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

ROOT = Path(__file__).parents[1]
PACKAGES = ("toolkit", "benchmarks", "export")  # from the top down
PREFIX = "modelpress"
LEFT_OUT = {"benchmarks.peers", "benchmarks.results"}  # no part of the package
Kind = Literal["top", "deferred", "typing", "started"]
Arrow = tuple[str, str]


@dataclass(frozen=True)
class Import:
    """One module of the project names another."""

    source: str
    target: str
    kind: Kind

    @property
    def is_arrow(self) -> bool:
        """Whether the one cannot be loaded, or cannot work, without the other in the same process."""
        return self.kind in ("top", "deferred")


@dataclass(frozen=True)
class Folder:
    """What one folder looks like from inside; arrows with the number of imports behind each."""

    name: str
    modules: int
    rooms: tuple[str, ...]
    arrows: dict[Arrow, int]

    @property
    def circles(self) -> list[list[str]]:
        """Sets of rooms that all reach each other."""
        return circles(self.arrows)

    @property
    def back_ups(self) -> list[Arrow]:
        """Arrows that run against the others, or against the packages' direction."""
        return back_ups(self.arrows) if self.name else against_the_direction(self.arrows)

    @property
    def floors(self) -> int:
        """Rooms on the longest way."""
        return floors(self.rooms, self.arrows)


def modules_of(root: Path) -> dict[str, Path]:
    """Every module of a checkout by its dotted name, without ``modelpress.`` before it; packages by the folder's."""
    found = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
    }
    face = root / "src" / PREFIX / "__init__.py"
    if face.exists():
        found[PREFIX] = face
    return {name: path for name, path in found.items() if not any(map(name.startswith, LEFT_OUT))}


def imports_of(modules: dict[str, Path]) -> list[Import]:
    """Every import of one of these modules by another."""
    found: set[Import] = set()
    for name, path in modules.items():
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        for target, kind in _named(tree, "top"):
            module = _longest_module(target, modules)
            if module is not None and module != name:
                found.add(Import(name, module, kind))
    return sorted(found, key=lambda each: (each.source, each.target, each.kind))


def _named(node: ast.AST, kind: Kind) -> Iterator[tuple[str, Kind]]:
    """Dotted names that a tree imports; the last part may be a function or a class."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import(names=names):
                yield from ((alias.name, kind) for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from ((f"{module}.{alias.name}", kind) for alias in names)
            case ast.ImportFrom(level=level) if level:
                raise ValueError(f"line {child.lineno}: a relative import; the project imports by full names")
            case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Call(args=parts) if _program(parts):
                yield _program(parts), "started"
            case ast.Constant(value=str(text)) if text.startswith(f"{PREFIX}.") and " " not in text:
                yield text.replace(":", "."), "typing" if kind == "typing" else "deferred"
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                yield from _named(child, "deferred" if kind == "top" else kind)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                for statement in child.body:
                    yield from _named(ast.Module([statement], []), "typing")
                for statement in child.orelse:
                    yield from _named(ast.Module([statement], []), kind)
            case _:
                yield from _named(child, kind)


def _program(parts: Sequence[ast.expr]) -> str:
    """The module that a command line runs; empty where it runs none."""
    texts = [part.value if isinstance(part, ast.Constant) else None for part in parts]
    after = texts[texts.index("-m") + 1 :] if "-m" in texts else []
    return str(after[0]) if after and after[0] else ""


def _longest_module(dotted: str, modules: dict[str, Path]) -> str | None:
    """The module that a dotted name reaches.

    Example:
        >>> _longest_module("modelpress.export.errors.InputError", {"export": Path(), "export.errors": Path()})
        'export.errors'
    """
    name = dotted.removeprefix(f"{PREFIX}.")
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def folders_of(modules: dict[str, Path], imports: Iterable[Import]) -> list[Folder]:
    """The project and every folder in it, each with the arrows between its rooms."""
    arrows = [each for each in imports if each.is_arrow]
    packages = [name for name, path in modules.items() if path.name == "__init__.py" and name != PREFIX]
    return [_folder(name, modules, arrows) for name in ["", *sorted(packages)]]


def _folder(name: str, modules: dict[str, Path], imports: list[Import]) -> Folder:
    inside = [module for module in modules if _room(module, name) is not None]
    counted: Counter[Arrow] = Counter()
    for each in imports:
        source, target = _room(each.source, name), _room(each.target, name)
        if source is not None and target is not None and source != target:
            counted[source, target] += 1
    direct = [module for module in inside if module.rpartition(".")[0] == name and module != name]
    files = [module for module in direct if modules[module].name != "__init__.py"]
    rooms = sorted({room for module in inside if (room := _room(module, name))} - {"__init__"})
    return Folder(name, len(files), tuple(rooms), dict(sorted(counted.items())))


def _room(module: str, folder: str) -> str | None:
    """The child of a folder that holds a module, `__init__` for the folder's own module, None outside.

    Example:
        >>> _room("export.press.encodings.raw", "export.press")
        'encodings'
    """
    if module == folder:
        return "__init__"
    if folder and not module.startswith(f"{folder}."):
        return None
    return module.removeprefix(f"{folder}.").partition(".")[0] if folder else module.partition(".")[0]


def circles(arrows: Iterable[Arrow]) -> list[list[str]]:
    """Sets of more than one node that all reach each other.

    Example:
        >>> circles([("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")])
        [['a', 'b', 'c']]
    """
    arrows = list(arrows)
    nodes = sorted({node for arrow in arrows for node in arrow})
    if not nodes:
        return []
    place = {node: position for position, node in enumerate(nodes)}
    rows, columns = zip(*[(place[source], place[target]) for source, target in arrows], strict=True)
    graph = csr_array((np.ones(len(arrows)), (rows, columns)), shape=(len(nodes), len(nodes)))
    number, labels = connected_components(graph, connection="strong")
    groups = [[node for node in nodes if labels[place[node]] == group] for group in range(number)]
    return sorted(group for group in groups if len(group) > 1)


def back_ups(arrows: dict[Arrow, int]) -> list[Arrow]:
    """Arrows to remove, those with the fewest imports first, until no circle is left.

    Example:
        >>> back_ups({("a", "b"): 5, ("b", "a"): 1, ("b", "c"): 1})
        [('b', 'a')]
    """
    left, removed = dict(arrows), []
    while groups := circles(left):
        within = [arrow for arrow in left if any(set(arrow) <= set(group) for group in groups)]
        removed.append(min(within, key=lambda arrow: (left[arrow], arrow)))
        del left[removed[-1]]
    return removed


def against_the_direction(arrows: Iterable[Arrow]) -> list[Arrow]:
    """Arrows that run up in toolkit → benchmarks → export, with the public names above all of them."""
    height = {name: -position for position, name in enumerate((PREFIX, *PACKAGES))}
    return [(source, target) for source, target in arrows if height[source] < height[target]]


def floors(rooms: Iterable[str], arrows: Iterable[Arrow]) -> int:
    """How many rooms lie on the longest way; the rooms of a circle share a floor.

    Example:
        >>> floors("abc", [("a", "b"), ("b", "c"), ("a", "c")])
        3
    """
    groups = {node: group[0] for group in circles(arrows) for node in group}
    below: dict[str, set[str]] = {groups.get(room, room): set() for room in rooms}
    for source, target in arrows:
        upper, lower = groups.get(source, source), groups.get(target, target)
        if upper != lower:
            below.setdefault(upper, set()).add(lower)

    floor: dict[str, int] = {}
    for room in TopologicalSorter(below).static_order():
        floor[room] = 1 + max((floor[lower] for lower in below.get(room, ())), default=0)
    return max(floor.values(), default=0)


def main() -> None:
    """Print the table, then every back-up and every circle by name."""
    parser = argparse.ArgumentParser(prog="python -m tests.structure", description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to look at [default: this one]")
    parser.add_argument("--summary", action="store_true", help="a line for each of the packages alone")
    options = parser.parse_args()
    modules = modules_of(options.root)
    if not modules:
        parser.error(f"{options.root} holds none of {', '.join(PACKAGES)}; give the root of a checkout")

    imports = imports_of(modules)
    folders = folders_of(modules, imports)
    print("\n".join(_summary(folders) if options.summary else _table(folders)))
    if not options.summary:
        print("\n".join(_details(modules, imports, folders)))


def _summary(folders: list[Folder]) -> Iterator[str]:
    yield "| package | most modules in a folder | rooms | arrows | floors | back-ups | circles |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    named = {folder.name: folder for folder in folders}
    for folder in (named[package] for package in PACKAGES if package in named):
        inside = [each for each in folders if f"{each.name}.".startswith(f"{folder.name}.")]
        most = max(each.modules for each in inside)
        wrong = sum(len(each.back_ups) for each in inside), sum(len(each.circles) for each in inside)
        numbers = most, len(folder.rooms), len(folder.arrows), folder.floors, *wrong
        yield f"| `{folder.name}` | {' | '.join(map(str, numbers))} |"


def _table(folders: list[Folder]) -> Iterator[str]:
    yield "| folder | modules | rooms | arrows | floors | back-ups | circles |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for folder in folders:
        wrong = len(folder.back_ups), len(folder.circles)
        numbers = folder.modules, len(folder.rooms), len(folder.arrows), folder.floors, *wrong
        yield f"| {folder.name or '(the project)'} | {' | '.join(map(str, numbers))} |"


def _details(modules: dict[str, Path], imports: list[Import], folders: list[Folder]) -> Iterator[str]:
    kinds = Counter(each.kind for each in imports)
    yield f"\n{len(modules)} modules, {kinds.total()} imports of each other: {_listed(kinds)}"

    for folder in folders:
        for arrow in folder.back_ups:
            yield f"back-up in {folder.name or 'the project'}: {' → '.join(arrow)}"
            yield from (f"    {line}" for line in _behind(arrow, folder.name, imports))

    for circle in circles((each.source, each.target) for each in imports if each.is_arrow):
        yield f"circle of modules: {', '.join(circle)}"


def _listed(kinds: Counter[Kind]) -> str:
    return f"{kinds['top']} at the top, {kinds['deferred']} deferred, {kinds['typing']} for annotations"


def _behind(arrow: Arrow, folder: str, imports: list[Import]) -> Iterator[str]:
    for each in imports:
        if each.is_arrow and (_room(each.source, folder), _room(each.target, folder)) == arrow:
            yield f"{each.source} imports {each.target}" + (
                " in a function" if each.kind == "deferred" else ""
            )


if __name__ == "__main__":
    main()
