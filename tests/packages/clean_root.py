"""Roots of a minimal Debian that have nothing of ours, to run a command in."""

import os
import pathlib
import re
import shutil
import signal
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


# What tells programs how to reach the package registries from here.
NETWORK = re.compile(r"(?i)(http|https|ftp|all|no)_proxy$|PIP_(INDEX_URL|EXTRA_INDEX_URL|CERT|"
                     r"TRUSTED_HOST|DEFAULT_TIMEOUT)$|MAVEN_OPTS$")


def run_in(cache, release, files, session):
    """Runs the shell script `session` in a new root that has `files` ({path there: path here}) as
    well; returns its exit code. It has this machine's devices and network, and reaches package
    registries as this machine does; its mounts and processes end with it."""
    if os.geteuid() != 0:
        skip("a clean root needs root")
    if not shutil.which("debootstrap"):
        skip("the command 'debootstrap' is missing")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # leaves nothing, too
    tar = base_root(cache, release)
    with tempfile.TemporaryDirectory(prefix="bigcast-root-") as folder:
        root = pathlib.Path(folder)
        subprocess.run(["tar", "-C", root, "-xf", tar], check=True)
        trusted = pathlib.Path("/usr/local/share/ca-certificates")  # by this machine's owner
        if trusted.is_dir():
            shutil.copytree(trusted, root / trusted.relative_to("/"), dirs_exist_ok=True)
        network = {name: f"/{name}" for name in ("etc/hosts", "etc/resolv.conf")}
        for there, here in {**network, **files}.items():
            shutil.copy(here, root / there)
        (root / "session").write_text(session)
        # In mount and process namespaces of its own: nothing of it is seen outside or stays.
        inside = ["unshare", "--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={root}/proc",
                  "sh", "-c",
                  f"mount --rbind {root} {root} &&"  # `ip netns` wants a mount there
                  f" mount --rbind /dev {root}/dev && mount --rbind /sys {root}/sys &&"
                  f" mount -t tmpfs -o mode=1777 none {root}/dev/shm && exec \"$@\"", "sh"]
        if subprocess.run([*inside, "true"], capture_output=True).returncode != 0:
            skip("'unshare --mount --pid' and mounts in it are not permitted here")
        environment = {name: value for name, value in os.environ.items() if NETWORK.match(name)}
        done = subprocess.run(
            [*inside, "chroot", root, "/bin/sh", "/session"],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **environment})
    return done.returncode
