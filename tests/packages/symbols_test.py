"""Libraries in other people's processes need glibc, no newer one than they promise, and no more.

usage: symbols_test.py NEWEST LIBRARY..."""

import re
import subprocess
import sys

ALLOWED = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "ld-linux-x86-64.so.2"}


def output_of(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def number(version):
    return tuple(int(part) for part in version.split("."))


def problems_of(library, newest):
    needed = set(re.findall(r"NEEDED\s+(\S+)", output_of("objdump", "-p", library)))
    if not needed:
        yield "needs no library at all: is it one?"
    for name in sorted(needed - ALLOWED):
        yield f"needs {name}"
    for line in output_of("objdump", "-T", library).splitlines():
        match = re.search(r"\*UND\*.*\((\w+?)_([0-9.]+)\)\s+(\S+)$", line)
        if match and (match[1] != "GLIBC" or number(match[2]) > number(newest)):
            yield f"needs {match[3]} of {match[1]}_{match[2]}"


def main(newest, libraries):
    found = [f"{library}: {problem}" for library in libraries
             for problem in problems_of(library, newest)]
    print("\n".join(found) or f"{len(libraries)} libraries run with glibc {newest}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        print(__doc__)
        sys.exit(2)
    main(sys.argv[1], sys.argv[2:])
