"""Packs the wheel; a build backend of PEP 517 that needs nothing but Python.

    BIGCAST_NATIVE_LIBRARY=build/release/python/libbigcast.so python3 python/backend.py FOLDER

pip uses the same: `pip wheel python`. Without the variable the library of build/release is taken.
"""

import base64
import hashlib
import os
import pathlib
import re
import sys
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
TAG = os.environ.get("BIGCAST_WHEEL_TAG", "py3-none-linux_x86_64")


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """Returns the file's name."""
    version = project_version()
    name = f"bigcast-{version}-{TAG}.whl"
    info = f"bigcast-{version}.dist-info"
    files = {f"bigcast/{path.name}": path.read_bytes()
             for path in sorted((HERE / "src" / "bigcast").iterdir()) if path.is_file()}
    files["bigcast/libbigcast.so"] = native_library().read_bytes()
    files[f"{info}/METADATA"] = metadata(version).encode()
    files[f"{info}/WHEEL"] = (f"Wheel-Version: 1.0\nGenerator: bigcast\n"
                              f"Root-Is-Purelib: false\nTag: {TAG}\n").encode()
    record = "".join(f"{path},sha256={digest(data)},{len(data)}\n" for path, data in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    target = pathlib.Path(wheel_directory) / name
    with zipfile.ZipFile(target.with_suffix(".part"), "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, data in files.items():
            entry = zipfile.ZipInfo(path)  # of a fixed date: the same files make the same wheel
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            wheel.writestr(entry, data)
    target.with_suffix(".part").replace(target)
    return name


def build_sdist(sdist_directory, config_settings=None):
    raise NotImplementedError("there is no source distribution: build the wheel in the repository")


def project_version():
    text = (HERE.parent / "CMakeLists.txt").read_text(encoding="utf-8")
    return re.search(r"project\(bigcast VERSION ([\d.]+)", text).group(1)


def native_library():
    given = os.environ.get("BIGCAST_NATIVE_LIBRARY")
    path = pathlib.Path(given) if given else HERE.parent / "build/release/python/libbigcast.so"
    if not path.is_file():
        raise SystemExit(f"{path} is not there: build the repository first (CONTRIBUTING.md), or name"
                         " it in BIGCAST_NATIVE_LIBRARY")
    return path


def metadata(version):
    project = (HERE / "pyproject.toml").read_text(encoding="utf-8")
    summary = re.search(r'^description = "(.*)"$', project, re.MULTILINE).group(1)
    python = re.search(r'^requires-python = "(.*)"$', project, re.MULTILINE).group(1)
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    return (f"Metadata-Version: 2.1\nName: bigcast\nVersion: {version}\nSummary: {summary}\n"
            f"License: Apache-2.0\nRequires-Python: {python}\n"
            f"Description-Content-Type: text/markdown\n\n{readme}")


def digest(data):
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


if __name__ == "__main__":
    build_wheel(sys.argv[1])
