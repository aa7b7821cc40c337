"""Two calls at once, of one study or of one run: both end well, or the second one says why not; one set of numbers."""

import time

from ground import OUTCOMES, finish, numbers, one_line


def two_studies(place, folder, tally, random, count, expected, seconds) -> None:
    for number in range(count):
        outputs = folder / f"study{number}"
        first = place.snakemake(outputs)
        time.sleep(float(random.uniform(0, 0.9 * seconds)))
        second = place.snakemake(outputs)
        ends = [finish(first), finish(second)]
        found = [numbers(run.folder) for run in place.runs(outputs)]
        well = all(code == 0 for code, _ in ends) and found == expected
        tally.add("two calls of one study", OUTCOMES[0] if well else OUTCOMES[2],
                  f"exit status {[code for code, _ in ends]}: {ends[1][1][-500:]}")


def two_runs(place, folder, tally, random, count, expected) -> None:
    """Two notebooks that make the same run, without Snakemake."""
    for number in range(count):
        outputs = folder / f"run{number}"
        run = place.runs(outputs)[0]
        calls = []
        for call in ("a", "b"):
            (outputs / call).mkdir(parents=True, exist_ok=True)
            calls.append(place.start(*place.notebook(run, outputs / call / "out.ipynb")))
            time.sleep(float(random.uniform(0, 3)))
        ends = [finish(call) for call in calls]
        codes = sorted(code for code, _ in ends)
        refused = [output for code, output in ends if code]
        same = numbers(run.folder) == expected[0]
        if same and codes == [0, 0]:
            outcome = OUTCOMES[0]
        else:
            named = codes == [0, 1] and one_line(refused[0], "is writing this run; wait for it to end")
            outcome = OUTCOMES[1] if same and named else OUTCOMES[2]
        tally.add("two calls of one run", outcome, f"exit status {codes}, {''.join(refused)[-600:]}")
