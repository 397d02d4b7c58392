#!/usr/bin/env python3
"""Replays jobs on two streams, made out of the bundled traces, and checks how much memory they hold.

  python3 bench/two_streams.py --tool build/gmlake             all; raw results go to bench/results/two_streams.json
  python3 bench/two_streams.py --tool build/gmlake --keep DIR  keeps the traces

What one stream has freed must serve the other: peak reserved / peak allocated is to be at most 1.010 (generate: 1.015,
as on one stream). Every bundled trace is changed in each of these ways, its sizes and its order of events as they were:

  phases      what is allocated goes to stream 0 and stream 1 in turns of a twentieth of the trace: what one stream has
              freed in its turn is all that the other has to live on in its own
  thirds      the same, in turns of a third: each turn reaches the job's peak
  side        what lives shortly (at most 100 events) and is 1 MiB or more goes to stream 1 for every second turn of 500
              events, and stays on stream 0 else: a side stream with heavy transient memory
  mixed       each block on a stream by chance, even
  echo        the job twice at once, on a stream each, the second half a twentieth of the trace behind
  copies      as phases, and each block of 1 MiB or more is used on the other stream before it is freed (record_stream)
"""
import argparse
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import zlib

from figures import RATIO_BOUND, RATIO_BOUND_ELSE, ROOT, keep, trace_name

ALLOC, FREE, RECORD = 0, 1, 2
MAGIC = b"\x89gmtrace\r\n"
MIB = 1 << 20


class Varints:
    def __init__(self, data):
        self.data, self.at = data, 0

    def byte(self):
        self.at += 1
        return self.data[self.at - 1]

    def next(self):
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value


def read_blocks(path):
    """[(bytes, event of alloc, event of free or None)] by id, and the number of events; of the first device."""
    data = path.read_bytes()
    body = data[32:] if data[11] == 0 else zlib.decompress(data[32:])
    numbers = Varints(body)
    length = numbers.next()
    numbers.at += length
    numbers.next(), numbers.next()
    for _ in range(numbers.next()):
        numbers.next(), numbers.byte()
    numbers.next()
    for _ in range(numbers.next()):
        for _ in range(4):
            numbers.next()
    count = numbers.next()
    blocks, size = [], 0
    for event in range(count):
        tag = numbers.byte()
        operation = tag & 7
        if tag & 8:
            numbers.next()
        if operation == ALLOC:
            if not tag & 16:
                size = numbers.next()
            blocks.append([size, event, None])
        elif operation in (FREE, RECORD):
            block = len(blocks) - 1 - numbers.next()
            if operation == FREE:
                blocks[block][2] = event
        elif operation == 3:
            numbers.next()
    return blocks, count


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_trace(path, name, events):
    """`events`: (ALLOC, key, bytes, stream), (FREE, key) or (RECORD, key, stream), on two streams."""
    out = bytearray()
    ids = {}
    for event in events:
        if event[0] == ALLOC:
            ids[event[1]] = len(ids)
            out += bytes([ALLOC | 8]) + varint(event[3]) + varint(event[2])
        elif event[0] == FREE:
            out += bytes([FREE]) + varint(len(ids) - 1 - ids[event[1]])
        else:
            out += bytes([RECORD | 8]) + varint(event[2]) + varint(len(ids) - 1 - ids[event[1]])
    body = varint(len(name)) + name.encode() + varint(1)
    body += varint(0) + varint(2) + varint(0) + b"\0" + varint(1) + b"\0" + varint(0) + varint(0) + varint(len(events))
    body += bytes(out)
    path.write_bytes(MAGIC + bytes([1, 0]) + struct.pack("<IQQ", zlib.crc32(body), len(body), len(body)) + body)


def on_streams(blocks, stream_of, uses=lambda key, stream: ()):
    """The trace's events in their order, each block on the stream that stream_of(key) says."""
    timed = []
    for key, (size, begin, end) in enumerate(blocks):
        stream = stream_of(key)
        timed.append((begin, (ALLOC, key, size, stream)))
        if end is not None:
            timed += [(end, (RECORD, key, use)) for use in uses(key, stream)]
            timed.append((end, (FREE, key)))
    timed.sort(key=lambda entry: entry[0])  # stable: a use stays before its free
    return [event for _, event in timed]


