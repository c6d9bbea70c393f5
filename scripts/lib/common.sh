# shellcheck shell=bash
# shellcheck disable=SC2034 # the scripts that source this use them
# What the scripts share: saying what happens, Debian packages, the JDK, Spark from PyPI, builds.
# Source it; it changes to the root of the repository.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"

# Everything fetched that is worth keeping lives here, outside the repository.
cache=${BIGCAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/bigcast}

# The newest of each Spark line that the tests and the demo run on.
declare -A spark_versions=(
  [3.4]=3.4.4 [3.5]=3.5.9 [4.0]=4.0.5 [4.1]=4.1.4 [4.2]=4.2.1 [4]=4.3.0
)

build_packages=(
  g++ dpkg-dev cmake ninja-build ccache pkg-config git ca-certificates python3
  libcapnp-dev capnproto libuv1-dev librocksdb-dev liblz4-dev libxxhash-dev libmimalloc-dev
  prometheus-cpp-dev libtomlplusplus-dev nlohmann-json3-dev libexpected-dev
  libcli11-dev libspdlog-dev libfmt-dev libssl-dev doctest-dev
)
java_packages=(openjdk-17-jdk-headless maven)
namespace_packages=(python3 iproute2)
spark_packages=(python3-venv openjdk-17-jdk-headless procps "${namespace_packages[@]}")
fault_packages=(nftables faketime chromium prometheus openssl "${namespace_packages[@]}")
cli_packages=(zsh fish groff-base) # they read what the command line writes for them
package_packages=(dpkg-dev file debootstrap)
check_packages=(clang-format clang-tidy shellcheck mypy)
fuzz_packages=(clang-14 libclang-rt-14-dev)

say() { printf '== %s\n' "$*"; }

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "'$*' needs root: run it as root, or install sudo"
  fi
}

# Quiet unless it fails.
apt() {
  local log status=0
  log=$(mktemp)
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" </dev/null >"$log" 2>&1 || status=$?
  [ $status = 0 ] || cat "$log" >&2
  rm -f "$log"
  return $status
}

# Installs those of the packages that are missing, and says which; does nothing otherwise.
need_packages() {
  local missing=() package
  for package in "$@"; do
    if ! dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$'; then
      missing+=("$package")
    fi
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]}"
  if ! apt install --no-install-recommends "${missing[@]}" 2>/dev/null; then
    apt update # no package lists yet, or old ones
    apt install --no-install-recommends "${missing[@]}"
  fi
}

# Sets JAVA_HOME to a JDK 17, on which Spark 3.5 and 4 both run, and puts it first on PATH.
use_java() {
  local home
  for home in "$(dirname "$(dirname "$(realpath "$(command -v javac || echo /)")")")" \
    /usr/lib/jvm/java-17-openjdk-*; do
    if grep -qs '^JAVA_VERSION="17\.' "$home/release" && [ -x "$home/bin/javac" ]; then
      export JAVA_HOME=$home PATH=$home/bin:$PATH
      return
    fi
  done
  die "no JDK 17 found: neither javac on PATH nor /usr/lib/jvm/java-17-openjdk-* is one"
}

