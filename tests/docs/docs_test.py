"""What the documents say can be followed: links lead somewhere, commands and their flags exist, settings
that are named exist, Python compiles, what programs warn of is explained, and the README's quick start
works as it is written.

usage: docs_test.py ROOT BINARIES"""

import fnmatch
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import unittest

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
SUBCOMMAND = re.compile(r"^ {2}([a-z]+) {2,}", re.M)
SPARK_KEY = re.compile(r"spark\.bigcast\.[A-Za-z.]*[A-Za-z]")
PROGRAMS = ("bigcast", "bigcastd")


def documents():
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "*.md"], capture_output=True, text=True,
                            check=True).stdout.split()
    return [ROOT / name for name in listed]


def without_code(text):
    return re.sub(r"`[^`]*`", "", re.sub(r"^(?: {4}|\t).*$", "", text, flags=re.M))


def anchors(path):
    """As the usual renderers make them of headings."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M):
        plain = re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).strip().lower())
        found.add(plain.replace(" ", "-"))
    return found


def commands(text):
    """The command lines in code that is set off, and in backquotes."""
    blocks = re.findall(r"^ {4}(.*(?:\\\n.*)*)$", text, re.M)
    for line in [*blocks, *re.findall(r"`([^`\n]+)`", text)]:
        yield line.replace("\\\n", " ")


def help_of(*command):
    done = subprocess.run([BINARIES / command[0], *command[1:], "--help"], capture_output=True,
                          text=True, check=False)
    return done.stdout if done.returncode == 0 else None


# ---- What programs warn of, as their sources have it.
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
CALLS = {  # the calls' beginnings, by what the files' names end with
    (".cc", ".h"): re.compile(r"log\(\)\.(?:warn|error|critical)\("),
    (".java",): re.compile(r"Warnings\.(?:once|LOG\.(?:warn|error))\("),
    (".py",): re.compile(r"_support\(\w+\)\.warn\("),
}
RELAYED = "text"  # of PythonSupport.warn, whose callers are found in Python


def first_argument(text, at):
    """A call's first argument, from behind its parenthesis: a string that has {} for what is not one."""
    found, depth, other = "", 0, False
    while depth > 0 or text[at] not in ",)":
        if text.startswith('f"', at) and not other:
            at += 1  # Python's
        string = STRING.match(text, at)
        if string and depth == 0:
            found += re.sub(r"\{[^{}]*\}", "{}", string[1].replace('\\"', '"'))
            at, other = string.end(), False
            continue
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if not other and not text[at].isspace() and text[at] != "+":
            found, other = found + "{}", True
        other = other and text[at] != "+"
        at = string.end() if string else at + 1
    return found


def warnings():
    """Pairs of a file and what it warns of, with {} for what differs."""
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "*.cc", "*.h", "*.java", "*.py"],
                            capture_output=True, text=True, check=True).stdout.split()
    for name in listed:
        if name.startswith("tests/") or "/src/test/" in name:
            continue
        call = next(call for ends, call in CALLS.items() if name.endswith(ends))
        text = (ROOT / name).read_text(encoding="utf-8")
        for match in call.finditer(text):
            if not text.startswith(RELAYED, match.end()):
                yield name, first_argument(text, match.end())


