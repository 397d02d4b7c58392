#!/usr/bin/env python3
"""Checks that the layers hold, from the sources alone.

- A folder of src/ includes its own layer and lower ones; cli/, bench/, tests/ and examples/ include what they like.
- Public headers include public headers alone, and every one they name exists.
- No folder of src/ names anything of cli/, bench/, tests/ or of the libraries private to the tool.
- CUDA's names appear under the cuda backend and the adapters alone.
- getenv is called in one file at most; nothing in the library calls exit or abort but failed checks.
- No name of zlib outside replay: file formats are read and written there alone.

Prints each breach as file:line: reason, and exits 1 when there is one. --self-test plants breaches and looks for them.
"""
import pathlib
import re
import sys
import tempfile

LAYERS = ["base", "driver", "memory", "stitch", "alloc", "observe", "entry"]  # bottom to top
ABOVE = ("replay", "capi", "torch", "rmm")  # side by side: each may use all of LAYERS, none another
CUDA_FOLDERS = ("src/driver/cuda", "src/torch", "src/rmm", "python")
FAILED_CHECKS = ("src/base/check.cpp", "src/base/result.cpp")  # what cannot happen, and a Result taken unseen, abort
PRIVATE_TO_TOOL = ("CLI/", "nlohmann/", "fmt/")
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')
CUDA_NAME = re.compile(r"\b(?:cuda[A-Z]\w*|cu[A-Z][a-z]\w*|CU[a-z]\w+|CUDA_(?:SUCCESS|ERROR_\w+))\b")


def source_files(root, folder):
    base = root / folder
    return sorted(p for p in base.rglob("*") if p.suffix in (".cpp", ".hpp", ".h", ".c")) if base.is_dir() else []


def code_lines(path):
    """(number, line without comments and string contents, raw line)"""
    in_comment = False
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = raw
        if in_comment:
            if "*/" not in line:
                continue
            line, in_comment = line.split("*/", 1)[1], False
        line = re.sub(r'"(?:\\.|[^"\\])*"', '""', line) if not INCLUDE.match(line) else line
        line = re.sub(r"/\*.*?\*/", " ", line)
        if "/*" in line:
            line, in_comment = line.split("/*", 1)[0], True
        yield number, line.split("//", 1)[0], raw


def allowed_layers(layer):
    if layer in LAYERS:
        return set(LAYERS[: LAYERS.index(layer) + 1])
    if layer in ABOVE:
        return set(LAYERS) | {layer}
    return None


def breaches(root):
    getenv_files = set()
    for path in source_files(root, "include") + source_files(root, "src"):
        name = path.relative_to(root).as_posix()
        public = name.startswith("include/")
        layer = None if public else name.split("/")[1]
        allowed = set() if public else allowed_layers(layer)
        if allowed is None:
            yield name, 1, f"folder src/{layer} is not in the list of layers (tools/check_layers.py)"
            continue
        for number, line, _ in code_lines(path):
            included = INCLUDE.match(line)
            if included:
                target = included.group(1)
                folder = target.split("/")[0] if "/" in target else ""
                if folder == "gmlake":
                    if not (root / "include" / target).is_file():
                        yield name, number, f"there is no public header {target}"
                elif folder in LAYERS or folder in ABOVE:
                    if public:
                        yield name, number, f"a public header includes {target}, which is not installed"
                    elif folder not in allowed:
                        yield name, number, f"layer {layer} includes {target} from above it"
                elif target.startswith(PRIVATE_TO_TOOL):
                    yield name, number, f"{target} is private to the tool"
                elif target == "zlib.h" and layer != "replay":
                    yield name, number, "files are read and written in replay alone"
                elif re.match(r"(cuda|cu)[\w.]*\.h", target) and not name.startswith(CUDA_FOLDERS):
                    yield name, number, f"{target} belongs under the cuda backend"
                continue
            if not name.startswith(CUDA_FOLDERS):
                found = CUDA_NAME.search(line)
                if found:
                    yield name, number, f"{found.group(0)}: CUDA's names belong under the cuda backend"
            if re.search(r"\b(?:secure_)?getenv\s*\(", line):
                getenv_files.add((name, number))
            if re.search(r"(?<![\w.>])(?:std::)?(?:_?exit|abort|quick_exit|terminate)\s*\(", line) \
                    and name not in FAILED_CHECKS:
                yield name, number, "a library never ends the process"
    if len({name for name, _ in getenv_files}) > 1:
        for name, number in sorted(getenv_files):
            yield name, number, "getenv is called in more than one file"


def self_test():
    planted = {
        "src/base/up.cpp": '#include "driver/driver.hpp"\n',
        "src/replay/tool.cpp": "#include <fmt/format.h>\n",
        "src/stitch/name.cpp": "int x = cuMemMap(1);\n",
        "src/stitch/fine.cpp": '// cuMemMap is named in a comment\nauto text = "cuMemMap";\n#include "memory/a.hpp"\n',
        "src/memory/env.cpp": 'auto a = getenv("A");\n',
        "src/alloc/env.cpp": 'auto a = std::getenv("A");\n',
        "src/alloc/quit.cpp": "void f() { std::exit(1); }\n",
        "src/odd/a.cpp": "\n",
        "include/gmlake/inner.hpp": '#include "base/check.hpp"\n#include "gmlake/gone.hpp"\n',
        "src/driver/cuda/fine.cpp": "int x = cuMemMap(1);\n",
    }
    expected = {"src/base/up.cpp": 1, "src/replay/tool.cpp": 1, "src/stitch/name.cpp": 1, "src/memory/env.cpp": 1,
                "src/alloc/env.cpp": 1, "src/alloc/quit.cpp": 1, "src/odd/a.cpp": 1, "include/gmlake/inner.hpp": 2}
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)
        for name, text in planted.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        found = {}
        for name, _, _ in breaches(root):
            found[name] = found.get(name, 0) + 1
    if found != expected:
        sys.exit(f"self-test: expected {expected}, found {found}")


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    if sys.argv[1:]:
        sys.exit("usage: tools/check_layers.py [--self-test]")
    found = list(breaches(pathlib.Path(__file__).resolve().parent.parent))
    for name, number, reason in found:
        print(f"{name}:{number}: {reason}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
