"""Roots of a minimal Debian that have nothing of ours, to run a command in."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

SKIP = 77


def skip(why):
    print(why)
    sys.exit(SKIP)


def need_portable(build):
    if not (build / "portable").is_dir():
        skip("this build is not portable: scripts/lib/static_libraries found no sources")


def base_root(cache, release):
    """A tar file of a minimal Debian, made once."""
    tar = pathlib.Path(cache) / f"debian-{release}.tar"
    if tar.exists():
        return tar
    with tempfile.TemporaryDirectory(prefix="bigcast-root-") as root:
        made = subprocess.run(["debootstrap", "--variant=minbase", release, root],
                              capture_output=True, text=True)
        if made.returncode != 0:
            print(made.stdout[-2000:])
            skip("debootstrap can't make a root here")
        part = tar.with_suffix(".part")
        subprocess.run(["tar", "-C", root, "-cf", part, "."], check=True)
        part.rename(tar)
    return tar


def run_in(cache, release, files, session, env=None):
    """Runs the shell script `session` in a new root that has `files` ({path there: path here}) as
    well; returns its exit code. Its mounts and processes end with it; it shares our network."""
    if os.geteuid() != 0:
        skip("a clean root needs root")
    if not shutil.which("debootstrap"):
        skip("the command 'debootstrap' is missing")
    tar = base_root(cache, release)
    with tempfile.TemporaryDirectory(prefix="bigcast-root-") as folder:
        root = pathlib.Path(folder)
        subprocess.run(["tar", "-C", root, "-xf", tar], check=True)
        for there, here in {"etc/resolv.conf": "/etc/resolv.conf", **files}.items():
            shutil.copy(here, root / there)
        (root / "session").write_text(session)
        inside = ["unshare", "--mount", "--pid", "--fork", f"--mount-proc={root}/proc"]
        if subprocess.run([*inside, "true"], capture_output=True).returncode != 0:
            skip("'unshare --mount --pid' is not permitted here")
        done = subprocess.run(
            [*inside, "chroot", root, "/bin/sh", "/session"],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **(env or {})})
    return done.returncode
