import pytest
import yaml

from modelpress.export.errors import CommandLineError, InputError
from modelpress.toolkit import recipe_yaml
from modelpress.toolkit.recipe import load_recipe, parse_setting
from modelpress.toolkit.recipe_yaml import MAX_BYTES, load_yaml


def doubling(levels, line):
    return "first: &a0 {k: 1}\n" + "".join(
        f"a{k + 1}: &a{k + 1} " + line.format(k) + "\n" for k in range(levels)
    )


HOSTILE = {
    "merge keys": doubling(22, "{{<<: [*a{0}, *a{0}]}}"),
    "aliases": doubling(40, "[*a{0}, *a{0}]"),
    "an alias inside what it stands for": "a: &a [*a]\n",
    "many values": "[" + "1," * 20_000 + "]",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_aliases_come_to_is_counted_before_it_is_built(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(yaml.SafeLoader, "construct_document", lambda *_: pytest.fail("it was built"))
    path = tmp_path / "recipe.yaml"
    path.write_text(HOSTILE[kind])
    with pytest.raises(
        InputError, match=r"recipe\.yaml: is no YAML: (more than 10,000 values|an alias stands)"
    ):
        load_recipe(path)
    with pytest.raises(CommandLineError, match="the value is no YAML"):
        parse_setting(f"quantize={HOSTILE[kind]}")


def test_what_is_allowed_is_read_as_yaml_reads_it():
    text = "a: &a {x: 1, y: [2, 3]}\nb: {<<: *a, x: 4}\nc: [*a, *a]\n"
    assert load_yaml(text) == yaml.safe_load(text)
    assert load_yaml("") is None
    assert load_yaml(doubling(8, "[*a{0}, *a{0}]")) == yaml.safe_load(doubling(8, "[*a{0}, *a{0}]"))


def test_a_recipe_of_a_gigabyte_is_not_read(tmp_path):
    path = tmp_path / "recipe.yaml"
    with path.open("wb") as file:
        file.write(b"seed: 1\n")
        file.truncate(1 << 30)
    with pytest.raises(InputError, match=f"more than {MAX_BYTES:,} bytes"):
        load_recipe(path)
    assert recipe_yaml.MAX_NODES == 10_000
