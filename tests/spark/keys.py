"""The keys of an application, for searches that must find none of them."""

import hashlib
import hmac

import spark as sparks


def keys_of(secret, applications):
    """The application's secret and, by its id, what is derived from it. A dict by what it is."""
    keys = {"the secret": secret}
    for application in applications:
        for salt in ("bigcast node 1", "bigcast application 1"):
            keys[salt] = hkdf(secret.encode(), salt.encode(), application.encode()).hex()
    return keys


def applications_of(watch):
    """The ids of the applications of which a Watch saw nodes: sockets are named after them."""
    return {name.rpartition("-")[2] for name in watch.sockets}


def told(area):
    """The settings that the plugin told executors of, by name; their file is removed."""
    lines = sparks.read(area.settings).splitlines()
    area.settings.unlink(missing_ok=True)
    return dict(line.partition("=")[::2] for line in lines)


def events(area):
    """All that its event logs have (see Area.event_log)."""
    return "\n".join(sparks.read(file) for file in area.events.rglob("*") if file.is_file())


def leaks(area, watch, keys, more=None):
    """Which of the keys, a dict by what each is, are in anything that others may see of an
    application: its logs and event log, which there must be, command lines, and `more` texts by where
    they are."""
    seen = {str(file): text for file, text in area.text_of_logs().items()} | (more or {})
    seen |= {f"command line {line[:80]}": line for line in watch.command_lines}
    problems = [f"{key} is in {where}" for where, text in seen.items()
                for key, value in keys.items() if value in text]
    if "SparkListenerEnvironmentUpdate" not in events(area):
        problems.append("the event log shows no environment")
    return problems


def setting(settings, end):
    """The one whose name ends so, or ''."""
    return next((value for key, value in settings.items() if key.endswith(end)), "")


def namespace_key(secret, name_space):
    """What `bigcast key` prints, made of the nodes' secret by other means."""
    key = hkdf(secret.encode(), b"bigcast login 1", name_space.encode())
    return f"bigcast-key-1:{name_space}:{key.hex()}"


def hkdf(secret, salt, info):
    """RFC 5869 with SHA-256 and 32 bytes of output."""
    extracted = hmac.new(salt, secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\1", hashlib.sha256).digest()
