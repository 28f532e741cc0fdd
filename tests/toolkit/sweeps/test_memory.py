"""The study: taken up again where it was, and only by its own sweep. Needs Optuna alone."""

import pytest
import yaml

from modelpress.export.errors import InputError
from modelpress.toolkit.sweeps.plan import load_plan

pytest.importorskip("optuna", reason="needs the extra sweep: Optuna and Ray")

from modelpress.toolkit.sweeps.memory import Memory


@pytest.fixture
def memory(tmp_path):
    def open_again(**changes):
        sweep = {
            "search": {"prune.sparsity": {"uniform": [0.5, 0.9]}, "seed": {"choices": [0, 1]}},
            "objectives": [{"measure": "validation"}, {"measure": "bytes", "at-most": 50}],
            **changes,
        }
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(sweep, sort_keys=False))
        plan = load_plan(path)
        return Memory(plan, tmp_path, lower=[m == "bytes" for m in plan.sweep.measures])

    return open_again


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_a_study_goes_on_with_the_trials_that_were_running(memory, sampler):
    first = memory(sampler=sampler)
    numbers = [first.ask(), first.ask()]
    chosen = first.chosen(0)
    first.complete(1, [0.9, 60.0], 1.0)

    again = memory(sampler=sampler)
    assert (numbers, again.unfinished(), again.asked) == ([0, 1], [0], 2)
    assert again.chosen(0) == chosen
    again.complete(0, [0.8, 40.0], 1.0)
    third = again.chosen(again.ask())
    assert third not in (chosen, first.chosen(1))
    assert [trial.within for trial in again.trials()[:2]] == [True, False]


def test_a_grid_is_asked_cell_by_cell_whoever_drives(memory):
    search = {"seed": {"grid": [0, 1]}, "quantize.bits": {"grid": [3, 4]}}
    first = memory(sampler="grid", search=search)
    first.complete(first.ask(), [0.9, 40.0], 1.0)
    again = memory(sampler="grid", search=search)
    again.ask()
    assert [tuple(trial.chosen.values()) for trial in again.trials()] == [(0, 3), (0, 4)]


def test_the_study_of_another_recipe_is_refused(memory):
    memory().ask()
    with pytest.raises(InputError, match=r"study 'modelpress' is that of another sweep"):
        memory(set={"quantize.bits": 3})


def test_a_storage_that_cannot_be_opened_is_named(memory):
    with pytest.raises(InputError, match=r"storage nosuch://x: cannot be opened"):
        memory(storage="nosuch://x")


def test_a_trial_that_falls_behind_is_ended(memory):
    study = memory(objectives=[{"measure": "validation"}], pruner="median")
    for _ in range(5):
        number = study.ask()
        assert not any(study.report(number, step, 0.9) for step in (1, 2, 3))
        study.complete(number, [0.9], 1.0)
    behind = study.ask()
    assert [study.report(behind, step, 0.1) for step in (1, 2)][-1]
    study.ended(behind, error=None, seconds=1.0)
    assert study.trials()[-1].state == "pruned"
