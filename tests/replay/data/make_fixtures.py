"""Makes the pickles in this folder: python3 make_fixtures.py. They are kept, so that tests need no Python."""
import gzip
import pathlib
import pickle

HERE = pathlib.Path(__file__).parent


def event(action, addr, size, stream=0, **more):
    return {"action": action, "addr": addr, "size": size, "stream": stream, "time_us": 1_700_000_000_000_000, **more}


BASE = 0x7F0000000000
SIDE = 0x55D0C0FFEE00  # a stream's handle

# Begins in the middle of a run: 0x1000 was live, 0x2000 waited for its free, 0x9000 was live and stays so.
EVENTS = [
    event("free_requested", BASE + 0x1000, 700),
    event("free_completed", BASE + 0x1000, 700),
    event("free_completed", BASE + 0x2000, 300, SIDE),
    event("segment_alloc", BASE + 0x200000, 2 << 20),
    event("alloc", BASE + 0x200000, 1000, frames=[{"name": "f", "filename": "f.py", "line": 3}]),
    event("alloc", BASE + 0x200400, 2000, SIDE),
    event("free_requested", BASE + 0x200000, 1000),  # waits for another stream
    event("snapshot", BASE, 0),
    event("alloc", BASE + 0x200C00, 5),
    event("free_completed", BASE + 0x200000, 1000),
    event("from_the_future", 0, 0, score=0.5, flags={"a", "b"}),
    event("free_requested", BASE + 0x200C00, 5),  # never completes
    {"action": "oom", "device_free": 12345, "size": 1 << 40, "stream": 0},
    event("segment_free", BASE + 0x600000, 4 << 20),
]
SEGMENTS = [
    {
        "device": 1, "address": BASE, "total_size": 2 << 20, "stream": 0, "is_expandable": False,
        "segment_pool_id": (0, 0),
        "blocks": [
            {"address": BASE, "size": 0x9000, "requested_size": 0, "state": "inactive"},
            {"address": BASE + 0x9000, "size": 512, "requested_size": 44, "state": "active_allocated"},
        ],
    },
    {
        "device": 1, "address": BASE + 0x200000, "total_size": 2 << 20, "stream": 0, "is_expandable": False,
        "blocks": [
            {"address": BASE + 0x200400, "size": 2048, "requested_size": 2000, "state": "active_allocated"},
            {"address": BASE + 0x200C00, "size": 512, "requested_size": 5, "state": "active_pending_free"},
        ],
    },
]
SNAPSHOT = {
    "segments": SEGMENTS,
    "device_traces": [[], EVENTS],
    "allocator_settings": {"name": "caf\u00e9 \u20ac \U0001f600\n", "ratio": 0.25, "huge": 2**64 - 1, "low": -(2**63)},
    "external_annotations": [None, True, False, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), b"bytes"],
}


def plain(value):
    """Protocols 0 to 3 write sets and (0 to 2) bytes as calls, which the reader refuses."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(entry) for entry in value)
    return sorted(value) if isinstance(value, set) else "bytes" if isinstance(value, bytes) else value


def save(name, data):
    (HERE / name).write_bytes(data)


for protocol in range(6):
    value = SNAPSHOT if protocol >= 4 else plain(SNAPSHOT)
    save(f"snapshot_protocol_{protocol}.pickle", pickle.dumps(value, protocol))
save("snapshot_protocol_4.pickle.gz", gzip.compress(pickle.dumps(SNAPSHOT, 4), mtime=0))

# One event object, many times over: the memo names it.
pair = [event("alloc", BASE, 512), event("free_requested", BASE, 512), event("free_completed", BASE, 512)]
save("shared_events.pickle", pickle.dumps({"segments": [], "device_traces": [pair * 700]}, 4))

save("no_events.pickle", pickle.dumps({"segments": SEGMENTS, "device_traces": [[], []]}, 4))
save("list_of_segments.pickle", pickle.dumps(SEGMENTS, 4))

# Lists that hold the one before twice: 2^200 leaves, 200 nodes.
nested = pair
for _ in range(200):
    nested = [nested, nested]
save("doubling.pickle", pickle.dumps({"segments": [], "device_traces": [pair], "other": nested}, 4))


class CallsCode:
    def __reduce__(self):
        return (print, ("called",))


for protocol in (0, 2, 4):
    save(f"calls_code_{protocol}.pickle", pickle.dumps({"device_traces": CallsCode()}, protocol))
