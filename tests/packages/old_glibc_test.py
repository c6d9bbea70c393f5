"""Uses the portable programs, and the Python wheel, whose library is linked as the JNI library is, on
a Debian of an older glibc (11: 2.31).

usage: old_glibc_test.py BUILD CACHE; exit code 77 if such a root can't be made here (the last line
says why)."""

import pathlib
import sys

import clean_root

SESSION = r"""
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get -q -y update
apt-get -q -y install --no-install-recommends python3-minimal libpython3-stdlib
python3 -m zipfile -e /package.whl /package
ldd --version | head -n 1

(umask 077; echo a-secret-of-enough-bytes-for-a-test-0123456789 >/secret)
mkdir /disk
bigcastd --listen 127.0.0.1:0 --http none --socket unix:/socket --memory 64m --disk /disk \
  --disk-size 256m --secret-file /secret >/ready &
node=$!
for _ in $(seq 600); do grep -q listen= /ready && break; sleep 0.1; done
export BIGCAST_SERVER=$(sed -n 's/.*listen=\([^ ]*\).*/\1/p' /ready) BIGCAST_SECRET_FILE=/secret
head -c 9000000 /dev/urandom >/big.bin
bigcast put /big.bin --key old/durable --durability disk
bigcast --local unix:/socket get old/durable /copy.bin
cmp /big.bin /copy.bin

PYTHONPATH=/package python3 - <<'END'
import os
import bigcast

data = os.urandom(9_000_000)
with bigcast.connect(os.environ["BIGCAST_SERVER"], secret_file="/secret") as client:
    client.put("old/blob", data)
    assert client.get("old/blob") == data
    assert bytes(client.open("old/blob").view) == data
    client.remove("old/blob")
    try:
        client.open("old/blob")
    except bigcast.BigcastError as error:  # thrown and caught by C++ within
        assert error.code == "NOT_FOUND", error
    else:
        raise AssertionError("a removed blob was found")
END

kill -TERM $node
wait $node
bigcastd --daemonize --listen none --http none --socket unix:/socket --disk /disk \
  --disk-size 256m --secret-file /secret --exit-when-idle 1s 5</secret
echo everything worked
"""


def main(build, cache):
    clean_root.need_portable(build)
    [wheel] = build.glob("bigcast-*manylinux*.whl")
    files = {"package.whl": wheel}
    for program in ("bigcast", "bigcastd"):
        files[f"usr/bin/{program}"] = build / "portable" / program
    return clean_root.run_in(cache, "bullseye", files, SESSION)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        print(__doc__)
        sys.exit(2)
    sys.exit(main(pathlib.Path(sys.argv[1]), sys.argv[2]))
