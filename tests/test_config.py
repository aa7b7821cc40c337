"""Settings: one line per mistake, naming the parameter; the hash; studies."""

import dataclasses

import pytest

from cawalib.runs import PLACE_FIELDS, SHARED_FIELDS, RunConfig, config_from, group_folder, load_study
from cawalib.settings import METHODS, ConfigError, MethodConfig

DEFAULTS = {"pseudo_mask_threshold": 0.5, "score_stride": 2, "absent_images": "count", "exclusive_masks": False,
            "score_parts": "iou,dice,precision,recall", "score_momentum": 0.95, "weight_terms": "basic*ratio",
            "update_every": 1, "feedback_images": 8, "cam_kind": "grad_cam", "weight_power": 1.0,
            "frequency_prior": 0.0, "warmup_epochs": 0, "cooldown_epochs": 0, "held_out_share": 0.0, "focal_gamma": 2.0,
            "ohem_threshold": 0.7, "tversky_beta": 0.7, "cross_entropy_share": 0.0, "logit_adjustment_tau": 1.0,
            "logit_variation_sigma": 4.0, "sampling_temperature": 0.01, "line_source": "weights"}


@pytest.mark.parametrize("settings, words", [
    ({"dataset": "street"}, "parameter 'dataset': found 'street'; did you mean 'streets'"),
    ({"method": "cawaa"}, "parameter 'method': found 'cawaa'; did you mean 'cawa'"),
    ({"network": "vgg"}, "parameter 'network': found 'vgg'.*expected one of small"),
    ({"epochs": 0}, "parameter 'epochs': found 0, expected 1 to"),
    ({"epochs": "ten"}, r"parameter 'epochs': found 'ten' \(str\), expected int"),
    ({"epochs": True}, r"parameter 'epochs': found True \(bool\), expected int"),
    ({"learning_rate": -0.1}, "parameter 'learning_rate': found -0.1, expected"),
    ({"learning_rate": float("nan")}, "parameter 'learning_rate': found nan, expected"),
    ({"pseudo_mask_threshold": 1.5}, "parameter 'pseudo_mask_threshold'"),
    ({"dataset": ""}, "parameter 'dataset': found ''; expected one of streets"),
    ({"image_width": 100}, "parameter 'image_width': found 100, expected a multiple of 32"),
    ({"image_height": 100}, "parameter 'image_height': found 100, expected a multiple of 32"),
    ({"network": "pspnet", "batch_size": 1}, "parameter 'batch_size': found 1, expected at least 2"),
    ({"scale_min": 3.0}, "parameter 'scale_min': found 3.0, above scale_max 2.0"),
    ({"score_parts": "iou,f1"}, "parameter 'score_parts': found 'f1'"),
    ({"score_parts": "iou,iou"}, "parameter 'score_parts'.*each part once"),
    ({"method": "none", "score_momentum": 0.5}, "'score_momentum': found 0.5, which has no effect with method 'none'"),
    ({"epochs": 10, "warmup_epochs": 6, "cooldown_epochs": 4}, "'cooldown_epochs': found 4, .* 6 leaves none of 10"),
    ({"epochs": 10, "warmup_epochs": 10}, "'warmup_epochs': found 10, which leaves none of 10 epochs for feedback"),
    ({"focal_gamma": 3.0}, "'focal_gamma'.*no effect with method 'cawa'"),
    ({"dataset": "citiscapes"}, "parameter 'dataset': found 'citiscapes'; did you mean 'cityscapes'"),
    ({"short_side": 512}, "parameter 'short_side': found 512 with evaluation 'resize'.*choose evaluation 'whole'"),
    ({"evaluation": "window"}, "parameter 'evaluation': found 'window'; .*resize, whole, slide"),
    ({"largest_class_share": 0.05}, "parameter 'largest_class_share': found 0.05, expected 0.1 to 1"),
    ({"val_fraction": 0.5}, "'val_fraction'.*no effect with dataset 'streets'"),
    ({"dataset": "folder", "val_fraction": 0.0}, "parameter 'val_fraction': found 0.0, expected 0.001 to 0.9"),
    ({"augment": False, "largest_class_share": 0.5}, "'largest_class_share'.*no effect with augment False"),
    ({"encoder": "resnet50"}, "'encoder'.*no effect with network 'small'"),
    ({"encoder_weights": "imagenet"}, "'encoder_weights'.*no effect with network 'small'"),
    ({"epoch": 3}, "unknown parameter 'epoch'; did you mean 'epochs'"),
    ({"lr": 0.1}, "unknown parameter 'lr'; did you mean 'learning_rate'"),
])
def test_refused(settings, words):
    with pytest.raises(ConfigError, match=words) as caught:
        config_from(settings)
    assert "\n" not in str(caught.value)


