"""What the benches share: sizes and rates, CPU time, raw sockets, tables and JSON lines.

Standard library only.
"""

import argparse
import json
import os
import re
import socket
import statistics
import sys
import threading
import time

MEBI = 1 << 20
GIGA = 10**9
CANNOT_RUN_HERE = 77  # the exit code for it; scripts/test counts that as skipped


def cannot_run(why):
    """Ends the bench: this machine does not permit what it needs."""
    print(f"can't run here: {why}", flush=True)
    sys.exit(CANNOT_RUN_HERE)


def run(main):
    """Runs a bench; Ctrl-C ends it as it ends any command, once its context managers are left."""
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)


def parse_size(text):
    """'512m' -> bytes; suffixes k, m and g are powers of 1024."""
    match = re.fullmatch(r"(\d+)([kmg]?)", text.lower())
    if not match or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"a size such as 64k, 512m or 2g, not '{text}'")
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[match[2]]


def size_text(size):
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 1 << shift and size % (1 << shift) == 0:
            return f"{size >> shift} {unit}"
    return f"{size} B"


def parse_rate(text):
    """'1gbit' -> the same, checked; bits_per_second() reads it."""
    if not re.fullmatch(r"\d+(\.\d+)?[mg]bit", text) or bits_per_second(text) == 0:
        raise argparse.ArgumentTypeError(f"a rate such as 300mbit or 1gbit, not '{text}'")
    return text


def bits_per_second(rate):
    return float(rate[:-4]) * {"m": 1e6, "g": 1e9}[rate[-4]]


def positive(text):
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"a number above 0, not '{text}'")
    return int(text)


def list_of(parse):
    """For arguments such as 1,8,64: each part is parsed."""
    return lambda text: [parse(part) for part in text.split(",")]


def available_mib():
    """Memory that programs can have now."""
    with open("/proc/meminfo", encoding="ascii") as file:
        fields = dict(line.split(":") for line in file)
    return int(fields["MemAvailable"].split()[0]) // 1024


# ---- CPU time ----

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """CPU time of a living process, user and system, all threads, to the nanosecond."""
    cpu_clock = (~pid << 3) | 2  # the kernel's MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)
    return time.clock_gettime(cpu_clock)


def machine_busy_seconds():
    """CPU time that anything on this machine has used, over all cores, since it started."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, idle, iowait, irq, softirq, steal = map(
            int, file.readline().split()[1:9]
        )
    del idle, iowait, steal
    return (user + nice + system + irq + softirq) / _TICKS


class Ending:
    """Waits for a Popen on a thread of its own, so that its end is seen when it happens."""

    def __init__(self, process):
        self._process = process
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self):
        _, status, usage = os.wait4(self._process.pid, 0)
        self.at = time.monotonic()
        self.cpu_seconds = usage.ru_utime + usage.ru_stime
        self._process.returncode = self.exit_code = os.waitstatus_to_exitcode(status)

    def ended(self):
        return not self._thread.is_alive()

    def join(self):
        """at (time.monotonic), cpu_seconds and exit_code are set once this returns."""
        self._thread.join()
        return self


# ---- Raw sockets ----


def raw_seconds(hosts, sender, receiver, data):
    """How long one TCP connection takes for the data, from its first byte to its last's arrival."""
    with hosts.inside(receiver):
        listener = socket.create_server((hosts.address(receiver), 0))
    with listener:
        with hosts.inside(sender):
            source = socket.create_connection(listener.getsockname()[:2])
        target, _ = listener.accept()

    def send():
        with source:
            source.sendall(data)

    thread = threading.Thread(target=send)
    buffer = bytearray(MEBI)
    received = 0
    with target:
        started = time.monotonic()
        thread.start()
        while received < len(data):
            got = target.recv_into(buffer)
            if got == 0:
                break
            received += got
        took = time.monotonic() - started
    thread.join()
    if received != len(data):
        raise SystemExit(f"the raw socket moved {received} of {len(data)} bytes")
    return took


# ---- Results ----


def medians(rows):
    """The medians of each number of the rows, by name."""
    return {
        name: statistics.median(row[name] for row in rows)
        for name, value in rows[0].items()
        if isinstance(value, (int, float))
    }


def print_table(columns, rows):
    """columns: (heading, name or function of a row, format); text is to the left, figures right."""
    cells = [[heading for heading, _, _ in columns]]
    for row in rows:
        line = []
        for _, get, form in columns:
            value = get(row) if callable(get) else row.get(get)
            line.append("-" if value is None else format(value, form))
        cells.append(line)
    widths = [max(map(len, column)) for column in zip(*cells)]
    figures = [bool(form) for _, _, form in columns]
    rule = [f"{'-' * (width + 1)}{':' if right else '-'}" for width, right in zip(widths, figures)]
    print()
    for number, line in enumerate(cells):
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, figures)
        ]
        print("| " + " | ".join(padded) + " |")
        if number == 0:
            print("|" + "|".join(rule) + "|")
    print(flush=True)


def print_json(rows):
    for row in rows:
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
        print(json.dumps(rounded), flush=True)
