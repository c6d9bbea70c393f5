"""Installs the wheel as users do, in a fresh environment without a network, and uses it there.

usage: wheel_test.py BIGCAST.whl"""

import pathlib
import subprocess
import sys
import tempfile

# What pip recorded is what was in the wheel; pip itself has compared it with the wheel's checksums.
PROGRAM = """
import importlib.metadata as metadata
import pathlib

import bigcast

package = pathlib.Path(bigcast.__file__).parent
assert "site-packages" in package.parts, package
assert (package / "py.typed").is_file()
assert (package / "libbigcast.so").is_file()
about = metadata.metadata("bigcast")
assert about["Name"] == "bigcast"
assert about["Version"] == bigcast.__version__, (about["Version"], bigcast.__version__)
for key in ("Summary", "License", "Requires-Python"):
    assert about[key], key
assert "bigcast.broadcast" in (about.get_payload() or about["Description"])
assert metadata.requires("bigcast") is None, "it needs nothing but Python"
try:
    bigcast.connect("127.0.0.1:1")
except bigcast.BigcastError as error:  # so the library is there, and works
    assert error.code == "UNAVAILABLE", error
else:
    raise AssertionError("connected to nobody")
"""

# Of a user: the second line is wrong, which mypy can only know from the package's own types.
TYPED = """
import bigcast
number: int = bigcast.connect("127.0.0.1:7420")
view: memoryview = bigcast.connect().open("team/matrix").view
"""


def run(*command, **options):
    return subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options)


def must(*command, **options):
    done = run(*command, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))[:200]} failed:\n{done.stdout}")
    print(done.stdout, end="")


def main(wheel):
    with tempfile.TemporaryDirectory(prefix="bigcast-wheel-") as name:
        folder = pathlib.Path(name)
        must(sys.executable, "-m", "venv", folder / "venv")
        python = folder / "venv/bin/python"
        must(python, "-m", "pip", "install", "-q", "--no-index", wheel.resolve(), cwd=folder)
        must(python, "-c", PROGRAM, cwd=folder)
        (folder / "user.py").write_text(TYPED, encoding="utf-8")
        checked = run("mypy", "--strict", "--python-executable", python, "--cache-dir",
                      folder / "cache", "user.py", cwd=folder)
        found = [line for line in checked.stdout.splitlines() if ": error: " in line]
        if len(found) != 1 or "user.py:3:" not in found[0] or "Client" not in found[0]:
            sys.exit(f"mypy on a program that uses the package:\n{checked.stdout}")
        must(python, "-m", "pip", "uninstall", "-q", "-y", "bigcast", cwd=folder)
        left = list(folder.glob("venv/lib/python3*/site-packages/bigcast*"))
        if left:
            sys.exit(f"uninstalling left {left}")
    print("everything worked")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print(__doc__)
        sys.exit(2)
    main(pathlib.Path(sys.argv[1]))
