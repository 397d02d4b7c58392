#!/usr/bin/env python3
"""Checks what bookkeeping costs over four million random operations, and keeps the figures with the machine and commit.

  python3 bench/metadata.py --bench build/bench/metadata_bench      raw results go to bench/results/metadata.json

Takes about three minutes. Exits 1 if a bound is missed; metadata_bench.cpp says which there are.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

from figures import ROOT, commit, machine


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=pathlib.Path, default=ROOT / "build" / "bench" / "metadata_bench")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench" / "results" / "metadata.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        raw = pathlib.Path(folder) / "rows.json"
        status = subprocess.run([str(options.bench), "--json", str(raw)]).returncode
        if not raw.is_file():
            sys.exit(status or 1)
        kept = {"machine": machine(), "commit": commit(), "command": "python3 bench/metadata.py", **json.loads(raw.read_text())}
    options.out.write_text(json.dumps(kept, indent=1) + "\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
