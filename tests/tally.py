#!/usr/bin/env python3
"""Counts the test cases of ctest runs: tally.py RESULTS_FOLDER...

A folder holds ctest.junit and, of each GoogleTest program that ran, its XML report. The last line is `N passed, N failed`, with
`, N skipped` where cases were skipped; each failed and each skipped case is named above it. Exits 1 when a case failed or none ran.
"""

import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def tally(folder):
    """Returns (passed, [failed], [skipped]) of one folder."""
    passed, failed, skipped = 0, [], []
    for program in ElementTree.parse(folder / "ctest.junit").getroot().iter("testcase"):
        name = program.get("name")
        if program.get("status") == "disabled" or program.find("skipped") is not None:
            skipped.append(name)
            continue
        program_failed = program.find("failure") is not None
        report = folder / f"{name}.xml"
        failures_before = len(failed)
        if report.exists():
            for case in ElementTree.parse(report).getroot().iter("testcase"):
                label = f"{name}: {case.get('classname')}.{case.get('name')}"
                if case.find("failure") is not None:
                    failed.append(label)
                elif case.get("result") == "skipped":
                    message = case.find("skipped").get("message", "").strip().replace("\n", " ")
                    skipped.append(f"{label} ({message})")
                elif case.get("result") == "completed":
                    passed += 1
        elif not program_failed:
            passed += 1
        if program_failed and len(failed) == failures_before:
            failed.append(f"{name}: crashed, timed out or failed outside of a case")
    return passed, failed, skipped


def main():
    passed, failed, skipped = 0, [], []
    for folder in sys.argv[1:]:
        counts = tally(pathlib.Path(folder))
        passed, failed, skipped = passed + counts[0], failed + counts[1], skipped + counts[2]
    for label in skipped:
        print(f"skipped  {label}")
    for label in failed:
        print(f"failed   {label}")
    print(f"{passed} passed, {len(failed)} failed" + (f", {len(skipped)} skipped" if skipped else ""))
    sys.exit(1 if failed or passed == 0 else 0)


if __name__ == "__main__":
    main()