def test_hash_is_of_what_is_computed():
    base = RunConfig()
    same = base.replace(seed=5, data_root="/elsewhere", prepared_root="/other", outputs_root="/there", device="cpu",
                        data_workers=3, processes=2)
    assert base.hash == same.hash and base.folder != same.folder
    assert RunConfig(epochs=3).replace(seed=2) == RunConfig(epochs=3, seed=2)
    assert base.name == "streets/cawa/44136fa355/seed0" and same.name == "streets/cawa/44136fa355/seed5"
    changes = {"epochs": 11, "score_source": "prediction", "pseudo_mask_threshold": 0.4, "imbalance": 10,
               "augment": False}
    hashes = {base.replace(**{name: value}).hash for name, value in changes.items()} | {base.hash}
    assert len(hashes) == len(changes) + 1
    assert RunConfig(imbalance=1000).hash == base.hash  # an int where a float is meant
    # a notebook that begins with streets keeps its imbalance when another dataset is named: there it means nothing
    assert RunConfig(dataset="camvid", imbalance=100.0, rare_classes="easy") == RunConfig(dataset="camvid")
    assert base.hash == "44136fa355"  # SHA-256 of "{}": nothing differs from the defaults


def test_defaults_are_those_of_the_method():
    """METHOD.md, sections 2, 3, Feedback and Competitors."""
    found = dataclasses.asdict(RunConfig())
    assert {name: found[name] for name in DEFAULTS} == DEFAULTS
    assert METHODS["inverse_sqrt_dice"] == ("inverse_sqrt", "cross_entropy_and_dice", "uniform")
    assert METHODS["cawa_rare_class_sampling"] == ("cawa", "cross_entropy", "rare_classes")
    assert [name for name in ("cam", "frozen", "permuted", "shuffled") if RunConfig(score_source=name).keeps_weights] \
        == ["frozen", "permuted"]


def test_the_ends_of_a_range_are_in_it():
    low = RunConfig(epochs=1, batch_size=1, score_stride=1, weight_decay=0.0, score_momentum=0.0, held_out_share=0.5)
    assert (low.epochs, low.held_out_share) == (1, 0.5)


def test_what_runs_must_share_to_be_compared():
    theirs = {field.name for field in dataclasses.fields(MethodConfig)} | set(PLACE_FIELDS) | {
        "validate_every", "evaluate_test", "other_decisions", "ranked", "mixed_precision"}
    assert set(SHARED_FIELDS) == {field.name for field in dataclasses.fields(RunConfig)} - theirs


def test_changed_settings_make_the_run_again():
    config = RunConfig(epochs=3, method="focal", focal_gamma=1.0)
    assert config.changed() == {"epochs": 3, "method": "focal", "focal_gamma": 1.0}
    assert RunConfig(**config.changed()) == config


STUDY = """
common: {epochs: 3}
seeds: [0, 1]
groups:
  methods:
    plain: {method: none}
    ours: {method: cawa, seeds: [4]}
"""


