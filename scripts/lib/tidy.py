"""Runs clang-tidy over the project's own .cc files, two at a time, and remembers what passed.

    tidy.py BUILD_DIR CACHE_DIR [--all]

BUILD_DIR holds compile_commands.json. Checked is what ships, without the tests; a file, or what CMake
compiles as one, is checked again when it, a file of the project that it includes, the clang-tidy
configuration or clang-tidy itself changed. --all checks every one, those of the tests, too.
"""

import concurrent.futures
import hashlib
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
JOBS = 2
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


def in_root(path):
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def sources(path):
    """The file, or those that CMake put together in it (CMAKE_UNITY_BUILD)."""
    if path.suffix != ".cxx":
        return [path]
    return [pathlib.Path(name) for name in INCLUDE.findall(path.read_text(encoding="utf-8"))]


def ours(build, patterns):
    """The entries of compile_commands.json for tracked files, by path inside the repository."""
    listed = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, check=True, capture_output=True, text=True
    )
    tracked = set(listed.stdout.splitlines())
    entries = json.loads((build / "compile_commands.json").read_text(encoding="utf-8"))
    found, seen = {}, set()
    for entry in entries:
        path = pathlib.Path(entry["directory"], entry["file"]).resolve()
        files = frozenset(map(in_root, sources(path)))
        if tracked.issuperset(files) and files not in seen:  # some are in several programs
            seen.add(files)
            found[in_root(path)] = entry["command"]
    return found


def project_files(path):
    """The file and all files of the project that it includes, directly or not."""
    found, queue = {}, [path]
    while queue:
        file = queue.pop()
        if file in found:
            continue
        found[file] = file.read_bytes()
        for name in INCLUDE.findall(found[file].decode("utf-8", "replace")):
            queue += [f for f in (ROOT / name, file.parent / name) if f.is_file()][:1]
    return found


def fingerprint(common, path, command):
    """The same in every checkout: what CMake writes names its place."""
    here = str(ROOT).encode()
    digest = hashlib.sha256(common + command.encode().replace(here, b""))
    for file, content in sorted(project_files(ROOT / path).items()):
        name = str(file.relative_to(ROOT)).encode()
        digest.update(name + b"\0" + content.replace(here, b"") + b"\0")
    return digest.hexdigest()


def check(build, path):
    done = subprocess.run(
        ["clang-tidy", "--quiet", "-p", str(build), str(ROOT / path)],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )
    return done.returncode == 0, done.stdout if done.stdout.strip() else done.stderr


def main():
    build, cache = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
    cache.mkdir(parents=True, exist_ok=True)
    version = subprocess.run(["clang-tidy", "--version"], check=True, capture_output=True).stdout
    common = version + (ROOT / ".clang-tidy").read_bytes()
    # Generated headers are not ours, but ours depend on them: the schema stands for them.
    common += b"".join(path.read_bytes() for path in sorted(ROOT.glob("rpc/*.capnp")))
    check_all = "--all" in sys.argv
    entries = ours(build, ["*.cc"] if check_all else ["*.cc", ":!tests/"])
    marks = {p: cache / fingerprint(common, p, command) for p, command in entries.items()}
    todo = [p for p in sorted(entries) if check_all or not marks[p].exists()]
    print(f"{len(todo)} of {len(entries)} files to check", flush=True)
    failed = []
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        for path, (passed, output) in zip(todo, pool.map(lambda p: check(build, p), todo)):
            if passed:
                marks[path].touch()
            else:
                failed.append(path)
                print(f"{path}\n{output}", flush=True)
    print("\n".join(f"failed: {path}" for path in failed))
    sys.exit(1 if failed or not entries else 0)


if __name__ == "__main__":
    main()
