"""Sums the results of all suites in a folder and prints 'N passed, N failed[, N skipped]' last.

    results.py FOLDER

Reads there: *.lines (one 'PASS name', 'FAIL name: why' or 'SKIP name: why' a line, among others),
ctest-*.xml (ctest's JUnit output; doctest and unittest programs count with their cases) and
surefire-*/TEST-*.xml (Maven's). Exits with 0 only if something ran and nothing failed.
"""

import collections
import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree

DOCTEST = re.compile(
    r"\[doctest\] test cases:\s*\d+\s*\|\s*(\d+) passed\s*\|\s*(\d+) failed\s*\|\s*(\d+) skipped"
)
UNITTEST = re.compile(r"^Ran (\d+) tests? in .*\n\n(?:OK|FAILED)(?: \((.*)\))?$", re.MULTILINE)
LINE = re.compile(r"^(PASS|FAIL|SKIP) (\S+?):?(?: (.*))?$")


def from_lines(path, total, failures):
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        match = LINE.match(line)
        if match:
            total[match[1]] += 1
            if match[1] == "FAIL":
                failures.append(f"{match[2]}: {match[3] or ''}")


def cases_in(output):
    """How many cases a test program says that it passed, failed and skipped; None if it doesn't."""
    match = DOCTEST.search(output)
    if match:
        return tuple(map(int, match.groups()))
    match = UNITTEST.search(output)
    if match:
        notes = dict(note.split("=") for note in (match[2] or "").split(", ") if note)
        failed = sum(int(notes.get(kind, 0)) for kind in ("failures", "errors"))
        skipped = int(notes.get("skipped", 0))
        return max(0, int(match[1]) - failed - skipped), failed, skipped
    return None


def from_ctest(path, total, failures):
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        status = case.get("status")
        passed, failed, skipped = cases_in(case.findtext("system-out") or "") or (0, 0, 0)
        if status == "run" and not passed + failed + skipped:
            passed = 1
        elif status in ("disabled", "notrun"):
            failed, skipped = (1, 0) if status == "notrun" else (0, 1)
        elif status != "run":
            failed = max(failed, 1)  # also one that crashed, timed out or leaked after its cases
        total.update(PASS=passed, FAIL=failed, SKIP=skipped)
        if failed:
            failures.append(f"{path.stem}: {case.get('name')}")


def from_surefire(path, total, failures):
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            total["FAIL"] += 1
            failures.append(name)
        elif case.find("skipped") is not None:
            total["SKIP"] += 1
        else:
            total["PASS"] += 1


def main():
    folder = pathlib.Path(sys.argv[1])
    total, failures = collections.Counter(), []
    for pattern, read in (
        ("*.lines", from_lines),
        ("ctest-*.xml", from_ctest),
        ("surefire-*/TEST-*.xml", from_surefire),
    ):
        for path in sorted(folder.glob(pattern)):
            read(path, total, failures)
    for failure in failures:
        print(f"failed: {failure}")
    skipped = f", {total['SKIP']} skipped" if total["SKIP"] else ""
    print(f"{total['PASS']} passed, {total['FAIL']} failed{skipped}")
    sys.exit(0 if total["PASS"] and not total["FAIL"] else 1)


if __name__ == "__main__":
    main()
