"""The layers are linked one way only: every include and every link names a layer below its own.

Also holds the checker itself to its word: it must find a breach that the test plants.
"""

import pathlib
import re
import sys
import tempfile
import unittest

# What a folder may include, beside itself. docs/ARCHITECTURE.md draws the same picture.
ALLOWED = {
    "base": set(),
    "codec": {"base"},
    "eviction": {"base"},
    "blobstore": {"base", "codec", "eviction"},
    "rpc": {"base", "codec"},
    "server": {"base", "codec", "eviction", "blobstore", "rpc"},
    "client_native": {"base", "codec", "rpc"},
    "spark_plugin_jni": {"base", "client_native"},
    "python": {"base", "client_native"},
}
# Third-party headers that only these folders may see.
CONFINED = {
    "rocksdb/": {"blobstore"},
    "jni.h": {"spark_plugin_jni"},
    "prometheus/": {"server"},
    "capnp/": {"rpc", "server", "client_native"},
    "kj/": {"rpc", "server", "client_native"},
    "uv.h": {"rpc", "server", "client_native"},
    "lz4.h": {"codec"},
    "xxhash.h": {"codec"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
LINK = re.compile(r"\bbigcast_(\w+)\b")
NOT_LAYERS = {"library", "test", "options", "test_main", "jni", "python", "wheel"}


def breaches(root):
    """All breaches below `root`, one line each."""
    found = []
    for folder, allowed in ALLOWED.items():
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in {".h", ".cc"}:
                found += include_breaches(path, root, folder, allowed)
            elif path.name == "CMakeLists.txt":
                found += link_breaches(path, root, folder, allowed)
    return found


def include_breaches(path, root, folder, allowed):
    name = path.relative_to(root)
    for _, header in INCLUDE.findall(path.read_text(encoding="utf-8")):
        layer = header.split("/")[0]
        if layer in ALLOWED and layer != folder and layer not in allowed:
            yield f"{name}: {folder} must not include {header}"
        for prefix, folders in CONFINED.items():
            if header.startswith(prefix) and folder not in folders:
                yield f"{name}: only {', '.join(sorted(folders))} may include {header}"


def link_breaches(path, root, folder, allowed):
    for target in LINK.findall(path.read_text(encoding="utf-8")):
        if target in NOT_LAYERS or target == folder or target in allowed:
            continue
        if target in ALLOWED:
            yield f"{path.relative_to(root)}: {folder} must not link bigcast_{target}"


class Layers(unittest.TestCase):
    root = None

    def test_the_tree_keeps_to_its_layers(self):
        self.assertEqual([], breaches(self.root))

    def test_every_layer_exists(self):
        for folder in ALLOWED:
            self.assertTrue((self.root / folder / "CMakeLists.txt").exists(), folder)

    def test_a_planted_breach_is_found(self):
        with tempfile.TemporaryDirectory() as scratch:
            root = pathlib.Path(scratch)
            (root / "client_native").mkdir()
            (root / "client_native" / "bad.cc").write_text(
                '#include "blobstore/blob_store.h"\n#include <rocksdb/db.h>\n'
            )
            (root / "client_native" / "CMakeLists.txt").write_text("link(bigcast_server)\n")
            self.assertEqual(3, len(breaches(root)))


if __name__ == "__main__":
    Layers.root = pathlib.Path(sys.argv.pop())
    unittest.main()
