"""The file of a sweep: what it means, and what is refused. Needs neither Optuna nor Ray."""

import pytest
import yaml

from modelpress.benchmarks.report.sweep_page import render_sweep
from modelpress.export.errors import InputError
from modelpress.toolkit.sweeps.objectives import Direction, Objective
from modelpress.toolkit.sweeps.plan import load_plan
from modelpress.toolkit.sweeps.worker import check_weights, packed, places_named, unpacked
from tests.helpers.command_line import one_line

GOOD = {
    "search": {"prune.sparsity": {"uniform": [0.5, 0.9]}, "quantize.bits": {"choices": [3, 4]}},
    "objectives": [{"measure": "validation", "at-least": 0.9}, {"measure": "bytes", "at-most": 50000}],
}


@pytest.fixture
def plan_of(tmp_path):
    def load(**changes):
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump({**GOOD, **changes}, sort_keys=False))
        return load_plan(path)

    return load


def test_a_trial_is_the_base_recipe_with_its_values(plan_of):
    plan = plan_of(base="resnet20-cifar10", set={"seed": 3})
    recipe = plan.recipe({"prune.sparsity": 0.6, "quantize.layers.layer1.*": 3})
    assert (recipe.data.dataset, recipe.seed, recipe.prune.sparsity) == ("cifar10", 3, 0.6)
    assert recipe.quantize.layers["layer1.*"] == 3


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"serch": {}}, r"unknown key 'serch'; did you mean 'search'\?"),
        ({"search": {"prune.sparsty": {"grid": [0.5]}}}, r"'prune.sparsty'; did you mean 'sparsity'\?"),
        ({"search": {"seed": {"unifrm": [0, 1]}}}, r"'search.seed.unifrm'; did you mean 'uniform'\?"),
        ({"search": {"seed": {"grid": [0], "choices": [1]}}}, "give one of grid, choices"),
        ({"search": {"seed": {"uniform": [4, 2]}}}, "the lowest value comes first"),
        ({"search": {"train.lr": {"log-uniform": [0.0, 1.0]}}}, "log-uniform needs a lowest value above 0"),
        ({"search": {"quantize.bits": {"uniform": [2, 9]}}}, "quantize.bits is 9"),
        ({"objectives": [{"measure": "byts"}]}, r"'byts' is measured by nobody; did you mean 'bytes'\?"),
        ({"objectives": []}, "objectives is"),
        ({"objectives": [{"measure": "bytes"}] * 2}, "name a measure twice"),
        ({"objectives": [{"measure": "bytes", "at-least": 2, "at-most": 1}]}, "nothing is within both"),
        ({"sampler": "grid"}, "give prune.sparsity as grid or choices"),
        ({"pruner": "median"}, "needs that one objective alone"),
        ({"base": "resnet20-cifar1"}, r"did you mean resnet20-cifar10"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_nearest(plan_of, changes, told):
    with pytest.raises(InputError, match=told):
        plan_of(**changes)


def test_more_trials_or_other_machines_are_the_same_sweep(plan_of):
    same = plan_of().fingerprint()
    assert plan_of(trials=99, resources={"cpus": 2}, retries=0).fingerprint() == same
    assert plan_of(set={"seed": 1}).fingerprint() != same
    assert plan_of(sampler="random").fingerprint() != same


def test_a_grid_has_each_combination_once(plan_of):
    search = {"seed": {"grid": [0, 1, 2]}, "quantize.bits": {"choices": [3, 4]}}
    sweep = plan_of(search=search, sampler="grid", trials=50).sweep
    cells = [tuple(sweep.cell(number).values()) for number in range(sweep.n_trials)]
    assert cells == [(0, 3), (0, 4), (1, 3), (1, 4), (2, 3), (2, 4)]


def test_the_front_keeps_equal_points_and_drops_what_is_beaten():
    points = {0: (0.9, 50.0), 1: (0.9, 50.0), 2: (0.9, 51.0), 3: (0.95, 80.0), 4: (0.5, 90.0)}
    assert Direction((False, True)).front(points) == [0, 1, 3]


def test_a_limit_is_broken_by_how_far_a_value_lies_beyond():
    objective = Objective.model_validate({"measure": "validation", "at-least": 0.9})
    assert objective.violation(0.8) == pytest.approx(0.1)
    assert objective.violation(0.95) <= 0


def test_data_travel_to_a_machine_once(tmp_path, plan_of):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.bin").write_bytes(b"1")
    recipe = plan_of().recipe({"data.dir": str(tmp_path / "data")})
    (place,) = places_named([recipe])
    there = unpacked(packed(place), below=tmp_path / "node")
    assert (there / "a.bin").read_bytes() == b"1"
    assert unpacked(packed(place), below=tmp_path / "node") == there
    assert len(list((tmp_path / "node").iterdir())) == 1


def test_weights_that_are_not_there_are_named_before_anything_starts(plan_of):
    check_weights(plan_of().base)
    with pytest.raises(InputError, match=r"model.teacher: there is no file gone.pt"):
        check_weights(plan_of(set={"model.teacher": "gone.pt"}).base)


def test_without_the_extra_the_command_says_how_to_install_it(call, tmp_path, monkeypatch):
    monkeypatch.setattr("modelpress.toolkit.commands.requirements.find_spec", lambda name: None)
    code, _, err = call("sweep", "-c", tmp_path / "sweep.yaml", "-o", tmp_path / "out")
    assert code == 1
    assert "a sweep needs optuna and ray: pip install" in one_line(err)
    assert not (tmp_path / "out").exists()


def test_the_page_shows_what_strangers_wrote_as_text():
    trial = {
        "number": 0,
        "state": "failed",
        "chosen": {"seed": "</script><b>"},
        "values": {},
        "within_limits": True,
        "on_front": False,
        "test": None,
        "error": "<img src=x>",
        "attempts": 1,
        "seconds": None,
        "epochs": {},
        "report": None,
    }
    objective = {"measure": "bytes", "lower_is_better": True, "at_most": 5.0, "at_least": None}
    page = render_sweep(
        {
            "trials": [trial],
            "objectives": [objective],
            "front": [],
            "importance": {"bytes": {}},
            "environment": {"cpu": "x"},
        }
    )
    assert "</script><b>" not in page
    assert "<img" not in page
    assert page.count("</script>") == 2
    assert "bytes at most 5" in page
