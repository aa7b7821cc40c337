"""What several comparisons say together: means over them, the claim, where CAWA's lead grows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW
from synthetic_runs import edit
from test_verdicts import three

from cawalib.results import at_accuracy, curve, figures, forms, publish, regimes
from cawalib.results.statistics import pooled_from
from cawalib.results.verdicts import at_equal_accuracy, verdicts
from cawalib.runs import load_study

TAIL, ACCURACY = "tail mIoU (pixels)", "pixel accuracy"


def asked(*rows):
    """`verdicts` of one comparison, of (first, metric, difference, half of its interval)."""
    return pd.DataFrame([{"hypothesis": "H1", "first": first, "second": "cross entropy", "metric": metric, "seeds": 4,
                          "difference": mean, "low": mean - half, "high": mean + half}
                         for first, metric, mean, half in rows])


def test_means_over_comparisons(tmp_path):
    tables = {str(gain): verdicts(three(tmp_path / str(gain), gain=gain), "test") for gain in (0.1, 0.2, 0.4)}
    table = regimes.pooled_table(tables).set_index(["first", "minus", "metric"])
    row = table.loc["CAWA, rare", "cross entropy", "mIoU"]
    found = [table.set_index(["first", "second", "metric"]).loc["CAWA, rare", "cross entropy", "mIoU"]
             for table in tables.values()]
    # so unlike each other that each counts alike: their plain mean, and Student's interval of the three
    interval = stats.ttest_1samp([one["difference"] for one in found], 0).confidence_interval()
    assert row["mean"] == (f"{100 * np.mean([one['difference'] for one in found]):+.1f} [{100 * interval.low:+.1f}, "
                           f"{100 * interval.high:+.1f}]").replace("-", "−")
    assert row["comparisons"] == "3"
    further = pooled_from([one | {"pairs": 4} for one in map(dict, found)])
    assert row["in a further one"] == f"[{100 * further.predicted_low:+.1f}, {100 * further.predicted_high:+.1f}]" \
        .replace("-", "−")


def test_what_one_comparison_alone_answers_is_not_pooled():
    one, other = asked(("CAWA, rare", TAIL, 0.1, 0.05), ("CAWA, rare", ACCURACY, 0.1, 0.05)), asked(
        ("CAWA, rare", TAIL, 0.2, 0.05))
    assert regimes.pooled_table({"one": one, "other": other})["metric"].tolist() == [TAIL]
    one.loc[0, ["low", "high"]] = np.nan  # a single seed
    assert regimes.pooled_table({"one": one, "other": other}).empty


@pytest.mark.parametrize("tail, accuracy, answer", [
    (0.05, 0.002, "yes"), (0.05, -0.004, "no"), (-0.05, 0.0, "no"), (0.0, 0.0, "not decided"),
    (0.05, 0.0, "yes"), (0.05, -0.009, "no"),
])
def test_the_claim_over_comparisons(tail, accuracy, answer):
    """Three that agree to a tenth of a point: the interval of the mean is some 0.25 points to both sides."""
    tables = {str(shift): asked(("CAWA, balanced", TAIL, tail + shift, 0.001),
                                ("CAWA, balanced", ACCURACY, accuracy + shift, 0.001)) for shift in (-0.001, 0, 0.001)}
    first, line = regimes.claim(tables).splitlines()
    shown = f"{100 * tail:+.1f}".replace("-", "−")
    assert "over 3 comparisons?" in first and line.startswith(f"- balanced: {answer} (tail {shown} [")


def test_a_loss_that_may_be_larger_than_a_point_is_not_decided():
    tables = {str(shift): asked(("CAWA, balanced", TAIL, 0.05, 0.001), ("CAWA, balanced", ACCURACY, shift, 0.001))
              for shift in (-0.02, 0, 0.02)}
    assert "- balanced: not decided (tail +5.0 [" in regimes.claim(tables)
    tables = {str(shift): asked(("CAWA, balanced", TAIL, 0.01 + shift, 0.001), ("CAWA, balanced", ACCURACY, 0.0, 0.001))
              for shift in (-0.03, 0, 0.03)}  # nor is a gain that may be none
    assert "- balanced: not decided (tail +1.0 [" in regimes.claim(tables)


def claimed(**points):
    """`verdicts` of one comparison, of point -> (tail, its verdict, pixel accuracy, its verdict)."""
    rows = [{"first": f"CAWA, {point}", "second": "cross entropy", "metric": metric, "verdict": verdict,
             "difference": value, "low": value - 0.01, "high": value + 0.01}
            for point, told in points.items()
            for metric, value, verdict in ((TAIL, *told[:2]), (ACCURACY, *told[2:]))]
    return pd.DataFrame(rows)


def test_the_claim_in_each_comparison_as_table_and_picture():
    asked = {"one": claimed(rare=(0.3, "better", -0.05, "worse"), balanced=(0.2, "better", -0.001, "level"),
                            accurate=(0.1, "better", 0.04, "not decided")),
             "other": claimed(rare=(0.03, "level", 0.01, "better"), balanced=(0.02, "better", 0.0, "better"),
                              accurate=(-0.2, "worse", 0.05, "better"))}
    leads = skilled((1, 0.3, 0.0, 0.0), (2, 0.3, 0.0, 0.0)).set_axis(["other", "one"])
    for part in ("difference", "low", "high"):
        leads["lead in tail", part] += [0.01, -0.04]
    table = regimes.each_table(asked, leads)
    assert table.to_dict("records") == [
        {"data": "one", "rare": "no", "balanced": "yes", "accurate": "not decided",
         "tail mIoU at accurate": "+10.0 [+9.0, +11.0]", "pixel accuracy at accurate": "+4.0 [+3.0, +5.0]",
         "tail mIoU against inverse square root": "−4.0 [−5.0, −3.0]"},
        {"data": "other", "rare": "not decided", "balanced": "yes", "accurate": "no",
         "tail mIoU at accurate": "−20.0 [−21.0, −19.0]", "pixel accuracy at accurate": "+5.0 [+4.0, +6.0]",
         "tail mIoU against inverse square root": "+1.0 [+0.0, +2.0]"}]
    axes = figures.both_halves(asked, "test").axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}
    assert lines["one"] == [pytest.approx(point) for point in ([-5, 30], [-0.1, 20], [4, 10])]
    marks = [(bars[0].get_marker(), bars[0].get_markerfacecolor() != "white") for bars in axes.containers]
    assert marks == [("o", False), ("D", True), ("s", False)] * 2
    across, up = (bar.get_segments()[0].tolist() for bar in axes.containers[0][2])
    assert across == [pytest.approx([-6, 30]), pytest.approx([-4, 30])]
    assert up == [pytest.approx([-5, 29]), pytest.approx([-5, 31])]


def test_eight_comparisons_have_colours_of_their_own():
    one = claimed(rare=(0.3, "better", -0.05, "worse"), balanced=(0.2, "better", -0.001, "level"),
                  accurate=(0.1, "better", 0.04, "not decided"))
    lines = figures.both_halves({f"data {number}": one for number in range(8)}, "test").axes[0].get_lines()
    assert len({line.get_color() for line in lines if line.get_label().startswith("data ")}) == 8


def test_leads_are_taken_at_equal_accuracy(tmp_path):
    runs = three(tmp_path, seeds=(0, 1, 2))
    own = {(run.label, run.config.seed): run for run in runs}
    by_hand = []
    for seed in (0, 1, 2):
        accuracy = curve(own["cross entropy", seed], "test").at[0.0, ACCURACY]
        ours, counts = (at_accuracy(curve(own[label, seed], "test"), accuracy, "mIoU")[0]
                        for label in ("CAWA", "inverse square root"))
        by_hand.append(ours - counts)
    assert at_equal_accuracy(runs, "CAWA", "inverse square root", "test", "mIoU").tolist() == pytest.approx(by_hand)
    table = regimes.leads_table(regimes.leads_of({"drawn": runs}, "test")).set_index("comparison").loc["drawn"]
    low, high = DescrStatsW(by_hand).tconfint_mean()
    assert table["CAWA minus inverse square root, mIoU"] == (
        f"{100 * np.mean(by_hand):+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]".replace("-", "−"))


def test_easy_against_hard_and_the_order_of_skill(monkeypatch):
    leads = {"streets 100": [0.01, 0.02, 0.03], "streets 100 easy": [0.05, 0.07, 0.06, 0.08]}
    monkeypatch.setattr(regimes, "at_equal_accuracy", lambda runs, *_: pd.Series(leads[runs]))
    text = regimes._dial({name: name for name in leads}, "test")
    low, high = CompareMeans.from_data(leads["streets 100 easy"], leads["streets 100"]).tconfint_diff(usevar="unequal")
    assert text.endswith(f"is +4.5 [{100 * low:+.1f}, {100 * high:+.1f}]: larger.")
    assert regimes._dial({"streets 100": "streets 100"}, "test") == ""


def skilled(*rows):
    """`leads_of` of (epochs, cross entropy's mean IoU, lead, cost)."""
    return pd.DataFrame.from_dict({f"camvid, {epochs} epochs": {
        ("skill", "mean"): skill, ("skill", "seeds"): 3} | {
        (kind, part): value + shift for kind, value in (("lead in mIoU", ahead), ("lead in tail", 0.0), ("cost", cost))
        for part, shift in (("difference", 0), ("low", -0.01), ("high", 0.01))} for epochs, skill, ahead, cost in rows},
        orient="index")


def test_the_order_of_skill():
    leads = skilled((10, 0.2, 0.01, -0.2), (20, 0.3, 0.03, -0.3), (40, 0.4, 0.02, -0.4), (80, 0.9, 0.04, -0.9))
    # by hand: ranks 1 2 3 4 and 1 3 2 4, rho = 1 - 6 * 2 / (4 * 15); of 24 orders 4 are as near and 4 as far from it
    text = regimes._skill(leads)
    assert "over 4 lengths" in text and "is +0.80 (p 0.333), with" in text
    assert text.endswith("as trained, −1.00 (p 0.083).")  # 2 of 24
    assert regimes._skill(leads.iloc[:2]) == ""


def test_lead_and_cost_against_skill_as_a_picture():
    leads = pd.concat([skilled((10, 0.2, 0.01, -0.2), (20, 0.3, 0.03, -0.3)), skilled((7, 0.5, 0.02, 0.1)).rename(
        index={"camvid, 7 epochs": "camvid-strong"})])
    lead, cost = figures.lead_against_skill(leads, regimes.SKILL, "test").axes
    for axes, expected in ((lead, [[20, 1], [30, 3]]), (cost, [[20, -20], [30, -30]])):
        assert [bars.get_label() for bars in axes.containers] == ["trained for so many epochs", "camvid-strong"]
        assert axes.containers[0][0].get_xydata() == pytest.approx(np.array(expected))
        assert {text.get_text(): text.xy for text in axes.texts} == {
            epochs: pytest.approx(place) for epochs, place in zip(("10", "20"), expected, strict=True)}
    assert lead.containers[1][2][0].get_segments()[0] == pytest.approx(np.array([[50, 1], [50, 3]]))


STUDY = """
common: {epochs: 2}
seeds: [0, 1]
groups:
  one:
    common: {batch_size: 4}
    cross entropy: {method: none}
    inverse square root: {method: inverse_sqrt}
    CAWA: {method: cawa}
  two:
    common: {batch_size: 2}
    cross entropy: {method: none}
    CAWA: {method: cawa}
"""


@pytest.mark.long
def test_shorter_trainings_are_no_answers(tmp_path):
    runs = three(tmp_path)
    groups = {"drawn": runs, "camvid, 10 epochs": runs, "camvid, quarter of the images": runs}
    asked = {name: verdicts(runs, "test") for name in groups}
    page = regimes.page_of(groups, asked, regimes.leads_of(groups, "test"), "test")
    each, leads = (page.split(f"## {section}")[1].split("\n## ")[0] for section in ("each", "leads"))
    assert "| drawn" in each and "camvid" not in each
    assert all(f"| {name}" in leads for name in groups)
    assert "| drawn" in page.split("## each_on_val")[1].split("\n## ")[0]


def test_validation_images_are_asked_where_there_are_any(tmp_path):
    groups = {"drawn": three(tmp_path / "one", splits=("val",)), "other": three(tmp_path / "other", splits=("test",))}
    text = regimes._on_validation(groups | {"camvid, 10 epochs": groups["drawn"]})
    expected = regimes.each_table({"drawn": verdicts(groups["drawn"], "val")},
                                  regimes.leads_of({"drawn": groups["drawn"]}, "val"))
    assert text == forms.markdown(expected) and len(expected) == 1
    assert regimes._on_validation({"other": groups["other"]}) == ""


def test_comparisons_stand_by_their_numbers():
    names = ["streets 10", "streets 100", "streets 100 easy", "streets 1000"]
    assert sorted(reversed(names), key=regimes._by_numbers) == names


@pytest.mark.long
def test_only_whole_groups_are_shown(tmp_path, monkeypatch):
    """The page is made from what is published; a group that misses a run has neither a page nor a place in a mean."""
    monkeypatch.chdir(tmp_path)
    Path("workflow/grids").mkdir(parents=True)
    Path("workflow/grids/evidence-streets.yaml").write_text(STUDY)
    study = load_study("workflow/grids/evidence-streets.yaml")
    assert regimes.comparisons() == ({}, "")
    regimes.write("outputs/reference/regimes.md")
    assert not Path("outputs").exists()
    for run in [run for batch in (4, 2) for run in three("outputs", seeds=(0, 1), epochs=2, batch_size=batch)]:
        edit(run.folder / "environment.json", device="CPU, 1 thread", commit="c" * 40, python="3.11", packages={},
             duration_seconds=60, peak_memory_bytes=2**30)
    configs = [config for entry, config in study.configs() if entry.group == "two"]
    folder = configs[-1].folder
    (folder / "metrics.json").rename(folder / "kept")
    publish.publish(study, "outputs/reference/evidence-streets", unfinished=True)
    groups, split = regimes.comparisons()
    assert list(groups) == ["one"] and split == "test" and len(groups["one"]) == 6
    readme = Path("outputs/reference/evidence-streets/README.md").read_text()
    assert "- one: 6 runs" in readme and "- two: **3 of 4 runs**" in readme
    assert set(pd.read_csv("outputs/reference/evidence-streets/runs.csv")["group"]) == {"one"}
    page, drawn = Path("outputs/reference/regimes.md"), Path("outputs/reference/figures/both_halves.png")
    regimes.write(page)
    assert drawn.is_file() and "## leads" in page.read_text() and "## all" not in page.read_text()
    assert "| CAWA                | accurate         | " in page.read_text()

    (folder / "kept").rename(folder / "metrics.json")
    publish.publish(study, "outputs/reference/evidence-streets", unfinished=True)
    assert list(regimes.comparisons()[0]) == ["one", "two"]
    regimes.write(page)
    page = page.read_text()
    assert "## verdict" in page and "over 2 comparisons?" in page and "| CAWA, rare" in page