# need_spark 3.5|4: makes a Python environment with that Spark line, and sets
# spark_python and SPARK_HOME to what is in it.
need_spark() {
  local version=${spark_versions[$1]:-} venv
  [ -n "$version" ] || die "--spark: unknown line '$1'; known are: ${!spark_versions[*]}"
  venv=$cache/spark-$version
  if [ ! -e "$venv/complete" ]; then
    say "installing Spark $version from PyPI into $venv"
    mkdir -p "$cache"
    [ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
    "$venv/bin/pip" install --no-input -q "pyspark==$version" </dev/null ||
      "$venv/bin/pip" install --no-input -q "pyspark==$version" </dev/null
    touch "$venv/complete"
  fi
  spark_python=$venv/bin/python
  SPARK_HOME=$("$spark_python" -c 'import os, pyspark; print(os.path.dirname(pyspark.__file__))')
  export spark_python SPARK_HOME
}

# need_spark_of_maven: Spark 3.5 for Scala 2.13, of which PyPI has none: its Python and scripts, and
# Maven's jars of Spark SQL, all that it needs, and that Scala's compiler. (Of this version Maven has
# neither MLlib nor GraphX nor the shell for Scala 2.13.)
need_spark_of_maven() {
  local venv=$cache/spark-3.5-scala2.13 packages pom
  need_spark 3.5
  pom="<project xmlns=\"http://maven.apache.org/POM/4.0.0\">
  <modelVersion>4.0.0</modelVersion>
  <groupId>io.bigcast</groupId><artifactId>spark-of-maven</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.spark</groupId><artifactId>spark-sql_2.13</artifactId>
      <version>${spark_versions[3.5]}</version>
    </dependency>
    <dependency>
      <groupId>org.scala-lang</groupId><artifactId>scala-compiler</artifactId>
      <version>2.13.8</version>
    </dependency>
  </dependencies>
</project>"
  if [ ! -e "$venv/complete" ] || [ "$(<"$venv/complete")" != "$pom" ]; then
    say "fetching Spark ${spark_versions[3.5]} for Scala 2.13 by Maven into $venv"
    need_packages "${java_packages[@]}"
    packages=${SPARK_HOME#"$cache/spark-${spark_versions[3.5]}/"}
    rm -rf "$venv"
    mkdir -p "$venv/$packages"
    ln -s "../spark-${spark_versions[3.5]}/bin" "$venv/bin"
    find "$SPARK_HOME" -mindepth 1 -maxdepth 1 ! -name jars -exec ln -s -t "$venv/$packages" {} +
    printf '%s\n' "$pom" >"$venv/pom.xml"
    mvn -B -q -f "$venv/pom.xml" dependency:copy-dependencies \
      "-DoutputDirectory=$venv/$packages/jars" </dev/null
    mv "$venv/pom.xml" "$venv/complete"
  fi
  spark_python=$venv/bin/python
  SPARK_HOME=$(echo "$venv"/lib/python3*/site-packages/pyspark)
}

# need_arrays: NumPy, pandas and Arrow, of lines that Spark 3 takes, beside the Spark that need_spark
# has set. Spark 4 has them by need_connect.
need_arrays() {
  local venv=${spark_python%/bin/python}
  [ -e "$venv/arrays" ] && return
  say "installing NumPy, pandas and Arrow from PyPI into $venv"
  "$venv/bin/pip" install --no-input -q 'numpy<2' 'pandas<2.3' 'pyarrow<18' </dev/null
  touch "$venv/arrays"
}

# need_connect: what a Spark Connect client needs beside the Spark 4 that need_spark has set, NumPy, pandas
# and Arrow among it.
need_connect() {
  local venv=${spark_python%/bin/python}
  [ -e "$venv/connect" ] && return
  say "installing Spark Connect's client from PyPI into $venv"
  "$venv/bin/pip" install --no-input -q "pyspark[connect]==${venv##*/spark-}" 'pandas<3' </dev/null
  touch "$venv/connect"
}

# build PRESET [TARGET...]: configures and builds a preset, quietly unless it fails. The log is kept
# beside it.
build() {
  local preset=$1 log=build/$1.log targets=()
  shift
  [ $# -eq 0 ] || targets=(--target "$@")
  mkdir -p build
  if [ "$preset" = release ] && ! "$root/scripts/lib/static_libraries"; then
    say "going on without: what is built will need the libraries of this machine"
  fi
  say "building preset $preset (takes minutes the first time; $log has its output)"
  if ! { cmake --preset "$preset" && cmake --build --preset "$preset" "${targets[@]}"; } \
    >"$log" 2>&1 </dev/null; then
    tail -n 60 "$log" >&2
    die "the build of preset $preset failed; all of its output is in $log"
  fi
}

plugin_jar=$root/build/release/bigcast-spark-plugin.jar
export plugin_jar cache
