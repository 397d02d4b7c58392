"""The snapshot files against their formats, from the files alone.

The pickle is loaded by Python's own unpickler with every global refused, and asked for each field that PyTorch's
_memory_viz.py and its memory_viz page read. The JSON is checked against its schema, by jsonschema where that is
installed, and always by the few keywords that the schema uses. Where TORCH_MEMORY_VIZ names a copy of PyTorch's
_memory_viz.py, its functions are run too.
"""
import importlib.util
import io
import json
import os
import pickle
import re
import subprocess
import tempfile
import unittest

ACTIONS = {"alloc", "free_requested", "free_completed", "segment_map", "segment_unmap", "oom"}


class PlainUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"{module}.{name} in a snapshot")


def check(value, schema, root, where="$"):
    """Yields what is wrong, by the keywords that docs/snapshot.schema.json uses."""
    known = {"$schema", "$defs", "$ref", "title", "description", "type", "required", "additionalProperties", "properties",
             "const", "enum", "items", "minItems", "minimum", "maximum", "oneOf", "propertyNames", "pattern"}
    assert set(schema) <= known, set(schema) - known
    if "$ref" in schema:
        target = root
        for part in schema["$ref"].split("/")[1:]:
            target = target[part]
        yield from check(value, target, root, where)
    types = {"object": dict, "array": list, "integer": int, "null": type(None), "string": str}
    if "type" in schema and (not isinstance(value, types[schema["type"]]) or isinstance(value, bool)):
        yield f"{where} is no {schema['type']}"
        return
    if "const" in schema and value != schema["const"]:
        yield f"{where} is {value!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where} is {value!r}"
    if isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{where} is out of range"
    if "oneOf" in schema and sum(not list(check(value, one, root, where)) for one in schema["oneOf"]) != 1:
        yield f"{where} fits not exactly one of its forms"
    if isinstance(value, dict):
        for key in schema.get("required", []):
            if key not in value:
                yield f"{where} lacks {key}"
        properties = schema.get("properties", {})
        rest = schema.get("additionalProperties", True)
        for key, item in value.items():
            pattern = schema.get("propertyNames", {}).get("pattern")
            if pattern and not re.search(pattern, key):
                yield f"{where} has the key {key}"
            if key in properties:
                yield from check(item, properties[key], root, f"{where}.{key}")
            elif rest is False:
                yield f"{where} has the key {key}"
            elif isinstance(rest, dict):
                yield from check(item, rest, root, f"{where}.{key}")
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield f"{where} has too few items"
        for i, item in enumerate(value):
            yield from check(item, schema.get("items", {}), root, f"{where}[{i}]")


