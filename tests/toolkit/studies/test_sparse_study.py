import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from modelpress.export.errors import InputError
from modelpress.toolkit.commands.study.sparse_regression import study_own, study_reference
from modelpress.toolkit.progress import Silent
from modelpress.toolkit.sparse_regression.objectives import LeastSquares
from modelpress.toolkit.sparse_regression.penalties import L1
from modelpress.toolkit.studies.figure_files import save_figure
from modelpress.toolkit.studies.sparse_series import reference
from modelpress.toolkit.studies.sparse_series.figures import overview_figure
from modelpress.toolkit.studies.sparse_series.study import (
    Experiment,
    by_method,
    default_strengths,
    own_experiments,
    reference_experiments,
    run_study,
)
from modelpress.toolkit.studies.sparse_series.tables import load_problem
from tests.helpers.command_line import one_line

EXPERIMENTS = reference_experiments()
PUBLISHED = [i for i, experiment in enumerate(EXPERIMENTS) if experiment.published is not None]


@pytest.fixture(scope="module")
def findings():
    return run_study(
        reference.PROBLEM, EXPERIMENTS, step=reference.STEP, steps=reference.STEPS, progress=Silent()
    )


@pytest.fixture(scope="module")
def groups(findings):
    return dict(by_method(findings))


def label(index):
    return f"{EXPERIMENTS[index].method} {EXPERIMENTS[index].parameter}"


def test_every_published_row_is_there(groups):
    assert len(PUBLISHED) == 14
    assert {method: len(group) for method, group in groups.items()} == {
        "gradient descent": 1,
        "iterative pruning": 1,
        "L1 subgradient": 4,
        "proximal gradient": 4,
        "FISTA": 4,
        "trimmed L1": 4,
    }


@pytest.mark.parametrize("index", PUBLISHED, ids=label)
def test_final_weights_are_the_published_ones(findings, index):
    finding = findings[index]
    assert finding.solution.iterations == 200
    assert finding.solution.step == 0.02
    assert_allclose(finding.solution.weights, finding.experiment.published, rtol=0, atol=1e-7)
    if finding.experiment.method != "gradient descent":  # where a published 0 is one
        zeros = np.array(finding.experiment.published) == 0
        assert_array_equal(finding.solution.weights == 0, zeros)


def test_sparsity_is_a_matter_of_exact_zeros(groups):
    for finding in groups["L1 subgradient"]:
        assert finding.solution.support_size == 5
        assert finding.oscillating >= 1
        assert finding.verdict.startswith("not sparse")
    for method in ("iterative pruning", "proximal gradient", "FISTA", "trimmed L1"):
        assert all(f.verdict.startswith("sparse; ") for f in groups[method])


def test_the_verdict_tells_optimum_from_bias(groups):
    assert groups["gradient descent"][0].verdict == "not sparse; converged to the optimum"
    for method in ("iterative pruning", "trimmed L1"):
        assert all(f.verdict == "sparse; converged to the optimum" for f in groups[method])
    assert all(f.verdict == "sparse; biased by the penalty" for f in groups["FISTA"])
    assert all(f.verdict.endswith("oscillates, biased by the penalty") for f in groups["L1 subgradient"])
    weakest, *_, strongest = groups["proximal gradient"]
    assert weakest.verdict == "sparse; not converged"  # 200 steps are too few for it
    assert strongest.verdict == "sparse; biased by the penalty"
    assert strongest.excess_loss > 0.3


def test_a_subgradient_run_that_settles_is_not_said_to_oscillate():
    problem = LeastSquares(np.eye(3), np.array([4.0, 2.0, 1.0]))
    (finding,) = run_study(
        problem,
        [Experiment("L1 subgradient", "", "subgradient", L1(0.1))],
        step=None,
        steps=100,
        progress=Silent(),
    )
    assert finding.oscillating == 0
    assert finding.verdict == "not sparse; biased by the penalty"


def test_the_support_is_final_from_the_step_that_is_told(groups):
    assert [f.support_since for f in groups["trimmed L1"]] == sorted(
        (f.support_since for f in groups["trimmed L1"]), reverse=True
    )
    # counted by hand from the iterates of iterative pruning
    w, supports = np.zeros(5), [np.zeros(5, bool)]
    for _ in range(200):
        w = w - 0.04 * reference.PROBLEM.X.T @ (reference.PROBLEM.X @ w - reference.PROBLEM.y)
        w[np.argsort(-abs(w))[2:]] = 0
        supports.append(w != 0)
    last_change = max(i for i in range(1, 201) if (supports[i] != supports[i - 1]).any())
    assert groups["iterative pruning"][0].support_since == last_change