def test_study(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(STUDY)
    study = load_study(path, outputs_root="elsewhere")
    found = [(entry.label, config.method, config.seed, config.epochs) for entry, config in study.configs()]
    assert found == [("plain", "none", 0, 3), ("plain", "none", 1, 3), ("ours", "cawa", 4, 3)]
    assert all(str(config.folder).startswith("elsewhere/runs/streets/") for _, config in study.configs())


def test_groups_of_their_own(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(STUDY.replace("groups:", """some: &some
  plain: {method: none}
groups:
  A+ 1:
    <<: *some
    common: {epochs: 7, batch_size: 4, seeds: [5]}
    target: {miou: 0.5, source: somebody}
  ablations:
    other: {method: none, epochs: 4}"""))
    study = load_study(path)
    found = {(entry.group, entry.label): (config.epochs, config.batch_size) for entry, config in study.configs()}
    assert [entry.seeds for entry in study.entries] == [(5,), (0, 1), (0, 1), (4,)]
    assert found["A+ 1", "plain"] == (7, 4) and found["methods", "plain"] == (3, 8)
    assert study.compared == ["A+ 1", "methods"] and study.split == "test"
    assert study.targets == {"A+ 1": {"miou": 0.5, "source": "somebody"}}
    assert group_folder("A+ 1") == "a--1" and group_folder("methods") == ""


PLAIN, OURS = "plain: {method: none}", "ours: {method: cawa, seeds: [4]}"
MALFORMED = {
    # what YAML lets pass
    "label twice": (OURS, "plain: {method: cawa}",
                    "line 6 and 7: 'plain' stands more than once in 'groups' -> 'methods'"),
    "setting twice": ("none}", "none, method: cawa}", "line 6: 'method' stands more than once in .* -> 'plain'"),
    "merged twice": (f"{PLAIN}\n    {OURS}", f"<<: {{{PLAIN}}}\n    <<: {{{OURS}}}",
                     "line 6 and 7: '<<' stands more than once in .* -> 'methods', where both hold the same entry"),
    "key nobody reads": ("seeds: [0, 1]", "seeds: [0, 1]\nspilt: val",
                         "key 'spilt': nothing reads it; did you mean 'split'"),
    "key misspelt": ("seeds: [0, 1]", "sedes: [0, 1]", "key 'sedes': nothing reads it; did you mean 'seeds'"),
    "key missing": ("seeds: [0, 1]", "", ": missing seeds$"),
    # the parts of a file
    "seed twice": ("[0, 1]", "[0, 0]", "'seeds': found 0 2 times, expected each seed once"),
    "no list of seeds": ("[0, 1]", "3", r"'seeds': found 3 \(int\), expected a list of whole numbers"),
    "seeds that are none": ("[4]", "[true]", r"group 'methods', entry 'ours': 'seeds': found \[True\]"),
    "split": ("seeds: [0, 1]", "seeds: [0, 1]\nsplit: foo", "'split': found 'foo', expected val or test"),
    "no groups": (STUDY[STUDY.index("  methods"):], "", "'groups': found nothing, expected group -> label -> settings"),
    "group": (f"{PLAIN}\n    {OURS}", "[plain, ours]",
              r"group 'methods': found \['plain', 'ours'\] \(list\), expected label"),
    "no entry": (f"{PLAIN}\n    {OURS}", "common: {epochs: 4}", "group 'methods': found no entry"),
    "label": ("plain:", "10:", "group 'methods': key 10: found int, expected a name; put it in quotes"),
    "target": (PLAIN, f"target: 0.5\n    {PLAIN}",
               r"group 'methods': 'target': found 0.5 \(float\), expected {miou: 0 to 1"),
    "target in per cent": (PLAIN, f"target: {{miou: 42, source: a}}\n    {PLAIN}", "'target': found {'miou': 42"),
    "one folder": (OURS, f"{OURS}\n  A b: {{{PLAIN}}}\n  a-b: {{{PLAIN}}}",
                   "groups 'A b' and 'a-b' make one folder, 'a-b'"),
    "one name of a rule": (OURS, f"{OURS}\n  Methods: {{{PLAIN}}}", "groups 'methods' and 'Methods' make one folder"),
    "beside each other": (OURS, f"{OURS}\n  ablations: {{{PLAIN}}}", "'plain' stands in 'methods' and in 'ablations'"),
    # entries
    "entry": ("{method: none}", "none", r"group 'methods', entry 'plain': found 'none' \(str\), expected settings"),
    "no method": ("{method: none}", "", "group 'methods', entry 'plain': has no method"),
    "misspelt of a group": (PLAIN, f"commn: {{epochs: 3}}\n    {PLAIN}",
                            "entry 'commn': has no method; did you mean 'common'"),
    "misspelt of a label": ("seeds: [4]", "sedes: [4]",
                            "entry 'ours': unknown parameter 'sedes'; did you mean 'seeds'"),
    "one seed": ("none}", "none, seed: 3}",
                 "entry 'plain': unknown parameter 'seed'; the seeds of runs stand in 'seeds'"),
    "setting": ("epochs: 3", "epoch: 3", "'common': unknown parameter 'epoch'; did you mean 'epochs'"),
    "value": ("method: none", "method: non", "group 'methods', entry 'plain': parameter 'method': found 'non'"),
    # which split is read
    "test read": ("seeds: [0, 1]", "seeds: [0, 1]\nsplit: val",
                  "entry 'plain': parameter 'evaluate_test': found True in a study with split val"),
    "official val": ("{epochs: 3}\nseeds: [0, 1]", "{dataset: ade20k, val_is_test: true}\nseeds: [0]\nsplit: val",
                     "'evaluate_test': found True"),
    "test not judged": ("epochs: 3", "evaluate_test: false", "found evaluate_test false in a study with split test"),
    "test that is not there": ("epochs: 3", "dataset: ade20k",
                               "found dataset 'ade20k', which has no test split, in a study"),
    "weights of no run": ("cawa, seeds: [4]}", "cawa, score_source: frozen, seeds: [4]}",
                          "entry 'ours': parameter 'score_source': found 'frozen', which keeps .* 'cam', seed 4, and"),
    # no YAML
    "syntax": ("[4]}", "[4}", "line 7: cannot be read as YAML"),
    "anchor": ("[4]", "*few", "line 7: cannot be read as YAML .*undefined alias 'few'"),
    "date": ("[4]", "2024-13-45", "cannot be read as YAML .month must be in 1..12"),
    "nothing": (STUDY, "", "grid.yaml: found nothing, expected keys common, seeds, groups"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_study(tmp_path, case):
    found, wrong, words = MALFORMED[case]
    path = tmp_path / "grid.yaml"
    assert STUDY.count(found) == 1
    path.write_text(STUDY.replace(found, wrong))
    with pytest.raises(ConfigError, match=words) as caught:
        load_study(path)
    assert str(caught.value).startswith(f"study file {path}") and "\n" not in str(caught.value)


def test_a_study_that_is_no_text(tmp_path):
    (tmp_path / "grid.yaml").write_bytes(STUDY.encode() + b"# \xe9\n")
    with pytest.raises(ConfigError, match=f"grid.yaml: found byte 0xe9 at {len(STUDY) + 2}, expected UTF-8"):
        load_study(tmp_path / "grid.yaml")
    with pytest.raises(ConfigError, match="nowhere.yaml: not found"):
        load_study(tmp_path / "nowhere.yaml")


def test_a_study_about_validation_leaves_test_unread(tmp_path):
    path = tmp_path / "grid.yaml"
    for common in ("epochs: 3, evaluate_test: false", "dataset: ade20k"):  # the latter has no test split
        path.write_text(STUDY.replace("epochs: 3", common) + "split: val\n")
        assert load_study(path).split == "val"
