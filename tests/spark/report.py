"""The lines that a run prints: PASS name, FAIL name: why, SKIP name: why."""

import contextlib
import re


class Report:
    """Prints results under a prefix. `failed` counts the FAILs."""

    def __init__(self, prefix):
        self.prefix = prefix
        self.failed = 0

    @contextlib.contextmanager
    def under(self, name):
        """Puts what is reported in the block under one more name."""
        prefix = self.prefix
        self.prefix = f"{prefix}/{name}"
        try:
            yield
        finally:
            self.prefix = prefix

    def check(self, name, problems):
        """Passes if `problems` (a list of texts, or one) is empty."""
        if isinstance(problems, str):
            problems = [problems] if problems else []
        if problems:
            self.failed += 1
            why = " ".join("; ".join(problems).split())
            print(f"FAIL {self.prefix}/{name}: {why[:1500]}", flush=True)
        else:
            print(f"PASS {self.prefix}/{name}", flush=True)

    def skip(self, name, why):
        print(f"SKIP {self.prefix}/{name}: {why}", flush=True)

    def cases(self, output, end_line="END of cases"):
        """Turns a job's CASE lines into results; a job that did not reach its end is a failure."""
        count = 0
        for name, outcome in re.findall(r"^CASE (\S+) (.*)$", output, re.MULTILINE):
            count += 1
            self.check(name, "" if outcome.startswith("ok") else outcome)
        reached = end_line in output.splitlines()
        self.check("ends", "" if reached and count else f"{count} cases, and then no '{end_line}'")


def counters(output):
    """The COUNTER lines of a job, summed by name."""
    sums = {}
    for name, value in re.findall(r"^COUNTER (\S+) (-?\d+)$", output, re.MULTILINE):
        sums[name] = sums.get(name, 0) + int(value)
    return sums


def nonzero(counted):
    return {name: count for name, count in counted.items() if count}
