"""The YAML file of a study, checked wholly when it is read: one line names file, group and entry of what is wrong.

YAML lets pass what a study must not: a key that stands there twice (the second would count), and one that nobody reads.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import yaml

from cawalib.datasets import FILE_DATASETS
from cawalib.runs.config import RunConfig, config_from
from cawalib.runs.studies import Entry, Study, group_folder
from cawalib.settings import ConfigError, likely_meant

KEYS = ("common", "seeds", "split", "groups")
OF_A_GROUP = ("common", "target")  # what stands in a group beside its entries
SETTINGS = tuple(field.name for field in dataclasses.fields(RunConfig))


def load_study(path, **overrides) -> Study:
    """Read a study: `common` settings, `seeds`, and per group a table label -> settings.

    Args:
        path: YAML file, keys `common` (dict), `seeds` (list of int), `groups` (group -> label -> settings);
            a label's settings may hold their own `seeds`. A group may hold its own `common` settings, `seeds` among
            them, and a `target` (see `Study`), a file the `split` to report. Any other key must hold what is used
            elsewhere in the file by its anchor.
        overrides: settings put over every run's, such as `data_root`.

    Raises:
        ConfigError: the file is missing or malformed, or a run's settings are refused.
    """
    path = Path(path)
    where = f"study file {path}"
    table = _read(path, where)
    common = _settings(table["common"], f"{where}: 'common'")
    seeds = _seeds(table["seeds"], f"{where}: 'seeds'")
    split = table.get("split", "test")
    if split not in ("val", "test"):
        raise ConfigError(f"{where}: 'split': found {split!r}, expected val or test")
    entries, targets = [], {}
    for group, labels in _table(table["groups"], f"{where}: 'groups'", "group -> label -> settings").items():
        at = f"{where}: group {group!r}"
        labels = dict(_table(labels, at, "label -> settings"))
        own = _settings(labels.pop("common", None), f"{at}: 'common'", ("seeds",))
        own_seeds = _seeds(own.pop("seeds"), f"{at}: 'common': 'seeds'") if "seeds" in own else seeds
        if "target" in labels:
            targets[group] = _target(labels.pop("target"), f"{at}: 'target'")
        if not labels:
            raise ConfigError(f"{at}: found no entry, expected label -> settings")
        entries += [_entry(label, group, settings, common | own, own_seeds, overrides, at)
                    for label, settings in labels.items()]
    study = Study(path.stem, tuple(entries), split, targets)
    _check_names(study, where)
    _check_runs(study, where)
    return study


# ---------------------------------------------------------------- from text to a table

def _read(path, where):
    """The file as a dict with all keys of a study."""
    if not path.is_file():
        raise ConfigError(f"{where}: not found")
    try:
        text = path.read_text(encoding="utf-8")
        root, table = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: found byte {error.object[error.start]:#04x} at {error.start}, expected UTF-8; "
                          "save it as UTF-8") from None
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        raise ConfigError(f"{where}{_place(error)}: cannot be read as YAML ({_reason(error)})") from None
    used = _walk(root, where)
    for key in _table(table, where, "keys common, seeds, groups"):
        if key not in (*KEYS, *used):
            raise ConfigError(f"{where}: key {key!r}: nothing reads it{_meant(key, KEYS) or ';'} expected "
                              f"{', '.join(KEYS)}, or a part with an anchor (&) that one of them uses")
    missing = [key for key in KEYS if key not in table and key != "split"]
    if missing:
        raise ConfigError(f"{where}: missing {', '.join(missing)}")
    return table


def _place(error):
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}" if mark else ""


def _reason(error):
    return " ".join(str(getattr(error, "problem", None) or error).split())


def _walk(root, where):
    """Look for keys that stand twice in one table; the top-level keys whose parts are used by an alias."""
    first, used = {}, set()
    waiting = [(root, ())] if root else []  # a stack, filled in reverse, so that an anchor is met before its aliases
    while waiting:
        node, path = waiting.pop()
        if id(node) in first:
            used.add(first[id(node)])
            continue
        first[id(node)] = path[0] if path else None
        if isinstance(node, yaml.SequenceNode):
            waiting += [(value, path) for value in reversed(node.value)]
        elif isinstance(node, yaml.MappingNode):
            _check_keys(node, path, where)
            waiting += [(value, (*path, str(key.value))) for key, value in reversed(node.value)]
    return used


def _check_keys(node, path, where):
    lines_of = {}
    for key, _ in node.value:
        lines_of.setdefault((key.tag, str(key.value)), []).append(key.start_mark.line + 1)
    for (_, key), found in lines_of.items():
        if len(found) > 1:
            inside = f" in {' -> '.join(map(repr, path))}" if path else ""
            lines = "line " + " and ".join(map(str, dict.fromkeys(found)))
            hint = ("where both hold the same entry, one of them would go unseen; write << : [*a, *b], of which "
                    "the first counts" if key == "<<" else "and only the last one would count; rename or delete one")
            raise ConfigError(f"{where}, {lines}: {key!r} stands more than once{inside}, {hint}")


# ---------------------------------------------------------------- parts of it

def _table(found, where, expected):
    if not isinstance(found, dict) or not found:
        raise ConfigError(f"{where}: found {_shown(found)}, expected {expected}")
    for key in found:
        if not isinstance(key, str) or not key.strip():
            raise ConfigError(f"{where}: key {key!r}: found {type(key).__name__}, expected a name; put it in quotes")
    return found


def _shown(found):
    return "nothing" if found is None or found == {} else f"{found!r:.60} ({type(found).__name__})"


def _meant(name, known):
    meant = [repr(other) for other in likely_meant(str(name), known)]
    return f"; did you mean {' or '.join(meant)}?" if meant else ""


def _settings(found, where, also=()):
    """Settings of a `common`, which may be none; their names are checked, their values with each run's."""
    found = dict(_table(found, where, "settings, name: value") if found else {})
    for name in found:
        if name not in (*SETTINGS, *also) or name == "seed":
            hint = "; the seeds of runs stand in 'seeds'" if name == "seed" else _meant(name, (*SETTINGS, *also))
            raise ConfigError(f"{where}: unknown parameter {name!r}{hint}")
    return found


