"""Makes stand-ins for glibc's libraries, to link against in place of the machine's own, so that what
is linked runs on an older glibc.

usage: stub_libraries.py NEWEST DIRECTORY

Each symbol of this machine's glibc is there in the newest of its versions that is not newer than
NEWEST, such as 2.28; symbols that came later are absent, and the linker says so. The stand-ins have
no code: they are for the linker alone."""

import pathlib
import re
import subprocess
import sys

# What programs name in DT_NEEDED. Since glibc 2.34 libc.so.6 has what was in libpthread and libdl;
# on older ones the loader finds those symbols where they were, if the libraries are needed too.
LIBRARIES = ["libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2"]
KEPT = ["libpthread.so.0", "libdl.so.2"]
SYMBOL = re.compile(
    r"^\s*\d+: (?P<address>[0-9a-f]+)\s+(?P<size>\d+)\s+(?P<type>FUNC|IFUNC|OBJECT)\s+(?P<bind>GLOBAL|WEAK)"
    r"\s+DEFAULT\s+(?!UND)\S+\s+(?P<name>[^@\s]+)@@?GLIBC_(?P<version>[0-9.]+)")


def number(version):
    return tuple(int(part) for part in version.split("."))


def path_of(library):
    return subprocess.run(["gcc", f"-print-file-name={library}"], capture_output=True, text=True,
                          check=True).stdout.strip()


def symbols_of(library, newest):
    """{name: (version, type, bind, size, address)} of what a program linked for glibc NEWEST may use."""
    path = path_of(library)
    table = subprocess.run(["readelf", "--dyn-syms", "-W", path], capture_output=True, text=True,
                           check=True).stdout
    found = {}
    for line in table.splitlines():
        match = SYMBOL.match(line)
        if not match or number(match["version"]) > newest:
            continue
        kept = found.get(match["name"])
        if kept is None or number(kept[0]) < number(match["version"]):
            found[match["name"]] = (match["version"], match["type"], match["bind"], match["size"],
                                    match["address"])
    if not found:
        sys.exit(f"stub_libraries.py: no symbols in {path}")
    return found


def assembler(symbols):
    lines, before = [], None
    # Names of one variable stay names of one: a program that has a copy of environ is found to need
    # __environ to be the same.
    for name, (version, kind, bind, size, address) in sorted(
            symbols.items(), key=lambda one: (one[1][4], one[0])):
        if address != before:
            lines += [".data" if kind == "OBJECT" else ".text", ".balign 64"]
            label, before = f"at_{address}_{len(lines)}", address
            lines += [f"{label}:", f".zero {max(1, int(size)) if kind == 'OBJECT' else 1}"]
        lines += [f".{'weak' if bind == 'WEAK' else 'globl'} {name}",
                  f".type {name}, {'@object' if kind == 'OBJECT' else '@function'}",
                  f".size {name}, {size}",
                  f".set {name}, {label}",
                  f".symver {name}, {name}@@@GLIBC_{version}"]
    return "\n".join([*lines, '.section .note.GNU-stack,"",@progbits', ""])


def version_script(symbols):
    text, before = "", ""
    for version in sorted({symbol[0] for symbol in symbols.values()}, key=number):
        text += f"GLIBC_{version} {{}}{before};\n"
        before = f" GLIBC_{version}"
    return text


def make(library, symbols, directory):
    source, script = directory / f"{library}.s", directory / f"{library}.map"
    source.write_text(assembler(symbols))
    script.write_text(version_script(symbols) or "{ local: *; };\n")
    subprocess.run(["gcc", "-shared", "-nostdlib", f"-Wl,-soname,{library}",
                    f"-Wl,--version-script={script}", "-o", directory / library, source], check=True)


def main(newest, directory):
    directory.mkdir(parents=True, exist_ok=True)
    for library in LIBRARIES:
        make(library, symbols_of(library, number(newest)), directory)
    for library in KEPT:
        make(library, {}, directory)
    loader = directory / "ld-linux-x86-64.so.2"
    kept = " ".join(str(directory / library) for library in KEPT)
    (directory / "libc.so").write_text(
        f"GROUP ( {directory / 'libc.so.6'} {kept} {path_of('libc_nonshared.a')} AS_NEEDED ( {loader} ) )\n")
    (directory / "libm.so").write_text(f"GROUP ( {directory / 'libm.so.6'} )\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    main(sys.argv[1], pathlib.Path(sys.argv[2]).resolve())
