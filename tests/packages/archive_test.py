"""The checksums of the packages, the programs of each tar.gz, and the unit that comes with them.

usage: archive_test.py PACKAGES"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import harness  # noqa: E402

BYTES = 9_000_000


def run(*command, **options):
    return subprocess.run(list(map(str, command)), check=True, **options)


def check_sums(packages):
    """All that is there has a checksum, and has it rightly."""
    run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=packages)
    lines = (packages / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    listed = {line.split("  ", 1)[1] for line in lines}
    there = {path.name for path in packages.iterdir()} - {"SHA256SUMS"}
    assert listed == there, (listed, there)


def use(programs, folder):
    """A put and a get."""
    node = harness.Node(programs, "--memory", "64m")
    try:
        bigcast = [programs / "bigcast", "--server", node.listen, "--quiet"]
        content = os.urandom(BYTES)
        (folder / "big").write_bytes(content)
        run(*bigcast, "put", folder / "big", "--key", "team/big")
        run(*bigcast, "get", "team/big", folder / "copy")
        assert (folder / "copy").read_bytes() == content
        assert node.stop() == 0
    finally:
        node.kill()


def unpack(archive, folder):
    """Its root, and the folder of its programs."""
    folder.mkdir()
    run("tar", "-C", folder, "-xzf", archive)
    [root] = folder.iterdir()
    [programs] = [path.parent for path in root.glob("**/bin/bigcastd")]
    return root, programs


def check_manuals(root):
    """The unit names the manual pages that come with it, the node's first."""
    [unit] = root.glob("**/bigcastd.service")
    [named] = re.findall(r"^Documentation=(.*)$", unit.read_text(encoding="utf-8"), re.M)
    assert named.startswith("man:bigcastd(8) "), named
    for name, section in re.findall(r"man:(\w+)\((\d)\)", named):
        assert list(root.glob(f"**/man{section}/{name}.{section}")), name


def check_unit(root, programs, folder):
    """What systemd has to say of it, when the programs it names are there."""
    if not shutil.which("systemd-analyze"):
        print("systemd-analyze is missing: the unit was not verified")
        return
    [unit] = root.glob("**/bigcastd.service")
    copy = folder / unit.name
    text = unit.read_text(encoding="utf-8").replace("/usr/bin", str(programs))
    copy.write_text(text, encoding="utf-8")
    done = run("systemd-analyze", "verify", "--man=no", copy, capture_output=True, text=True)
    assert done.stdout + done.stderr == "", done.stdout + done.stderr
    broken = folder / "broken.service"
    broken.write_text(text.replace("WatchdogSec=", "WatchdogSecs="), encoding="utf-8")
    done = run("systemd-analyze", "verify", "--man=no", broken, capture_output=True, text=True)
    assert "WatchdogSecs" in done.stderr, "a broken unit passes"


def main(packages):
    check_sums(packages)
    [archive] = [path for path in packages.glob("*.tar.gz") if "glibc" not in path.name]
    with tempfile.TemporaryDirectory(prefix="bigcast-archive-") as name:
        folder = pathlib.Path(name)
        root, programs = unpack(archive, folder / "archive")
        use(programs, folder)
        check_manuals(root)
        check_unit(root, programs, folder)
        for portable in packages.glob("*-glibc*.tar.gz"):  # with --portable
            root, programs = unpack(portable, folder / "portable")
            use(programs, folder)
            missing = {"LICENSE", "README.md", "docs"} - {path.name for path in root.iterdir()}
            assert not missing, missing
            print(f"{portable.name}, too")
    print("everything worked")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print(__doc__)
        sys.exit(2)
    main(pathlib.Path(sys.argv[1]))
