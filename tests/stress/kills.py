"""Any process of a study is killed at any moment; the same call again ends with the numbers of one left in peace."""

import signal
import time
from dataclasses import asdict

from ground import OUTCOMES, finish, numbers, processes_of, readable, wait_for_quiet

from cawalib.files import write_json

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def study_in_peace(place, outputs, workers=0):
    """Numbers of every run, and how many seconds the study took."""
    started = time.monotonic()
    code, output = finish(place.snakemake(outputs, workers))
    if code:
        raise SystemExit(f"the study does not end well when it is left in peace:\n{output}")
    return [numbers(run.folder) for run in place.runs(outputs)], time.monotonic() - started


def kill_study(place, folder, tally, random, count, workers, expected, seconds) -> None:
    """`count` kills, each at a moment of its own, of one process or of all that a call of Snakemake has started."""
    part, number, outputs = f"kills, {workers} data workers", 0, folder / "0"
    for kill in range(count):
        process = place.snakemake(outputs, workers)
        time.sleep(float(random.uniform(0, 1.1 * seconds)))
        what = _kill(process, random)
        finish(process)
        quiet = wait_for_quiet(process)
        broken = [found for run in place.runs(outputs) if (found := readable(run.folder))]
        if broken or not quiet:
            tally.add(part, OUTCOMES[2], f"{what}: {broken or 'something it had started went on'}")
        done = all((run.folder / "metrics.json").is_file() for run in place.runs(outputs))
        if done or kill == count - 1:
            kills = kill + 1 - number
            code, output = finish(place.snakemake(outputs, workers))
            found = [numbers(run.folder) for run in place.runs(outputs)]
            for _ in range(kills if found == expected and not code else 0):
                tally.add(part, OUTCOMES[0])
            if found != expected or code:
                tally.add(part, OUTCOMES[2], f"after {kills} kills exit status {code}, other numbers in "
                          f"{sum(a != b for a, b in zip(found, expected, strict=True))} runs: {output[-500:]}")
            number, outputs = kill + 1, folder / str(kill + 1)


def _kill(process, random) -> str:
    """Send a signal to one of the processes that are there, or to all; in words what was done."""
    number = SIGNALS[int(random.integers(len(SIGNALS)))]
    there = processes_of(process)
    if not there:
        return "nothing was left to kill"
    chosen = there if random.random() < 0.2 else [there[int(random.integers(len(there)))]]
    words = []
    for one in chosen:
        try:
            words.append(" ".join(one.cmdline()[1:4]))
            one.send_signal(number)
        except Exception as error:  # noqa: BLE001 - it has ended meanwhile
            words.append(type(error).__name__)
    return f"{number.name} to {len(chosen)} of {len(there)}: {'; '.join(words)[:200]}"


def kill_run(place, folder, tally, random, count, processes) -> None:
    """One run by itself, two processes of it by torchrun: `count` times one of them, or all, are killed."""
    part = f"kills, a run of {processes} process{'es' * (processes > 1)} alone"
    started = time.monotonic()
    finish(_alone(place, folder / "peace", processes))
    seconds, expected = time.monotonic() - started, numbers(place.runs(folder / "peace")[2].folder)
    assert expected is not None, "the run does not end well when it is left in peace"
    for number in range(count):
        outputs = folder / str(number)
        process = _alone(place, outputs, processes)
        time.sleep(float(random.uniform(0, 1.1 * seconds)))
        what = _kill(process, random)
        finish(process)
        quiet = wait_for_quiet(process)
        code, output = finish(_alone(place, outputs, processes)) if quiet else (1, "something went on")
        same = not code and numbers(place.runs(outputs)[2].folder) == expected
        tally.add(part, OUTCOMES[0] if same else OUTCOMES[2], f"{what}: exit status {code}, {output[-500:]}")


def _alone(place, outputs, processes):
    settings = outputs.with_suffix(".json")
    settings.parent.mkdir(parents=True, exist_ok=True)
    write_json(settings, asdict(place.runs(outputs)[2]))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes] * (processes > 1)
    return place.start(*torchrun, "-m", "cawalib.training", settings)
