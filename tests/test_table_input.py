"""Tables of results that were made anywhere: the same numbers as from runs, and as scipy's; refusals in one line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_runs import make_study

from cawalib.results import METRICS, ComparisonError, compare, tidy
from cawalib.results.__main__ import main
from cawalib.runs import ARCHIVE, load_runs, load_study

TABLE = """method,seed,mIoU,ece,state
cross entropy,0,0.412,0.081,finished
cross entropy,1,0.405,0.079,finished
cross entropy,2,0.420,0.090,finished
ours,0,0.431,0.066,finished
ours,1,0.428,0.070,finished
ours,2,0.440,0.075,finished
"""


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text(TABLE)
    return path


def test_the_same_from_runs_and_from_a_table_of_them(tmp_path):
    runs = make_study(tmp_path, labels=("cross entropy", "inverse square root", "CAWA"))
    expected = compare(runs, "cross entropy", "test")
    wide = tidy(runs).query("split == 'test'").pivot(index=["label", "seed"], columns="metric", values="value")
    wide = wide[expected["metric"].unique()].loc[expected["label"].unique()]
    frame = wide.reset_index().rename(columns={"label": "method"})
    pd.testing.assert_frame_equal(compare(frame, baseline="cross entropy"), expected)
    pd.testing.assert_frame_equal(compare(wide, baseline="cross entropy"), expected)  # names in the index
    frame.to_csv(tmp_path / "results.csv")
    pd.testing.assert_frame_equal(compare(tmp_path / "results.csv", baseline="cross entropy"), expected)
    shuffled = frame.sample(frac=1, random_state=0)
    found = compare(shuffled, "cross entropy").set_index(["label", "metric"]).loc[
        pd.MultiIndex.from_frame(expected[["label", "metric"]])].reset_index()
    pd.testing.assert_frame_equal(found, expected)


def test_numbers_agree_with_scipy(csv):
    table = compare(str(csv), "cross entropy", lower_is_better=("ECE",)).set_index(["label", "metric"])
    assert list(table.index) == [(label, metric) for label in ("cross entropy", "ours") for metric in ("mIoU", "ece")]
    columns = {"mIoU": ([.412, .405, .420], [.431, .428, .440]), "ece": ([.081, .079, .090], [.066, .070, .075])}
    for metric, (plain, ours) in columns.items():
        row, paired = table.loc["ours", metric], stats.ttest_rel(ours, plain)
        assert (row["low"], row["high"]) == pytest.approx(tuple(paired.confidence_interval()))
        assert row["difference"] == pytest.approx(np.mean(ours) - np.mean(plain))
        assert (row["mean"], row["deviation"]) == pytest.approx((np.mean(ours), stats.tstd(ours)))
        assert (row["seeds"], row["pairs"]) == (3, 3)
        assert row["verdict"] == ("better" if paired.pvalue < 0.05 else "inside the noise")
    assert table.loc["ours", "ece"]["difference"] < 0 and table.loc["ours", "ece"]["verdict"] == "better"
    assert compare(csv, "cross entropy")["verdict"].tolist() == ["baseline", "baseline", "better", "worse"]


def test_a_split_is_chosen_and_pairs_are_shared(csv):
    frame = pd.read_csv(csv)
    both = pd.concat([frame.assign(Split="test"), frame.assign(Split="val", mIoU=frame["mIoU"] + 0.1)])
    both = both.rename(columns={"seed": "Seed", "method": "Method"})
    pd.testing.assert_frame_equal(compare(both, "ours"), compare(csv, "ours"))
    assert compare(both, "ours", "val", "miou")["mean"].tolist() == pytest.approx([0.1 + 1.237 / 3, 0.1 + 1.299 / 3])
    few = compare(frame.drop(index=3), "cross entropy", shared_seeds=True).set_index(["label", "metric"])
    assert few.loc["ours", "mIoU"]["pairs"] == 2


def test_a_method_called_none_and_seeds_of_any_kind(csv):
    csv.write_text(TABLE.replace("cross entropy,", "None, fold ").replace("ours,", "ours,fold "))
    assert compare(csv, "None", metrics="mIoU")["label"].tolist() == ["None", "ours"]
    frame = pd.DataFrame({"method": [1, 1, 2, 2], "seed": [0, 1.0, "0", "1"], "x": [1, 2, 4, 4]})
    assert compare(frame, "1")["difference"].tolist() == [0, 2.5]


@pytest.mark.parametrize("change", [
    lambda text: "\ufeff" + text,  # as spreadsheets begin a file
    lambda text: text.replace("ours,", "ours ,").replace("0.4", " 0.4"),
    lambda text: text.replace(",", ", ").replace(", finished", ', "finished"').replace("0.081", '"0.081"'),
])
def test_files_as_other_programs_write_them(csv, change):
    expected = compare(csv, "cross entropy")
    csv.write_text(change(TABLE), encoding="utf-8")
    pd.testing.assert_frame_equal(compare(csv, "cross entropy"), expected)


def test_truth_values_are_no_metric(csv):
    frame = pd.read_csv(csv).assign(converged=[True, False] * 3)
    assert compare(frame, "ours")["metric"].unique().tolist() == ["mIoU", "ece"]


def test_a_published_table_gives_what_its_runs_give():
    folder = Path("outputs/reference/demo")
    runs = load_runs(load_study("workflow/grids/demo.yaml"), archive=folder / ARCHIVE, allow_other_code=True)
    expected = compare(runs, "cross entropy", metrics=METRICS).set_index(["label", "metric"])
    found = compare(folder / "runs.csv", "cross entropy", metrics=METRICS).set_index(["label", "metric"])
    pd.testing.assert_frame_equal(found.loc[expected.index], expected, atol=2e-5)  # that file has five decimals


@pytest.mark.parametrize("change, message", [
    (lambda text: text.replace("method,", "Name,"),
     "results.csv: no column 'method'; found Name, seed, mIoU, ece, state; rename the one that says what is compared"),
    (lambda text: text.replace("method,", "methods,"), "no column 'method'; did you mean 'methods'?"),
    (lambda text: text.replace(",seed,", ",run,"), "no column 'seed'; found method, run, .* which rows are a pair"),
    (lambda text: text.replace(",", ";"), "no column 'method'; .*found method;seed;.*; expected commas between"),
    (lambda text: text.replace("ours,1", "ours,0"), "'ours': seed 0 is there 2 times, expected once"),
    (lambda text: text.replace("ours,1", "ours,4"), "'ours': lacks seed 1, which baseline 'cross entropy' has"),
    (lambda text: text.replace("ours,1", "ours,"), "results.csv: row 5 has nothing in column 'seed'"),
    (lambda text: text.replace("ours,1", ",1"), "results.csv: row 5 has nothing in column 'method'"),
    (lambda text: text.replace("0.428", "NaN"), "metric 'mIoU' of 'ours', seed 1: found NaN, expected a number"),
    (lambda text: text.replace("0.428", ""), "metric 'mIoU' of 'ours', seed 1: found nothing, expected a number"),
    (lambda text: text.replace("0.428", "inf"), "metric 'mIoU' of 'ours', seed 1: found inf, expected a number"),
    (lambda text: text.replace("0.428", "n/a"), "found n/a, expected a number; leave the row out, or choose by 'met"),
    (lambda text: text.splitlines()[0], "results.csv: no rows, expected one for each method and seed"),
    (lambda text: "", "results.csv: cannot be read as CSV .No columns to parse"),
    (lambda text: text.replace("finished", "finished,,"), "results.csv: rows have more cells than its first line"),
    (lambda text: text.replace("cross entropy", "crossentropy"),
     "baseline 'cross entropy': nothing has this name; did you mean 'crossentropy'. there are crossentropy, ours"),
    (lambda text: "\n".join(line for line in text.splitlines() if ",1," not in line and ",2," not in line),
     "'cross entropy': found one seed, 0; expected two, for an interval"),
    (lambda text: text.split("ours")[0], "'cross entropy' is the only method"),
    (lambda text: "method,seed,state\na,0,done", "no column of numbers besides 'seed'; found method, seed, state"),
])
def test_refusals_say_what_is_wrong(csv, change, message):
    csv.write_text(change(TABLE))
    with pytest.raises(ComparisonError, match=message) as refusal:
        compare(csv, "cross entropy")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("asked, message", [
    ({"metrics": ["mIuo"]}, "metric 'mIuo': unknown; did you mean 'mIoU'. expected one of mIoU, ece, state"),
    ({"metrics": ["state"]}, "metric 'state' of 'cross entropy', seed 0: found finished, expected a number"),
    ({"lower_is_better": ["loss"]}, "metric 'loss': unknown; expected one of mIoU, ece"),
    ({"split": "val"}, "no column 'split' to look for 'val' in"),
    ({"point": "balanced"}, "point: found 'balanced', which has no effect with a table"),
    ({"differing": ("lr",)}, "differing: found 'lr', which is no setting .*; did you mean 'learning_rate'"),
])
def test_refused_arguments(csv, asked, message):
    with pytest.raises(ComparisonError, match=message):
        compare(csv, "cross entropy", **asked)


def test_columns_named_as_settings_are_what_was_the_same(csv, capsys):
    frame = pd.read_csv(csv)
    alike = compare(frame.assign(Epochs=40, network="unet"), "ours")
    pd.testing.assert_frame_equal(alike, compare(frame, "ours"))
    other = frame.assign(epochs=[10] * 3 + [40] * 3, dataset=["camvid"] * 5 + ["streets"])
    with pytest.raises(ComparisonError, match="mixed dataset: 'camvid' in 'cross entropy', seed 0, but 'streets' in "
                       r"'ours', seed 2; keep rows that are alike, or allow it by differing=\('dataset', 'epochs'\)"):
        compare(other, "ours")
    with pytest.raises(ComparisonError, match="mixed epochs: 10 in 'cross entropy', seed 0, but 40 in 'ours', seed 0"):
        compare(other, "ours", differing="dataset")
    with pytest.raises(ComparisonError, match="mixed learning_rate: 0.003 in 'cross entropy', seed 0, but 0.001 in"):
        compare(frame.assign(learning_rate=[0.003] * 3 + [0.001] * 3), "ours")
    other.drop(columns="dataset").to_csv(csv, index=False)
    listed = compare(csv, "ours", differing="epochs")
    assert listed.attrs["notes"] == ["epochs differs: 10 in 'cross entropy'; 40 in 'ours'"]
    pd.testing.assert_frame_equal(listed, alike)
    assert main([str(csv), "--baseline", "ours", "--differing", "epochs"]) == 0
    assert capsys.readouterr().out.endswith("\nepochs differs: 10 in 'cross entropy'; 40 in 'ours'.\n")


def test_files_and_frames_that_are_no_tables(tmp_path, csv):
    for path in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(ComparisonError, match=f"{path}: cannot be read as CSV"):
            compare(str(path), "ours")
    (tmp_path / "sheet.xlsx").write_bytes(bytes(range(255, 0, -1)))
    with pytest.raises(ComparisonError, match="sheet.xlsx: cannot be read as CSV"):
        compare(tmp_path / "sheet.xlsx", "ours")
    frame = pd.read_csv(csv)
    with pytest.raises(ComparisonError, match="table: column 'mIoU' is there more than once"):
        compare(frame.rename(columns={"ece": "mIoU"}), "ours")
    with pytest.raises(ComparisonError, match="table: split 'test': no row has it in column 'split'; there are val"):
        compare(frame.assign(split="val"), "ours")
    with pytest.raises(ComparisonError, match="table: no column 'method'; found none"):
        compare(pd.DataFrame(), "ours")


def test_command_line(csv, capsys):
    assert main([str(csv), "--baseline", "cross entropy", "--lower-is-better", "ece"]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert cells[0][:4] == ["label", "metric", "seeds", "mean"] and len(cells) == 6
    assert cells[-1][:4] == ["ours", "ece", "3", "0.07033"] and cells[-1][-1] == "better"
    assert lines[-1].startswith("difference: from 'cross entropy'")
    assert lines[-1].endswith("Larger is better, but for ece.")
    assert main([str(csv), "--baseline", "crossentropy"]) == 1
    assert capsys.readouterr().err.startswith("cawalib.results: error: baseline 'crossentropy': nothing has this name")
