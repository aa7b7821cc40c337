"""Which runs the reading notebooks take, and which they refuse, by name."""

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import edit, make_run, raise_version

from cawalib.results import ReportConfig, publish, report
from cawalib.results.side_by_side import side_by_side
from cawalib.results.verdicts import at_equal_accuracy
from cawalib.runs import ARCHIVE, RunConfig, RunError, load_run, load_runs, load_study, read_archive
from cawalib.settings import ConfigError
from cawalib.training import train

GRID = """
common: {smoke: true, epochs: 1, image_height: 32, image_width: 32, device: cpu, data_root: DATA}
seeds: [0]
groups:
  methods:
    plain: {method: none}
    ours: {method: cawa}
  ablations:
    tau: {method: cawa, pseudo_mask_threshold: 0.3}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A repository with one study, all of its runs trained."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("workflow/grids").mkdir(parents=True)
        Path("workflow/grids/tiny.yaml").write_text(GRID.replace("DATA", str(folder / "data")))
        for _, config in load_study("workflow/grids/tiny.yaml").configs():
            train(config)
    return folder


@pytest.fixture
def study(trained, tmp_path, monkeypatch):
    """A copy of it, to do anything with."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return load_study("workflow/grids/tiny.yaml")


def read_section(path, name):
    """A table of a published page, as text."""
    text = Path(path).read_text().split(f"## {name}\n\n")[1].split("\n## ")[0]
    rows = [[cell.strip().replace("\\*", "*") for cell in line.strip("|").split("|")] for line in text.split("\n")
            if line.startswith("|") and not line.startswith("|:")]
    return pd.DataFrame(rows[1:], columns=rows[0])


def test_what_is_read_and_refused(study, monkeypatch):
    ask = {"study": "tiny", "baseline": "plain", "allow_smoke": True}
    found = ReportConfig(**ask).load(groups=["methods"])
    assert [run.label for run in found] == ["plain", "ours"]
    assert [run.label for run in ReportConfig(**ask).load(groups=["ablations"], labels=["ours"])] == ["ours", "tau"]
    with pytest.raises(ConfigError, match="parameter 'baseline': found 'plane'; did you mean 'plain'.*of plain, ours$"):
        ReportConfig(**ask | {"baseline": "plane"})
    with pytest.raises(ConfigError, match="parameter 'baseline': found 'plain'; expected one of ours$"):
        ReportConfig(**ask).first_of_each(found[1:])  # unfinished runs may be left out
    assert ReportConfig(**ask).ours(found) == "ours"
    with pytest.raises(ConfigError, match="parameter 'group': .*study 'tiny' has no run of method cawa"):
        ReportConfig(**ask).ours(found[:1])
    with pytest.raises(RunError, match="'plain', seed 0: .* is a smoke run"):
        ReportConfig(study="tiny").load(groups=["methods"])

    folder = found[1].folder
    with monkeypatch.context() as patch:
        raise_version(patch, "method cawa")
        with pytest.raises(RunError, match="'ours', seed 0: .* computed something else .method cawa.; train again"):
            ReportConfig(**ask).load(groups=["methods"])
        assert len(ReportConfig(**ask, allow_other_code=True).load(groups=["methods"])) == 2

    (folder / "metrics.json").rename(folder / "kept")
    with pytest.raises(RunError, match="'ours', seed 0: .*not finished"):
        ReportConfig(**ask).load(groups=["methods"])
    assert [run.label for run in ReportConfig(**ask, allow_unfinished=True).load(groups=["methods"])] == ["plain"]
    (folder / "kept").rename(folder / "metrics.json")