def test_the_study_writes_tables_and_readable_figures(tmp_path, capsys):
    answer = study_reference(tmp_path / "out", overwrite=False)
    record = answer.record
    names = {path.name for path in (tmp_path / "out").iterdir()}
    figures = {
        "overview",
        "gradient-descent",
        "iterative-pruning",
        "l1-subgradient",
        "proximal-gradient",
        "fista",
        "trimmed-l1",
    }
    assert names == {f"{f}.{kind}" for f in figures for kind in ("png", "svg")} | {
        "results.json",
        "results.md",
    }
    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert stored == json.loads(json.dumps(record))
    assert len(stored["rows"]) == 18
    assert stored["rows"][1]["weights"] == pytest.approx([0, -3, 0, 0, 1], abs=1e-12)
    with Image.open(tmp_path / "out" / "overview.png") as image:
        assert image.width >= 1000
        assert image.convert("L").getextrema()[0] < 100
    assert (tmp_path / "out" / "results.md").read_text().count("converged to the optimum") == 6
    answer.show()
    told = capsys.readouterr().out
    assert "-2.67447522" in told
    assert "in all 14 rows at most 4.2e-09" in told
    with pytest.raises(InputError, match="not empty; pass --overwrite to replace its files, or choose"):
        study_reference(tmp_path / "out", overwrite=False)