def phases(blocks, count):
    turn = max(count // 20, 1)
    return on_streams(blocks, lambda key: blocks[key][1] // turn % 2)


def thirds(blocks, count):
    turn = max(count // 3, 1)
    return on_streams(blocks, lambda key: blocks[key][1] // turn % 2)


def side(blocks, count):
    def stream(key):
        size, begin, end = blocks[key]
        return int(size >= MIB and end is not None and end - begin <= 100 and begin // 500 % 2 == 1)
    return on_streams(blocks, stream)


def mixed(blocks, count):
    chance = random.Random(1)
    streams = [chance.randrange(2) for _ in blocks]
    return on_streams(blocks, lambda key: streams[key])


def echo(blocks, count):
    shift = count // 40
    both = [[size, begin, end] for size, begin, end in blocks]
    both += [[size, begin + shift, None if end is None else end + shift] for size, begin, end in blocks]
    return on_streams(both, lambda key: int(key >= len(blocks)))


def copies(blocks, count):
    turn = max(count // 20, 1)
    return on_streams(blocks, lambda key: blocks[key][1] // turn % 2,
                      lambda key, stream: (1 - stream,) if blocks[key][0] >= MIB else ())


WAYS = (phases, thirds, side, mixed, echo, copies)


def made_traces(tool, folder, only=None, way=None):
    """Writes every bundled trace in every way into `folder`, one at a time: (trace, name of its source, way)."""
    sources = sorted((ROOT / "examples" / "traces").glob("*.pickle.gz"))
    sources += sorted(path for path in (ROOT / "bench" / "traces").glob("*.gmtrace") if path.stem != "stream_offload")
    for source in sources:
        name = trace_name(source)
        if only and name != only:
            continue
        plain = source
        if source.suffix == ".gz":
            plain = folder / f"{name}.gmtrace"
            subprocess.run([str(tool), "convert", str(source), str(plain)], check=True, capture_output=True)
        blocks, count = read_blocks(plain)
        for change in WAYS:
            if way and change.__name__ != way:
                continue
            trace = folder / f"{name}-{change.__name__}.gmtrace"
            write_trace(trace, trace.stem, change(blocks, count))
            yield trace, name, change.__name__


def measure(options, trace):
    process = subprocess.run([str(options.tool), "replay", str(trace), *options.replay.split(), "--json", "-"],
                             capture_output=True, text=True)
    if process.returncode not in (0, 1):
        sys.exit(f"{trace}: {process.stderr}")
    return json.loads(process.stdout)["results"][0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", type=pathlib.Path, default=ROOT / "build" / "gmlake")
    parser.add_argument("--only", metavar="TRACE", help="the name of one trace")
    parser.add_argument("--way", metavar="WAY", help="one way")
    parser.add_argument("--keep", type=pathlib.Path, metavar="DIR", help="where the traces are kept")
    parser.add_argument("--replay", default="", help="more arguments of gmlake replay; nothing is kept then")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench" / "results" / "two_streams.json")
    options = parser.parse_args()
    results, missed = [], 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or pathlib.Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for trace, name, way in made_traces(options.tool, folder, options.only, options.way):
            result = measure(options, trace)
            ratio, bound = result["reserved_over_allocated"], RATIO_BOUND.get(name, RATIO_BOUND_ELSE)
            met = ratio <= bound and result["ooms"] == 0
            missed += not met
            results.append({**result, "way": way, "source": name, "bound": bound, "met": met})
            print(f"{'ok  ' if met else 'MISS'}  {name:<16} {way:<8} {ratio:>8.4f} <= {bound:.4f}  "
                  f"driver {result['driver_seconds']:.3f} s", flush=True)
            if not options.keep:
                trace.unlink()
    if not options.only and not options.way and not options.replay:
        keep(options.out, "python3 bench/two_streams.py", results=results)
    print(f"{len(results)} replays, {missed} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
