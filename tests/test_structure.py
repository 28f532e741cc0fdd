"""The layout holds: one direction, no circle, folders that can be looked over; and the script that says so is right."""

from pathlib import Path

import pytest

from tests import structure

MOST_MODULES_IN_A_FOLDER = 18


@pytest.fixture(scope="module")
def imports() -> list[structure.Import]:
    return structure.imports_of(structure.modules_of(structure.ROOT))


@pytest.fixture(scope="module")
def folders(imports: list[structure.Import]) -> list[structure.Folder]:
    return structure.folders_of(structure.modules_of(structure.ROOT), imports)


def test_no_modules_import_each_other_in_a_circle(imports):
    assert structure.circles((each.source, each.target) for each in imports if each.is_arrow) == []


def test_no_arrow_runs_back_in_any_folder(folders):
    assert {folder.name: folder.back_ups for folder in folders if folder.back_ups} == {}


def test_no_folder_is_too_long_to_look_over(folders):
    long = {folder.name: folder.modules for folder in folders if folder.modules > MOST_MODULES_IN_A_FOLDER}
    assert long == {}


@pytest.fixture
def checkout(tmp_path):
    """Makes a checkout of these files."""

    def make(**files: str) -> Path:
        for name, text in files.items():
            path = tmp_path.joinpath(*name.split("__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.parent.joinpath("__init__.py").touch()
            path.write_text(text, encoding="utf-8")
        for package in {name.split("__")[0] for name in files}:
            (tmp_path / package / "__init__.py").touch()
        return tmp_path

    return make


def _imports(root: Path) -> set[tuple[str, str, str]]:
    return {(i.source, i.target, i.kind) for i in structure.imports_of(structure.modules_of(root))}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("import modelpress.export.b", "top"),
        ("from modelpress.export import b", "top"),
        ("from modelpress.export.b import name", "top"),
        ("from export.b import name", "top"),  # as older checkouts write it
        ("try:\n    from modelpress.export import b\nexcept ImportError:\n    pass", "top"),
        ("def f():\n    from modelpress.export import b", "deferred"),
        ("class A:\n    def f(self):\n        if self:\n            import modelpress.export.b", "deferred"),
        ("TABLE = {'b': 'modelpress.export.b:name'}", "deferred"),
        ("run([executable, '-P', '-m', 'modelpress.export.b', job])", "started"),
        ("if TYPE_CHECKING:\n    from modelpress.export import b", "typing"),
    ],
)
def test_every_way_to_import_is_seen(checkout, text, kind):
    assert _imports(checkout(export__a=text, export__b="")) == {("export.a", "export.b", kind)}


def test_a_circle_hidden_in_a_function_is_found(checkout):
    root = checkout(
        export__a="import modelpress.export.b", export__b="def f():\n    import modelpress.export.a"
    )
    modules = structure.modules_of(root)
    (_, export) = structure.folders_of(modules, structure.imports_of(modules))
    assert export.circles == [["a", "b"]]
    assert export.back_ups == [("a", "b")]


def test_rooms_can_run_in_a_circle_without_their_modules(checkout):
    root = checkout(
        export__x__a="import modelpress.export.y.a", export__y__b="import modelpress.export.x.b",
        export__x__b="", export__y__a="",
    )  # fmt: skip
    modules = structure.modules_of(root)
    imports = structure.imports_of(modules)
    assert structure.circles((each.source, each.target) for each in imports) == []
    export = structure.folders_of(modules, imports)[1]
    assert (export.name, export.modules, export.rooms) == ("export", 0, ("x", "y"))
    assert export.circles == [["x", "y"]]


def test_an_import_against_the_direction_is_a_back_up(checkout):
    root = checkout(export__a="import modelpress.toolkit.b", toolkit__b="")
    modules = structure.modules_of(root)
    project = structure.folders_of(modules, structure.imports_of(modules))[0]
    assert project.back_ups == [("export", "toolkit")]
    assert project.circles == []