def test_figures_are_the_same_bytes_every_time(findings, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_figure(overview_figure(findings), tmp_path / name, "overview")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_legends_stand_beside_the_panels(findings):
    figure = overview_figure(findings)
    figure.draw_without_rendering()
    for part in figure.subfigs:
        (legend,) = part.legends
        box = legend.get_window_extent()
        assert not any(box.overlaps(axes.get_window_extent()) for axes in part.axes)


# a user's own problem


def own_problem(folder, *, kind="npy", n=30, d=40):
    rng = np.random.default_rng(3)
    X, w = rng.standard_normal((n, d)), np.zeros(d)
    w[:4] = [3, -2, 1.5, 1]
    y = X @ w
    paths = folder / f"X.{kind}", folder / f"y.{kind}"
    for path, values in zip(paths, (X, y), strict=True):
        if kind == "npy":
            np.save(path, values)
        else:
            header = ",".join(f"column {i}" for i in range(values.reshape(n, -1).shape[1]))
            np.savetxt(path, values, delimiter=",", header=header, comments="", fmt="%.17g")
    return paths


OPTIONS = {"strengths": [], "k": 4, "step": None, "steps": None, "overwrite": False}


@pytest.mark.parametrize("kind", ["npy", "csv"])
def test_an_own_problem_is_studied_from_files(tmp_path, kind):
    x, y = own_problem(tmp_path, kind=kind)
    record = study_own(x, y, tmp_path / "out", **OPTIONS).record
    assert record["problem"]["shape"] == [30, 40]
    by_name = {(row["method"], row["parameter"]): row for row in record["rows"]}
    assert by_name["iterative pruning", "k = 4"]["verdict"] == "sparse; stationary with 4 nonzero"
    trimmed = record["rows"][-1]
    assert trimmed["method"] == "trimmed L1"
    assert np.flatnonzero(trimmed["weights"]).tolist() == [0, 1, 2, 3]
    assert trimmed["verdict"] == "sparse; converged to the optimum"
    assert trimmed["published"] is None
    assert len(record["rows"]) == 2 + 4 * 4
    assert (tmp_path / "out" / "overview.png").is_file()


def test_malformed_headers_are_refused(tmp_path):
    (tmp_path / "y.csv").write_text("1\n2\n")
    for shape in ("(10000000000000, 4)", "(2, 1"):
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        (tmp_path / "X.npy").write_bytes(
            b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
        )
        with pytest.raises(InputError, match="is no table of numbers"):
            load_problem(tmp_path / "X.npy", tmp_path / "y.csv")


def test_csv_needs_no_header(tmp_path):
    (tmp_path / "X.csv").write_text("1,0 # the first\n\n0,2\n")
    (tmp_path / "y.csv").write_text("\ufeff1\n2\n", encoding="utf-8")
    problem = load_problem(tmp_path / "X.csv", tmp_path / "y.csv")
    assert_array_equal(problem.X, [[1, 0], [0, 2]])
    assert_array_equal(problem.y, [1, 2])


def test_default_penalties_leave_weights():
    problem = LeastSquares(np.eye(3), np.array([4.0, 2.0, 1.0]))
    strengths = default_strengths(problem)
    findings = run_study(problem, own_experiments(strengths, 1), step=None, steps=50, progress=Silent())
    assert all(f.solution.support_size >= 1 for f in findings)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("X.csv", b"1,2\n3\n", "X.csv: is no table of numbers: .*number of columns changed"),
        ("X.csv", b"1,2\n3,abc\n", "X.csv: is no table of numbers: .*'abc'"),
        ("X.csv", b"1,O.5\n3,4\n", "X.csv: is no table of numbers: .*'O.5'"),
        ("X.csv", b"1,\n3,4\n", "X.csv: is no table of numbers"),
        ("X.csv", b"1,2\n3,nan\n", "X holds nan at row 2, column 2"),
        ("X.csv", b"", r"X has shape \(0, 1\)"),
        ("X.csv", b"\xff\xfe\x00", "X.csv: is no table of numbers"),
        ("X.csv", b"1,2\n3,4\n5,6\n", r"X has shape \(3, 2\), y has shape \(2,\)"),
        ("X.npy", b"nothing like it", "X.npy: is no table of numbers"),
        ("X.npy", b"", "X.npy: is no table of numbers"),
        ("X.txt", b"1", r"X.txt: expected a \.npy or a \.csv file"),
        ("missing.csv", None, "missing.csv: cannot be read: No such file"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    (tmp_path / "y.csv").write_text("1\n2\n")
    with pytest.raises(InputError, match=message):
        load_problem(tmp_path / name, tmp_path / "y.csv")


def test_pickles_are_refused(tmp_path):
    np.save(tmp_path / "X.npy", np.array([{"a": 1}]), allow_pickle=True)
    (tmp_path / "y.csv").write_text("1\n2\n")
    with pytest.raises(InputError, match="is no table of numbers"):
        load_problem(tmp_path / "X.npy", tmp_path / "y.csv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 41}, "k is 41: there are 40 weights"),
        ({"strengths": [-1.0]}, "lambda is -1"),
        ({"step": 10.0}, "gradient-descent diverges with step size 10"),
        ({"step": -1.0}, "step size is -1"),
    ],
)
def test_parameters_that_do_not_fit_leave_no_results(tmp_path, options, message):
    x, y = own_problem(tmp_path)
    with pytest.raises(InputError, match=message):
        study_own(x, y, tmp_path / "out", **{**OPTIONS, **options})
    assert not list((tmp_path / "out").glob("*"))


# the commands


def test_the_command_prints_json_and_needs_both_files(tmp_path, call, monkeypatch):
    # figures are looked at above; drawing them again is most of the work
    monkeypatch.setattr("modelpress.toolkit.commands.study.sparse_regression.save_figure", lambda *_: [])
    code, out, err = call("study", "sparse-regression", "-o", tmp_path / "out", "--json")
    assert code == 0, err
    assert json.loads(out)["kind"] == "sparse-regression-study"
    x, y = own_problem(tmp_path)
    out_own = tmp_path / "own"
    options = ["--lambda", "5", "--lambda", "20", "--k", "4", "--steps", "100"]
    code, out, err = call("study", "sparse-regression", "--X", x, "--y", y, "-o", out_own, *options, "--json")
    assert code == 0, err
    assert len(json.loads(out)["rows"]) == 2 + 4 * 2
    assert {row["steps"] for row in json.loads(out)["rows"]} == {100}


@pytest.mark.parametrize(
    "case",
    [
        (["--X", "X.npy"], "--X and --y belong together", 2),
        (["--lambda", "1"], "are for your own problem: give --X and --y", 2),
        (["--X", "X.npy", "--y", "missing.npy"], "missing.npy: cannot be read", 1),
        (["--X", "X.npy", "--y", "y.npy", "--step", "9"], "diverges with step size 9", 1),
        (["--X", "X.npy", "--y", "y.npy", "--k", "41"], "k is 41", 1),
        (["--X", "X.npy", "--y", "y.npy", "--lambda", "-1"], "lambda is -1", 1),
    ],
)
def test_bad_options_are_one_line(tmp_path, monkeypatch, call, case):
    options, message, expected = case
    own_problem(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, _, err = call("study", "sparse-regression", "-o", "out", *options)
    assert code == expected
    assert message in one_line(err)
    assert not list((tmp_path / "out").glob("*"))


def test_the_speed_command_writes_what_it_measured(tmp_path, call):
    path = tmp_path / "speed.json"
    small = ["--samples", 40, "--features", 100, "--rounds", 1, "--lambda", 0.2]
    code, out, err = call("study", "lasso-speed", *small, "-o", path, "--json")
    assert code == 0, err
    assert json.loads(out) == json.loads(path.read_text())
    assert "times as fast" in err
    code, _, err = call("study", "lasso-speed", *small, "-o", path)
    assert code == 1
    assert "pass --overwrite" in one_line(err)