def _seeds(found, where):
    if not isinstance(found, list) or not found or any(type(seed) is not int for seed in found):
        raise ConfigError(f"{where}: found {_shown(found)}, expected a list of whole numbers such as [0, 1, 2]")
    for seed in found:
        if found.count(seed) > 1:
            raise ConfigError(f"{where}: found {seed} {found.count(seed)} times, expected each seed once")
    return tuple(found)


def _target(found, where):
    expected = "{miou: 0 to 1, source: whose number it is}"
    right = isinstance(found, dict) and found.keys() == {"miou", "source"} and isinstance(found["source"], str)
    if not right or type(found["miou"]) not in (int, float) or not 0 <= found["miou"] <= 1:
        raise ConfigError(f"{where}: found {_shown(found)}, expected {expected}")
    return found


def _entry(label, group, settings, common, seeds, overrides, where):
    where = f"{where}, entry {label!r}"
    if settings is not None and not isinstance(settings, dict):
        hint = "; the seeds of a group stand in its 'common'" if label == "seeds" else _meant(label, OF_A_GROUP)
        raise ConfigError(f"{where}: found {_shown(settings)}, expected settings such as {{method: cawa}}{hint}")
    settings = _settings(settings, where, ("seeds",))
    seeds = _seeds(settings.pop("seeds"), f"{where}: 'seeds'") if "seeds" in settings else seeds
    settings = common | settings | overrides
    if "method" not in settings:
        raise ConfigError(f"{where}: has no method{_meant(label, OF_A_GROUP) or ';'} expected such as {{method: cawa}}")
    for seed in seeds:  # every run's settings are checked now, before any of them starts
        try:
            config_from(settings | {"seed": seed})
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
    return Entry(label, group, settings, seeds)


# ---------------------------------------------------------------- all of it together

def _check_names(study, where):
    # the ablations are shown beside the methods
    scopes = [study.group(group) + (study.group("ablations") if group == "methods" else []) for group in study.compared]
    for labels in [[entry.label for entry in scope] for scope in scopes]:
        for label in labels:
            if labels.count(label) > 1:
                raise ConfigError(f"{where}: label {label!r} stands in 'methods' and in 'ablations', which are shown "
                                "beside each other; rename one")
    folders = {}
    for group in study.compared:
        other = folders.setdefault(group_folder(group) or "methods", group)
        if other != group:
            raise ConfigError(f"{where}: groups {other!r} and {group!r} make one folder, "
                            f"'{group_folder(group) or group_folder(other)}'; rename one")


def _check_runs(study, where):
    """A study about validation leaves test unread; one about test judges it. Kept weights are those of a run in it."""
    there = {config.name for _, config in study.configs()}
    for entry, config in study.configs():
        files = FILE_DATASETS.get(config.dataset)  # none: streets, which has a test split, or a folder, which may
        has_test = config.val_is_test or files is None or "test" in files.expected
        at = f"{where}: group {entry.group!r}, entry {entry.label!r}"
        if study.split == "val" and has_test and config.evaluate_test:
            raise ConfigError(f"{at}: parameter 'evaluate_test': found True in a study with split val, which leaves "
                            "test unread; set evaluate_test: false in 'common'")
        if study.split == "test" and not (has_test and config.evaluate_test):
            found = "evaluate_test false" if has_test else f"dataset '{config.dataset}', which has no test split,"
            raise ConfigError(f"{at}: found {found} in a study with split test; set split: val")
        if config.keeps_weights and config.replace(score_source="cam").name not in there:
            raise ConfigError(f"{at}: parameter 'score_source': found {config.score_source!r}, which keeps the weights "
                              f"of the same run with 'cam', seed {config.seed}, and the study has none; add it")
