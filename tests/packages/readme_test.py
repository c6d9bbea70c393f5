"""What the README says of its two commands, in a clean root: Debian 12, git, and nothing else.

usage: readme_test.py CACHE; exit code 77 if such a root can't be made here (the last line says why).
What is committed is cloned there. `scripts/test` runs with --quick, after `scripts/demo` has built:
all of it is what runs this test."""

import pathlib
import re
import subprocess
import sys
import tempfile

import clean_root

ROOT = pathlib.Path(__file__).resolve().parents[2]
SESSION = r"""
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get -q -y update
apt-get -q -y install --no-install-recommends git
git clone -q -b tested /repository.bundle /bigcast
cd /bigcast
@DEMO@
@TEST@ --quick
echo everything worked
"""


def commands():
    """The README's two: what its first block of code begins its lines with."""
    part = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Two commands\n")[2]
    return re.findall(r"^    (scripts/\w+)", part.partition("\n## ")[0], re.MULTILINE)


def bundle(folder):
    """The commit that is checked out, as a file that can be cloned."""
    clone, file = folder / "clone", folder / "repository.bundle"
    for command in (["clone", "-q", "--bare", "--no-tags", ROOT, clone],
                    ["-C", clone, "branch", "-f", "tested", head()],
                    ["-C", clone, "bundle", "create", "-q", file, "tested"]):
        subprocess.run(["git", *command], check=True)
    return file


def head():
    done = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], check=True,
                          capture_output=True, text=True)
    return done.stdout.strip()


def main(cache):
    demo, test = commands()
    session = SESSION.replace("@DEMO@", demo).replace("@TEST@", test)
    with tempfile.TemporaryDirectory(prefix="bigcast-readme-") as folder:
        files = {"repository.bundle": bundle(pathlib.Path(folder))}
        return clean_root.run_in(cache, "bookworm", files, session)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print(__doc__)
        sys.exit(2)
    sys.exit(main(sys.argv[1]))
