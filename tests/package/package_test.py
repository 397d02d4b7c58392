#!/usr/bin/env python3
"""Uses the package as a stranger would, in a temporary folder, and runs what comes out.

find_package      install to a prefix, build consumers in C++ and in C that find it there
shared            the same with BUILD_SHARED_LIBS
add_subdirectory  build the consumer with the sources as a subdirectory
headers           compile every installed header by itself, against the installed prefix alone
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile


def run(*command):
    print("+", *command, flush=True)
    environment = {**os.environ, "GMLAKE_CONF": "driver:host"}  # for the consumers, where there is no GPU
    if shutil.which("ccache"):  # of what the build folder has, most is compiled in the same way
        environment.setdefault("CMAKE_CXX_COMPILER_LAUNCHER", "ccache")
    subprocess.run([str(part) for part in command], check=True, env=environment)


def install(options, prefix):
    run(options.cmake, "--install", options.build, "--prefix", prefix)


def build_consumer(options, build, *settings, name="consumer"):
    source = pathlib.Path(__file__).parent / name
    run(options.cmake, "-S", source, "-B", build, "-G", options.generator, "-DCMAKE_BUILD_TYPE=Release",
        f"-DCMAKE_CXX_COMPILER={options.compiler}", *settings)
    run(options.cmake, "--build", build)
    run(build / "app")


def find_package(options, scratch):
    install(options, scratch / "prefix")
    prefix = f"-DCMAKE_PREFIX_PATH={scratch / 'prefix'}"
    build_consumer(options, scratch / "build", prefix)
    build_consumer(options, scratch / "build_c", prefix, name="c_consumer")
    run(scratch / "prefix" / "bin" / "gmlake", "--version")


def shared(options, scratch):
    run(options.cmake, "-S", options.source, "-B", scratch / "library", "-G", options.generator,
        "-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_CXX_COMPILER={options.compiler}", "-DBUILD_SHARED_LIBS=ON",
        "-DGMLAKE_BUILD_TOOLS=OFF", "-DGMLAKE_BUILD_TESTS=OFF", "-DGMLAKE_BUILD_BENCH=OFF",
        f"-DCMAKE_INSTALL_PREFIX={scratch / 'prefix'}")
    run(options.cmake, "--build", scratch / "library", "--target", "install")
    for name in ("libgmlake.so", "libgmlake_c.so"):
        if not list((scratch / "prefix").glob(f"lib*/**/{name}")):
            sys.exit(f"no {name} was installed")
    prefix = f"-DCMAKE_PREFIX_PATH={scratch / 'prefix'}"
    build_consumer(options, scratch / "build", prefix)
    build_consumer(options, scratch / "build_c", prefix, name="c_consumer")


def add_subdirectory(options, scratch):
    build_consumer(options, scratch / "build", f"-DGMLAKE_SUBDIRECTORY={options.source}",
                   f"-DGMLAKE_WERROR={options.werror}")


def headers(options, scratch):
    install(options, scratch / "prefix")
    include = scratch / "prefix" / "include"
    installed = sorted(include.glob("gmlake/**/*.hpp")) + sorted(include.glob("gmlake/**/*.h"))
    if not installed:
        sys.exit("no headers were installed")
    for header in installed:
        if header.suffix == ".h":
            unit = scratch / "unit.c"
            unit.write_text(f"#include <{header.relative_to(include)}>\n")
            run(options.compiler, "-x", "c", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wstrict-prototypes",
                "-Werror", "-fsyntax-only", f"-I{include}", unit)
        unit = scratch / "unit.cpp"
        unit.write_text(f"#include <{header.relative_to(include)}>\n")
        run(options.compiler, "-std=c++20", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", "-fsyntax-only",
            f"-I{include}", unit)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ways = {way.__name__: way for way in (find_package, shared, add_subdirectory, headers)}
    parser.add_argument("way", choices=ways)
    for name in ("cmake", "source", "build", "compiler", "generator", "werror"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gmlake-package-") as scratch:
        try:
            ways[options.way](options, pathlib.Path(scratch))
        except subprocess.CalledProcessError as error:
            sys.exit(f"failed with status {error.returncode}: {' '.join(error.cmd)}")


if __name__ == "__main__":
    main()