class SnapshotFormat(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as folder:
            files = [os.path.join(folder, name) for name in ("a.pickle", "a.json")]
            subprocess.run([os.environ["OBSERVE_DUMP"], *files], check=True)
            with open(files[0], "rb") as file:
                cls.pickled = file.read()
            with open(files[1], encoding="utf-8") as file:
                cls.json = json.load(file)
        cls.snapshot = PlainUnpickler(io.BytesIO(cls.pickled)).load()
        with open(os.environ["SCHEMA"], encoding="utf-8") as file:
            cls.schema = json.load(file)

    def test_pickle_has_the_top_level_fields_of_a_memory_snapshot(self):
        self.assertEqual(list(self.snapshot),
                         ["segments", "device_traces", "allocator_settings", "external_annotations"])
        self.assertEqual(len(self.snapshot["device_traces"]), 2)
        self.assertEqual(self.snapshot["device_traces"][1], [])
        self.assertEqual(self.snapshot["allocator_settings"]["max_split_size"], -1)

    def test_pickle_segments_add_up_as_segsum_wants_them_to(self):
        self.assertGreaterEqual(len(self.snapshot["segments"]), 2)
        states = set()
        for segment in self.snapshot["segments"]:
            for key in ("device", "address", "total_size", "allocated_size", "active_size", "requested_size", "stream"):
                self.assertIs(type(segment[key]), int, key)
            self.assertIn(segment["segment_type"], ("small", "large"))
            self.assertEqual(segment["segment_pool_id"], (0, 0))
            self.assertIs(segment["is_expandable"], True)
            self.assertEqual(segment["frames"], [])
            address = segment["address"]
            sums = {"active_allocated": 0, "active_pending_free": 0, "inactive": 0}
            requested = 0
            for block in segment["blocks"]:
                self.assertEqual(block["address"], address)
                self.assertEqual(block["frames"], [])
                self.assertLessEqual(block["requested_size"], block["size"])
                sums[block["state"]] += block["size"]
                requested += block["requested_size"]
                address += block["size"]
                states.add(block["state"])
            self.assertEqual(sum(sums.values()), segment["total_size"])
            self.assertEqual(sums["active_allocated"], segment["allocated_size"])
            self.assertEqual(sums["active_allocated"] + sums["active_pending_free"], segment["active_size"])
            self.assertEqual(requested, segment["requested_size"])
        self.assertEqual(states, {"active_allocated", "active_pending_free", "inactive"})
        keys = [(segment["address"], segment["total_size"]) for segment in self.snapshot["segments"]]
        self.assertEqual(len(set(keys)), len(keys), "compare() tells segments apart by these")

    def test_pickle_trace_has_the_fields_that_trace_and_the_page_read(self):
        trace = self.snapshot["device_traces"][0]
        self.assertEqual({event["action"] for event in trace}, ACTIONS)
        reserved, live, times = 0, {}, []
        for event in trace:
            for key in ("size", "stream", "time_us"):
                self.assertIs(type(event[key]), int, key)
            self.assertEqual(event["frames"], [])
            self.assertIs(type(event["device_free" if event["action"] == "oom" else "addr"]), int)
            times.append(event["time_us"])
            if event["action"] == "segment_map":
                reserved += event["size"]
            elif event["action"] == "segment_unmap":
                reserved -= event["size"]
            elif event["action"] == "alloc":
                self.assertNotIn(event["addr"], live)
                live[event["addr"]] = event["size"]
            elif event["action"] == "free_requested":
                self.assertIn(event["addr"], live)
                del live[event["addr"]]
        self.assertEqual(times, sorted(times))
        self.assertEqual(reserved, sum(segment["total_size"] for segment in self.snapshot["segments"]))
        in_blocks = {block["address"]: block["requested_size"] for segment in self.snapshot["segments"]
                     for block in segment["blocks"] if block["state"] == "active_allocated"}
        self.assertEqual(live, in_blocks)

    def test_json_keeps_to_its_schema(self):
        self.assertEqual(list(check(self.json, self.schema, self.schema)), [])
        try:
            import jsonschema
        except ImportError:
            return
        jsonschema.Draft202012Validator.check_schema(self.schema)
        jsonschema.Draft202012Validator(self.schema).validate(self.json)

    def test_schema_refuses_what_is_broken(self):
        for damage in (lambda it: it.pop("version"), lambda it: it["devices"][0]["segments"][0].pop("pool"),
                       lambda it: it["devices"][0]["phy_blocks"][0].update(home="x"),
                       lambda it: it["devices"][0]["segments"][0]["blocks"][0].update(state="gone"),
                       lambda it: it["devices"][0].update(more=1), lambda it: it["devices"][0]["stats"].pop("num_ooms"),
                       lambda it: it["devices"][0]["history"][0].update(bytes=-1)):
            broken = json.loads(json.dumps(self.json))
            damage(broken)
            self.assertNotEqual(list(check(broken, self.schema, self.schema)), [])

    def test_json_lists_where_every_phy_block_is_mapped(self):
        device = self.json["devices"][0]
        stale = sum(block["bytes"] * len(block["stale"]) for block in device["phy_blocks"])
        self.assertGreater(stale, 0, "memory was moved")
        self.assertEqual(stale, device["stats"]["gmlake.stale_bytes"])
        self.assertEqual(sum(block["bytes"] for block in device["phy_blocks"]),
                         device["stats"]["reserved_bytes.all.current"])
        homes = {block["home"] for block in device["phy_blocks"]}
        self.assertEqual(len(homes), len(device["phy_blocks"]), "each has a home of its own")
        for segment in device["segments"]:
            address = segment["address"]
            for block in segment["blocks"]:
                self.assertEqual(block["address"], address)
                address += block["bytes"]
            self.assertEqual(address, segment["address"] + segment["bytes"])

    def test_json_and_pickle_say_the_same(self):
        live = {block["address"] for segment in self.json["devices"][0]["segments"] for block in segment["blocks"]
                if block["state"] == "live"}
        self.assertEqual(live, {block["address"] for segment in self.snapshot["segments"]
                                for block in segment["blocks"] if block["state"] == "active_allocated"})
        named = [event for event in self.json["devices"][0]["history"] if event["action"] in ACTIONS]
        self.assertEqual([event["action"] for event in named],
                         [event["action"] for event in self.snapshot["device_traces"][0]])

    @unittest.skipUnless(os.environ.get("TORCH_MEMORY_VIZ"), "needs a copy of PyTorch's _memory_viz.py")
    def test_pickle_passes_through_pytorchs_own_functions(self):
        spec = importlib.util.spec_from_file_location("memory_viz", os.environ["TORCH_MEMORY_VIZ"])
        viz = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(viz)
        data = pickle.loads(self.pickled)
        self.assertIn("total_reserved", viz.segsum(data))
        self.assertIn("OutOfMemoryError", viz.trace(data))
        self.assertIn("active_allocated", viz.memory(data, format_flamegraph=str))
        self.assertIn("inactive", viz.segments(data, format_flamegraph=str))
        viz.compare(data["segments"], data["segments"], format_flamegraph=str)
        self.assertIn("snapshot.pickle", viz.segment_plot(data))
        self.assertIn("snapshot.pickle", viz.trace_plot(data))


if __name__ == "__main__":
    unittest.main()
