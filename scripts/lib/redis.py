"""A redis-server of our own, and the two commands that the benches send it.

Debian's redis-tools has the server too, which looks at the name it is called by; unlike the package
redis-server it does not set up a service. Standard library only.
"""

import os
import pathlib
import socket
import threading
import time

PROGRAM = "/usr/bin/redis-check-rdb"  # the same file as redis-server
START_S = 30
IN_FLIGHT = 8  # gets; the server buffers what it can't send


def available():
    """'' if there is a Redis to run, else why not."""
    return "" if os.access(PROGRAM, os.X_OK) else "no redis-tools (Debian)"


class Redis:
    """A server on a TCP port of loopback, without persistence; hosts ends it."""

    def __init__(self, hosts, scratch):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        program = pathlib.Path(scratch) / "redis-server"
        if not program.exists():
            program.symlink_to(PROGRAM)
        options = {"port": self._port, "bind": "127.0.0.1", "save": "", "appendonly": "no"}
        options.update(dir=scratch, logfile="redis.log", loglevel="warning")
        argv = [str(program)]
        for name, value in options.items():
            argv += [f"--{name}", str(value)]
        self.process = hosts.start(0, argv)
        self.pid = self.process.pid
        deadline = time.monotonic() + START_S
        while True:
            try:
                self._socket = socket.create_connection(("127.0.0.1", self._port))
                break
            except ConnectionRefusedError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("redis-server did not start") from None
                time.sleep(0.02)

    def stop(self):
        self._socket.close()
        self.process.terminate()
        self.process.wait()

    def set_all(self, data, value_size):
        """Stores the data as values of that size, keys being their numbers; replies are checked."""
        count = -(-len(data) // value_size)

        def send():
            for number in range(count):
                value = data[number * value_size : (number + 1) * value_size]
                self._command(b"SET", number, value)

        thread = threading.Thread(target=send)
        thread.start()
        for _ in range(count):
            if self._line() != b"+OK":
                raise SystemExit("redis: SET failed")
        thread.join()

    def get_all(self, count, value_size, use):
        """Calls use(bytes) with each value in turn; the view is valid until it returns."""
        buffer = memoryview(bytearray(value_size + 2))
        for number in range(min(IN_FLIGHT, count)):
            self._command(b"GET", number)
        for number in range(count):
            size = int(self._line().removeprefix(b"$"))
            filled = 0
            while filled < size + 2:
                filled += self._socket.recv_into(buffer[filled : size + 2])
            if number + IN_FLIGHT < count:
                self._command(b"GET", number + IN_FLIGHT)
            use(buffer[:size])

    def _command(self, name, number, value=None):
        key = str(number).encode()
        head = b"*%d\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (
            2 if value is None else 3, len(name), name, len(key), key
        )
        if value is None:
            self._socket.sendall(head)
            return
        self._socket.sendall(head + b"$%d\r\n" % len(value))
        self._socket.sendall(value)
        self._socket.sendall(b"\r\n")

    def _line(self):
        line = bytearray()
        while not line.endswith(b"\r\n"):
            byte = self._socket.recv(1)
            if not byte:
                raise SystemExit("redis closed the connection")
            line += byte
        return bytes(line[:-2])
