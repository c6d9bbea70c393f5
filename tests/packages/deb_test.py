"""Installs the Debian package in a clean root and uses it there.

usage: deb_test.py PACKAGE.deb CACHE; exit code 77 if such a root can't be made here (the last line
says why)."""

import sys

import clean_root

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
grep -q 'get and look after blobs' /usr/share/man/man1/bigcast.1
grep -q doctor /usr/share/bash-completion/completions/bigcast

# What the service needs: its user, its settings, and a unit that names what is there.
id bigcast
bigcastd --config /etc/bigcast/bigcastd.toml --check-config >/dev/null
grep -q '^User=bigcast$' /usr/lib/systemd/system/bigcastd.service
grep -q "^ExecStart=$(command -v bigcastd) " /usr/lib/systemd/system/bigcastd.service

apt-get -q -y purge bigcast
test ! -e /usr/bin/bigcastd
test ! -e /usr/share/bigcast
test ! -e /etc/bigcast
echo everything worked
"""


if __name__ == "__main__":
    if len(sys.argv) != 3:
        print(__doc__)
        sys.exit(2)
    package, cache = sys.argv[1:]
    sys.exit(clean_root.run_in(cache, "bookworm", {"package.deb": package}, SESSION))
