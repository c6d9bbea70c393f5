"""What runs on other people's machines needs glibc, no newer one than it promises, and no more.

usage: symbols_test.py NEWEST BUILD; exit code 77 where the build is not portable."""

import pathlib
import re
import subprocess
import sys

import clean_root

FILES = ["lib/libbigcast_jni.so", "lib/libbigcast.so", "portable/bigcastd", "portable/bigcast"]
ALLOWED = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "ld-linux-x86-64.so.2"}


def output_of(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def number(version):
    return tuple(int(part) for part in version.split("."))


def problems_of(library, newest):
    needed = set(re.findall(r"NEEDED\s+(\S+)", output_of("objdump", "-p", library)))
    if not needed:
        yield "needs no library at all: is it what ships?"
    for name in sorted(needed - ALLOWED):
        yield f"needs {name}"
    for line in output_of("objdump", "-T", library).splitlines():
        match = re.search(r"\*UND\*.*\((\w+?)_([0-9.]+)\)\s+(\S+)$", line)
        if match and (match[1] != "GLIBC" or number(match[2]) > number(newest)):
            yield f"needs {match[3]} of {match[1]}_{match[2]}"


def main(newest, build):
    clean_root.need_portable(build)
    found = [f"{file}: {problem}" for file in FILES for problem in problems_of(build / file, newest)]
    said = output_of(build / "portable" / "bigcastd", "--version")
    if f"\nneeds glibc {newest} or newer; here is " not in said:
        found.append(f"bigcastd --version: {said}")
    print("\n".join(found) or f"{len(FILES)} files run with glibc {newest}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        print(__doc__)
        sys.exit(2)
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
