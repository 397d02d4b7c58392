#!/usr/bin/env python3
"""Holds the names that the shared library exports to a list, and the list to the header.

A name that goes, or changes, breaks who was linked with it: the list is changed by hand, and on purpose.
"""
import argparse
import pathlib
import re
import subprocess
import sys


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("nm", "library", "list", "header"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    lines = subprocess.run([options.nm, "-D", "--defined-only", options.library], check=True, capture_output=True,
                           text=True).stdout.splitlines()
    exported = {line.split()[-1].split("@")[0] for line in lines}
    listed = pathlib.Path(options.list).read_text(encoding="utf-8").split()
    declared = set(re.findall(r"\b(gmlake_\w+)\(", re.sub(r"/\*.*?\*/", "", pathlib.Path(options.header).read_text(
        encoding="utf-8"), flags=re.DOTALL)))
    wrong = []
    if listed != sorted(set(listed)):
        wrong.append("the list is not sorted, or names one twice")
    wrong += [f"exported, and not in the list: {name}" for name in sorted(exported - set(listed))]
    wrong += [f"in the list, and not exported: {name}" for name in sorted(set(listed) - exported)]
    wrong += [f"in the header alone: {name}" for name in sorted(declared - set(listed))]
    wrong += [f"not in the header: {name}" for name in sorted(set(listed) - declared)]
    if not listed:
        wrong.append("the list is empty")
    sys.exit("\n".join(wrong) if wrong else 0)


if __name__ == "__main__":
    main()
