"""Uses the Python wheel, whose library is linked as the JNI library is, on a Debian of an older glibc
(11: 2.31), against a node that runs on this one.

usage: old_glibc_test.py WHEEL BIGCASTD CACHE; exit code 77 if such a root can't be made here (the
last line says why)."""

import pathlib
import subprocess
import sys
import tempfile

import clean_root

SESSION = r"""
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get -q -y update
apt-get -q -y install --no-install-recommends python3-minimal libpython3-stdlib
python3 -m zipfile -e /package.whl /package
ldd --version | head -n 1
PYTHONPATH=/package python3 - <<'END'
import hashlib, os
import bigcast

data = os.urandom(9_000_000)
with bigcast.connect(os.environ["NODE"], secret_file="/secret") as client:
    ref = client.put("old/blob", data)
    assert client.get("old/blob") == data
    assert bytes(client.open(ref).view) == data
    client.remove("old/blob")
    try:
        client.open("old/blob")
    except bigcast.BigcastError as error:  # thrown and caught by C++ within
        assert error.code == "NOT_FOUND", error
    else:
        raise AssertionError("a removed blob was found")
try:
    bigcast.connect(os.environ["NODE"], secret="not the secret of this node at all")
except bigcast.BigcastError as error:
    assert error.code == "UNAUTHENTICATED", error
else:
    raise AssertionError("a wrong secret was taken")
print("everything worked")
END
"""


def main(wheel, program, cache):
    with tempfile.TemporaryDirectory(prefix="bigcast-old-") as folder:
        secret = pathlib.Path(folder) / "secret"
        secret.touch(mode=0o600)
        secret.write_text("a-secret-of-enough-bytes-for-a-test-0123456789")
        node = subprocess.Popen(
            [program, "--listen", "127.0.0.1:0", "--http", "none", "--socket",
             f"unix:{folder}/socket", "--memory", "64m", "--secret-file", secret],
            stdout=subprocess.PIPE, text=True)
        try:
            ready = node.stdout.readline().split()
            [listen] = [word[len("listen="):] for word in ready if word.startswith("listen=")]
            return clean_root.run_in(cache, "bullseye", {"package.whl": wheel, "secret": secret},
                                     SESSION, env={"NODE": listen})
        finally:
            node.terminate()
            node.wait()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        print(__doc__)
        sys.exit(2)
    sys.exit(main(*sys.argv[1:]))