def messages(text, header):
    """The code in the first columns of the tables whose first column has such a heading."""
    for table in re.findall(rf"^\| {header} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.M):
        for row in table.splitlines():
            yield from re.findall(r"`([^`]+)`", row.split(" | ")[0])


def tells_of(written, warned):
    """Whether a table means that text; where the table has … at the end, its beginning will do."""
    whole = ".+".join(re.escape(part) for part in re.split(r"(?:\{\})+", warned))
    start = written.removesuffix("…")
    return (re.fullmatch(whole, written) is not None
            or start != written and len(start) > 20 and warned.startswith(start))


class Documents(unittest.TestCase):
    def test_what_programs_warn_of_is_explained(self):
        warned = list(warnings())
        for part in ("server/", "blobstore/", "spark_plugin_jni/", "python/", "client_native/"):
            self.assertTrue([name for name, _ in warned if name.startswith(part)], part)
        vague = [f"{name}: {text}" for name, text in warned if len(text.partition("{}")[0]) < 6]
        self.assertEqual([], vague, "give them a beginning that can be looked for")
        text = (ROOT / "docs/OPERATIONS.md").read_text(encoding="utf-8")
        for what in ("node", "plugin"):
            self.assertGreater(len(list(messages(text, f"what the {what} warns of"))), 10)
        explained = list(messages(text, "what the .*"))
        self.assertEqual([], [f"{name}: {text}" for name, text in warned
                              if not any(tells_of(each, text) for each in explained)])
        self.assertEqual([], [each for each in messages(text, "what the .* warns of")
                              if not any(tells_of(each, text) for _, text in warned)],
                         "nothing says so any more")

    def test_links_lead_somewhere(self):
        broken = []
        for document in documents():
            for target in LINK.findall(without_code(document.read_text(encoding="utf-8"))):
                if re.match(r"[a-z]+:", target):
                    continue
                path, _, anchor = target.partition("#")
                file = (document.parent / path).resolve() if path else document
                if not file.exists():
                    broken.append(f"{document.name}: {target}: no such file")
                elif anchor and file.suffix == ".md" and anchor not in anchors(file):
                    broken.append(f"{document.name}: {target}: no such heading")
        self.assertEqual([], broken)

    def test_scripts_that_are_named_exist(self):
        missing = []
        for document in documents():
            for line in commands(document.read_text(encoding="utf-8")):
                words = line.split()
                for word in words[:1]:
                    if re.fullmatch(r"(scripts|tests|build/release/bin)/[\w./-]+", word):
                        there = BINARIES / pathlib.Path(word).name
                        if not (ROOT / word).exists() and not there.exists():
                            missing.append(f"{document.name}: {word}")
                if words[:1] == ["scripts/bench"] and words[1:]:
                    if not (ROOT / "scripts/bench.d" / f"{words[1]}.py").exists():
                        missing.append(f"{document.name}: {line}")
        self.assertEqual([], missing)

    def test_commands_and_flags_that_are_named_exist(self):
        top = {program: help_of(program) for program in PROGRAMS}
        subcommands = {name: help_of("bigcast", name) for name in SUBCOMMAND.findall(top["bigcast"])}
        self.assertIn("put", subcommands)
        wrong = []
        for document in documents():
            for line in commands(document.read_text(encoding="utf-8")):
                line = re.sub(r"\s#.*", "", line).strip()
                words = line.split()
                if words[:1] not in ([program] for program in PROGRAMS) or words[-1].isdigit():
                    continue  # "bigcast login 1" is a label of key derivation
                known = top[words[0]]
                named = [word for word in words[1:] if word in subcommands]
                if words[0] == "bigcast":
                    known += "".join(subcommands[name] or "" for name in named[:1])
                    first = next((w for w in words[1:] if re.fullmatch(r"[a-z]+", w)), None)
                    if len(words) > 1 and re.fullmatch(r"[a-z]+", words[1]) and first not in subcommands:
                        wrong.append(f"{document.name}: {line}: no command '{first}'")
                wrong += [f"{document.name}: {line}: no flag {flag}" for flag in FLAG.findall(line)
                          if not re.search(re.escape(flag) + r"(?![\w-])", known)]
        self.assertEqual([], wrong)

    def test_spark_settings_that_are_named_exist(self):
        known = set(SPARK_KEY.findall((ROOT / "docs/SPARK-CONFIG.md").read_text(encoding="utf-8")))
        self.assertIn("spark.bigcast.minSize", known)
        unknown = [f"{document.name}: {key}" for document in documents()
                   for key in SPARK_KEY.findall(document.read_text(encoding="utf-8"))
                   if key not in known and not any(k.startswith(key + ".") for k in known)]
        self.assertEqual([], unknown)

    def test_the_plugin_s_metrics_are_those_that_it_registers(self):
        folder = ROOT / "spark_plugin_jni/src/main/java/io/bigcast/spark"
        source = (folder / "Metrics.java").read_text(encoding="utf-8")
        source = source.replace('delegated_" + label + "_total"', 'delegated_REASON_total"')
        of_driver, of_both = (set(re.findall(r'\(registry, "(\w+)"', part))
                              for part in source.split("void registerExecutor"))
        text = (ROOT / "docs/METRICS.md").read_text(encoding="utf-8")
        rows = dict(re.findall(r"^\| `(\w+)` \| (driver(?:, executors)?) \|", text, re.M))
        self.assertEqual({**dict.fromkeys(of_driver, "driver"),
                          **dict.fromkeys(of_both, "driver, executors")}, rows)
        reasons = re.findall(r"^    ([A-Z_]+)\(", (folder / "BigcastStats.java").read_text(
            encoding="utf-8"), re.M)
        [row] = re.findall(r"^\| `broadcasts_delegated_REASON_total` .*", text, re.M)
        self.assertEqual([reason.lower() for reason in reasons], re.findall(r"`(\w+)`", row)[1:])

    def test_the_quick_start_works(self):
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        [block] = re.findall(r"## On the command line\n\n((?: {4}.*\n)+)", text)
        lines = [re.sub(r"\s+#.*", "", line.strip()) for line in block.splitlines()]
        self.assertEqual(5, len(lines))
        build, node, *rest = lines
        # As this tree was built.
        self.assertEqual("cmake --preset release && cmake --build --preset release"
                         " && PATH=$PWD/build/release/bin:$PATH", build)
        self.assertTrue(node.startswith("bigcastd ") and node.endswith(" --daemonize"), node)
        script = [
            "set -e", f"PATH={shlex.quote(str(BINARIES))}:$PATH",
            # The same, on ports of its own, since others may use the usual ones.
            f"{node} --listen 127.0.0.1:0 --http none >ready",
            "pid=$(sed -n 's/.* pid=//p' ready)", "trap 'kill -KILL $pid' ERR",
            "export BIGCAST_SERVER=$(sed -n 's/.*listen=\\([^ ]*\\).*/\\1/p' ready)", *rest,
            "cmp big.bin copy.bin", "bigcast rm team/big", "kill $pid",
            "for _ in $(seq 600); do kill -0 $pid 2>/dev/null || exit 0; sleep 0.1; done", "false"]
        for told in ("bigcast rm team/big", "kill"):
            self.assertIn(f"`{told}`", text)
        with tempfile.TemporaryDirectory(prefix="bigcast-docs-") as folder:
            (pathlib.Path(folder) / "big.bin").write_bytes(os.urandom(9_000_000))
            done = subprocess.run(["bash", "-c", "\n".join(script)], cwd=folder, text=True,
                                  capture_output=True, timeout=120, check=False)
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        self.assertIn("team/big", done.stdout)

    def test_python_in_documents_compiles(self):
        compiled = 0
        for document in documents():
            text = document.read_text(encoding="utf-8")
            for block in re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S):
                line = text.count("\n", 0, block.start(1))
                compile("\n" * line + block[1], str(document), "exec")
                compiled += 1
        self.assertGreaterEqual(compiled, 2)

    def test_what_pip_installs_is_what_is_packaged(self):
        script = (ROOT / "scripts/package").read_text(encoding="utf-8")
        [made] = re.findall(r'^cp "\$root/build/release/(\S+)\.whl "\$out"$', script, re.M)
        self.assertIn("\nout=$root/build/packages\n", script)
        wheel = made.replace('"', "").replace("$version", "1.0").replace("*", "py3-none-any") + ".whl"
        named = [word for document in documents()
                 for line in commands(document.read_text(encoding="utf-8"))
                 if line.split()[:2] == ["pip", "install"]
                 for word in line.partition(" #")[0].split()[2:]]
        self.assertNotEqual([], named)
        self.assertEqual([], [word for word in named if not word.startswith("-") and not
                              fnmatch.fnmatchcase(f"build/packages/{wheel}", word)])


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    ROOT, BINARIES = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)