def test_published_runs_stand_in_for_missing_ones(study, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(publish, "load_runs", lambda *asked, **named: load_runs(*asked, **named, allow_smoke=True))
    with pytest.raises(RunError, match="main.md: not found; draw"):
        publish.publish(study, "outputs/reference/tiny")
    for kind, name in (("tables", "main.md"), ("figures", "qualitative.png")):
        Path("outputs", kind, "tiny").mkdir(parents=True)
        Path("outputs", kind, "tiny", name).write_text("drawn")
    publish.publish(study, "outputs/reference/tiny")
    published = {path.name for path in Path("outputs/reference/tiny").rglob("*") if path.is_file()}
    assert published == {ARCHIVE, "methods.md", "qualitative.png", "README.md", "runs.csv"}
    archived = read_archive(Path("outputs/reference/tiny", ARCHIVE))
    pictures = [run.config.method for run in archived.values() if run.has_samples]
    assert sorted(pictures) == ["cawa", "none"]  # the baseline's and CAWA's, not the ablation's
    with gzip.open(Path("outputs/reference/tiny", ARCHIVE), "rt") as file:
        assert str(tmp_path.parent) not in file.read()  # no path of this machine
    Path("outputs/runs").rename("gone")
    ask = {"study": "tiny", "allow_smoke": True}
    found = ReportConfig(**ask).load(groups=["methods"])
    assert len(found) == 2 and "reference" in str(found[0].folder)
    assert "Showing the published runs in outputs/reference/tiny" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        raise_version(patch, "method cawa")
        assert len(ReportConfig(**ask).load(groups=["methods"])) == 2
        assert "1 of these 2 runs would come out differently with today's code: method cawa" in capsys.readouterr().out
    with pytest.raises(RunError, match="'plain', seed 0: run folder .* not found"):
        ReportConfig(**ask, runs_from="outputs").load(groups=["methods"])


def test_an_unfinished_study_is_published_as_such_and_comes_back(study, monkeypatch):
    monkeypatch.setattr(publish, "load_runs", lambda *asked, **named: load_runs(*asked, **named, allow_smoke=True))
    (_, plain), (_, ours), (_, tau) = study.configs()
    before = load_run(ours.folder).metrics
    tau.folder.joinpath("metrics.json").unlink()
    publish.publish(study, "kept", unfinished=True)
    page = Path("kept/README.md").read_text()
    assert "- methods: 2 runs; dataset `streets`" in page
    assert "- ablations: **0 of 1 runs**" in page
    table = pd.read_csv("kept/runs.csv")
    assert table[["label", "split"]].values.tolist() == [
        ["ours", "test"], ["ours", "val"], ["plain", "test"], ["plain", "val"]]
    measured = before["splits"]["val"]
    assert table.loc[1, "mIoU"] == pytest.approx(measured["miou"], abs=1e-5)
    assert table.loc[1, "head mIoU (pixels)"] == pytest.approx(measured["group_miou"]["pixels"]["head"], abs=1e-5)
    archive = Path("kept", ARCHIVE)
    lines = pd.read_json(archive, lines=True, precise_float=True)  # as anybody would read it
    assert [dict(line)["method"] for line in lines["config"]] == ["cawa", "none"]
    assert lines.loc[0, "metrics"]["splits"]["val"] == measured

    shutil.rmtree(ours.folder)
    with monkeypatch.context() as patch:
        raise_version(patch, "method cawa")
        assert publish.restore(study, archive) == 0 and not ours.folder.exists()
    assert publish.restore(study, archive) == 1  # plain is still there, tau was not published
    assert load_run(ours.folder).metrics == before
    made = json.loads((ours.folder / "environment.json").read_text())
    edit(ours.folder / "environment.json", behaviour={"every run": 0})
    assert publish.restore(study, archive) == 1  # a stale one makes room
    assert json.loads((ours.folder / "environment.json").read_text()) == made
    assert (ours.folder.with_name("seed0.old1") / "metrics.json").is_file()
    assert [run.label for run in load_runs(study, groups=["methods"], allow_smoke=True)] == ["plain", "ours"]
    assert not tau.folder.joinpath("metrics.json").exists()
    shutil.rmtree("outputs/runs")
    assert {entry.group for entry in study.whole_in(archive).entries} == {"methods"}
    kept = {path: path.read_bytes() for path in Path("kept").rglob("*") if path.is_file()}
    for path in (Path("kept/README.md"), Path("kept/runs.csv")):
        path.unlink()
    with monkeypatch.context() as patch:  # whatever the code computes today
        raise_version(patch, "method cawa")
        publish.publish(study, "kept", unfinished=True, published=True)
    assert {path: path.read_bytes() for path in Path("kept").rglob("*") if path.is_file()} == kept
    with pytest.raises(RunError, match="study 'tiny': not one run is finished"):
        publish.publish(study, "kept", unfinished=True)


def test_single_labels_are_those_of_the_group(study):
    path = Path("workflow/grids/tiny.yaml")
    path.write_text(path.read_text() + "  others:\n    ours: {method: focal}\n")
    found = ReportConfig(study="tiny", allow_smoke=True).load(groups=["ablations"], labels=["ours"])
    assert [(run.label, run.config.method) for run in found] == [("ours", "cawa"), ("tau", "cawa")]
    with pytest.raises(ConfigError, match="label 'hers': not in group 'methods' of study 'tiny', which has plain, "):
        ReportConfig(study="tiny").load(labels=["hers"])


def test_grid_table(study):
    table = ReportConfig(study="tiny").grid("methods")
    assert table["changed"].to_dict() == {"plain": "method = none", "ours": "method = cawa"}


def test_refused_parameters(study):
    with pytest.raises(ConfigError, match="parameter 'study': found 'demoo', expected one of tiny"):
        ReportConfig(study="demoo")
    with pytest.raises(ConfigError, match="'tiny' has no group 'losses', only methods, ablations"):
        ReportConfig(study="tiny").grid("losses")
    with pytest.raises(ConfigError, match="parameter 'split'"):
        ReportConfig(study="tiny", split="train")
    assert report.ReportConfig(study="tiny").figures == Path("outputs/figures/tiny")


def test_config_of_another_run_in_the_folder(study):
    config = RunConfig(smoke=True, epochs=1, image_height=32, image_width=32, device="cpu", method="none",
                       data_root=study.entries[0].settings["data_root"])
    edit(config.folder / "config.json", epochs=7)
    with pytest.raises(RunError, match="holds another configuration .'epochs' is 7 there, 1 here"):
        train(config)


GROUPS = """
common: {dataset: cityscapes, batch_size: 4}
split: val
seeds: [0, 1]
some: &some
  cross entropy: {method: none}
  ours: {method: cawa}
groups:
  Net+ A: {<<: *some, common: {epochs: 3}, target: {miou: 0.45, source: somebody}}
  Net B: {<<: *some, common: {epochs: 4}}
"""


def test_groups_with_a_target_of_their_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("workflow/grids").mkdir(parents=True)
    Path("workflow/grids/big.yaml").write_text(GROUPS)
    study = load_study("workflow/grids/big.yaml")
    for entry, config in study.configs():
        iou = np.full(5, 0.4 if entry.group == "Net+ A" else 0.6) + 0.1 * (config.seed - 0.5) + 0.2 * (
            config.method == "cawa")
        made = make_run("outputs", seed=config.seed, iou=iou, splits=("val",),
                        **entry.settings)
        edit(made.folder / "environment.json", device="CPU, 1 thread", commit="c" * 40, python="3.11", packages={},
             duration_seconds=60, peak_memory_bytes=2**30)

    ask = {"study": "big", "split": "val", "runs_from": "outputs"}
    first, second = ReportConfig(**ask, group="Net+ A"), ReportConfig(**ask, group="Net B")
    assert (first.tables, second.figures) == (Path("outputs/tables/big/net--a"), Path("outputs/figures/big/net-b"))
    assert {run.config.epochs for run in second.load(groups=["Net B"])} == {4}
    first.target(first.load(groups=["Net+ A"]), "cross entropy")
    said = capsys.readouterr().out
    assert "cross entropy: 40.0 mIoU on val, mean of 2; target 45.0 (somebody): not reached" in said
    second.target(second.load(groups=["Net B"]), "cross entropy")
    assert capsys.readouterr().out == ""  # no number is known there
    with pytest.raises(ConfigError, match="'big' has no group 'methods', only Net. A, Net B"):
        ReportConfig(**ask).grid("methods")

    with pytest.raises(RunError, match="net--a/main.md: not found; draw the study's figures and tables first"):
        publish.publish(study, "target")
    for one, text in ((first, "of the first"), (second, "of the second")):
        for folder, name in ((one.tables, "main.md"), (one.figures, "training_curves.png")):
            folder.mkdir(parents=True)
            (folder / name).write_text(text)
    (second.figures / "qualitative.png").write_text("an image of the data")
    publish.publish(study, "target")
    page = Path("target/README.md").read_text()
    assert page.index("- Net+ A: 4 runs") < page.index("- Net B: 4 runs") and "[Tables](tables/net-b.md)" in page
    assert "## main\n\nof the second" in Path("target/tables/net-b.md").read_text()
    summary = read_section("target/tables/across.md", "miou_minus_cross_entropy")
    assert summary.values.tolist() == [["cross entropy", "40.0 ± 7.1", "60.0 ± 7.1"],
                                       ["ours", *["+20.0 [+20.0, +20.0]*"] * 2]]
    assert "minus_inverse_square_root" not in Path("target/tables/across.md").read_text()  # no group has that
    assert Path("target/figures/net-b/training_curves.png").read_text() == "of the second"
    assert not Path("target/figures/net-b/qualitative.png").exists()


CONTROLS = """
common: {dataset: camvid}
seeds: [0, 1]
labels: &labels
  cross entropy: {method: none}
  CAWA: {method: cawa}
  CAWA + Dice: {method: cawa_dice}
controls: &controls
  CAWA, shuffled: {method: cawa, score_source: shuffled}
groups:
  methods: *labels
  ablations:
    <<: *controls
    tau 0.3: {method: cawa, pseudo_mask_threshold: 0.3}
  smaller: {<<: [*controls, *labels], common: {image_width: 64}}
  empty: {<<: *labels, common: {image_width: 96}}
  more of the first: {<<: *labels}
"""


def test_only_whole_groups_stand_side_by_side(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("workflow/grids").mkdir(parents=True)
    Path("workflow/grids/control.yaml").write_text(CONTROLS)
    study = load_study("workflow/grids/control.yaml")
    made = {(entry.group, entry.label, config.seed):
            replace(make_run("outputs", entry.label, config.seed, **entry.settings), group=entry.group)
            for entry, config in study.configs() if entry.group != "more of the first"}

    def beside(*lacking):
        found = side_by_side(study, [run for key, run in made.items() if key not in lacking])
        return found and (found.groups, found.baselines)

    assert beside() == (["camvid", "smaller", "empty"], ("cross entropy", "CAWA"))
    assert beside(("empty", "CAWA", 1)) == (["camvid", "smaller"], ("cross entropy", "CAWA"))  # one seed of two
    assert beside(("empty", "CAWA", 1), ("smaller", "CAWA", 0)) is None
    shared = {run.label for run in side_by_side(study, list(made.values())).runs if run.group == "camvid"}
    assert shared == {"cross entropy", "CAWA", "CAWA + Dice", "CAWA, shuffled"}  # tau 0.3 is of the ablations alone
    study = replace(study, entries=tuple(entry for entry in study.entries if entry.label != "CAWA"
                                         or entry.group not in ("smaller", "empty")))
    assert beside()[1] == ("cross entropy",)  # what not all of them have is no baseline


def test_controls_among_the_ablations_stand_beside_those_of_other_groups(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("workflow/grids").mkdir(parents=True)
    Path("workflow/grids/control.yaml").write_text(CONTROLS)
    study = load_study("workflow/grids/control.yaml")
    for entry, config in study.configs():
        if entry.group != "empty":
            levels = {"cross entropy": 0.3, "CAWA": 0.5, "CAWA + Dice": 0.6, "CAWA, shuffled": 0.2, "tau 0.3": 0.4}
            level = levels[entry.label]
            made = make_run("outputs", seed=config.seed, iou=np.full(5, level),
                            **entry.settings)
            edit(made.folder / "environment.json", device="CPU, 1 thread", commit="c" * 40, python="3.11", packages={},
                 duration_seconds=60, peak_memory_bytes=2**30)
    publish.publish(study, "target", unfinished=True)
    table = read_section("target/tables/across.md", "miou_minus_cawa").set_index("method")
    assert table.columns.tolist() == ["camvid", "smaller"]  # not what lacks its runs or repeats a group
    assert table.loc["CAWA, shuffled"].tolist() == ["−30.0 [−30.0, −30.0]*"] * 2 and "tau 0.3" not in table.index
    verdicts = read_section("target/tables/across.md", "verdicts").set_index("method")
    assert verdicts.loc["CAWA", "mIoU against cross entropy"] == "2 / 0 / 0"
    assert verdicts.loc["CAWA, shuffled", "mIoU against CAWA"] == "0 / 0 / 2"
    variants = read_section("target/tables/across.md", "variants").set_index(["metric", "method"])
    assert variants.loc[("tail mIoU (pixels)", "CAWA, shuffled"), "smaller"] == "−30.0 [−30.0, −30.0]*"
    assert set(variants.index.get_level_values("method")) == {"CAWA", "CAWA + Dice", "CAWA, shuffled"}
    assert Path("target/figures/across_groups.png").is_file()
    smaller = [run for run in load_runs(study, allow_unfinished=True) if run.group == "smaller"]
    for metric in ("mIoU", "tail mIoU (pixels)"):
        name = metric.split(" (")[0].replace(" ", "_").lower()
        at_equal = read_section("target/tables/across.md", f"{name}_minus_cawa_at_equal_accuracy").set_index("method")
        assert at_equal.columns.tolist() == ["camvid", "smaller", "together", "better in all"]
        mean = 100 * at_equal_accuracy(smaller, "CAWA, shuffled", "CAWA", "test", metric).mean()
        assert at_equal.at["CAWA, shuffled", "smaller"].split(" ")[0] == f"−{-mean:.1f}"
    archived = read_archive(Path("target", ARCHIVE))
    assert len(archived) == 18 and not any(run.has_samples for run in archived.values())  # each run once, no image
