"""Installs the Debian package in a clean root and uses it there.

usage: deb_test.py PACKAGE.deb CACHE; exit code 77 if such a root can't be made here (the last line
says why)."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

RELEASE = "bookworm"
SKIP = 77

# Within the root, as on a fresh machine. Everything it starts ends with it: it is its own pid 1.
SESSION = r"""
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get -q -y update
apt-get -q -y install --no-install-recommends /package.deb

ldd /usr/bin/bigcast /usr/bin/bigcastd | grep 'not found' && exit 1
bigcast --version
head -c 50000000 /dev/urandom >/big.bin
bigcastd --memory 128m &
node=$!
for _ in $(seq 100); do bigcast ping 2>/dev/null && break; sleep 0.1; done
bigcast put /big.bin --key team/big
bigcast get team/big /copy.bin
cmp /big.bin /copy.bin
bigcast rm team/big
kill -TERM $node
wait $node
test -s /usr/share/bigcast/bigcast-spark-plugin.jar
test -s /usr/share/doc/bigcast/README.md

apt-get -q -y purge bigcast
test ! -e /usr/bin/bigcastd
test ! -e /usr/share/bigcast
echo everything worked
"""


def skip(why):
    print(why)
    sys.exit(SKIP)


def base_root(cache):
    """A tar file of a minimal Debian, made once."""
    tar = cache / f"debian-{RELEASE}.tar"
    if tar.exists():
        return tar
    with tempfile.TemporaryDirectory(prefix="bigcast-root-") as root:
        made = subprocess.run(["debootstrap", "--variant=minbase", RELEASE, root],
                              capture_output=True, text=True)
        if made.returncode != 0:
            print(made.stdout[-2000:])
            skip("debootstrap can't make a root here")
        part = tar.with_suffix(".part")
        subprocess.run(["tar", "-C", root, "-cf", part, "."], check=True)
        part.rename(tar)
    return tar


def main(package, cache):
    if os.geteuid() != 0:
        skip("a clean root needs root")
    if not shutil.which("debootstrap"):
        skip("the command 'debootstrap' is missing")
    tar = base_root(pathlib.Path(cache))
    with tempfile.TemporaryDirectory(prefix="bigcast-root-") as root:
        subprocess.run(["tar", "-C", root, "-xf", tar], check=True)
        shutil.copy(package, f"{root}/package.deb")
        shutil.copy("/etc/resolv.conf", f"{root}/etc/resolv.conf")
        (pathlib.Path(root) / "session").write_text(SESSION)
        # Namespaces of its own: its mounts and its processes end with it.
        inside = ["unshare", "--mount", "--pid", "--fork", f"--mount-proc={root}/proc"]
        if subprocess.run([*inside, "true"], capture_output=True).returncode != 0:
            skip("'unshare --mount --pid' is not permitted here")
        done = subprocess.run([*inside, "chroot", root, "/bin/sh", "/session"],
                              env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"})
    sys.exit(done.returncode)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        print(__doc__)
        sys.exit(2)
    main(*sys.argv[1:])
