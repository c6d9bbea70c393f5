"""A TCP proxy that misbehaves as it is told, between any two of clients, nodes and relays.

    with FaultProxy(seed=7) as proxy:
        node = Node(binaries, "--advertise", proxy.address)
        proxy.forward_to(node.listen)
        proxy.faults.silent_up = True  # from now on, for all connections

It listens from the start, so that a node can advertise it. One thread does everything; attributes
of `faults` may be set at any time by another. "Up" is from whoever connects, "down" to them.
"""

import dataclasses
import random
import selectors
import socket
import struct
import threading
import time

PIECE = 64 * 1024
TURN_S = 0.02  # how soon it notices what was set
QUEUE_MAX = 256 * 1024  # bytes held of a direction: then the sender is no longer read


@dataclasses.dataclass
class Faults:
    """What is wrong with the network now. Positions and periods are bytes of one connection."""

    silent_up: bool = False  # nothing is forwarded, nothing is closed
    silent_down: bool = False
    delay_s: float = 0.0  # of each piece, each way
    rate: float = 0.0  # bytes a second of each direction of each connection; 0: no limit
    reset_every: int = 0  # both ends get an RST after so many bytes down
    flip_every: int = 0  # a bit of the byte after each so many, down
    flip_at: frozenset = frozenset()  # a bit of the bytes at these positions, down
    flip_up_at: frozenset = frozenset()  # ... and up

    def silence(self, silent=True):
        self.silent_up = self.silent_down = silent


class Direction:
    """One way of a connection: what was read and not yet passed on."""

    def __init__(self, source, target, is_down):
        self.source, self.target, self.is_down = source, target, is_down
        self.queue = []  # (when it may go, bytes)
        self.queued = 0
        self.passed = 0
        self.allowance = 0.0
        self.allowed_at = time.monotonic()
        self.ended = False  # the source has closed
        self.shut = False  # ... and the target knows

    def wants_to_read(self):
        return not self.ended and self.queued < QUEUE_MAX

    def due(self, now, faults):
        """How many bytes may go now."""
        size = sum(len(piece) for when, piece in self.queue if when <= now)
        if faults.rate:
            self.allowance += (now - self.allowed_at) * faults.rate
            self.allowance = min(self.allowance, max(PIECE, faults.rate * 4 * TURN_S))
            size = min(size, int(self.allowance))
        self.allowed_at = now
        return size

    def is_silent(self, faults):
        return faults.silent_down if self.is_down else faults.silent_up


class Connection:
    def __init__(self, client, server):
        self.sockets = (client, server)
        self.up = Direction(client, server, False)
        self.down = Direction(server, client, True)
        self.clogged = False
        self.dead = False

    def directions(self):
        return (self.up, self.down)


class FaultProxy:
    def __init__(self, seed=1):
        self.random = random.Random(seed)
        self.faults = Faults()
        self.connections = 0  # so far
        self.resets = self.flips = 0
        self.bytes_up = self.bytes_down = 0  # passed on
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._listener.setblocking(False)
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        self._target = None
        self._open = []
        self._lock = threading.Lock()  # of _open
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def forward_to(self, host_port):
        host, port = host_port.rsplit(":", 1)
        self._target = (host, int(port))

    def stop(self):
        self._stopping = True
        self._thread.join()

    def clog_some(self):
        """Holds up a random part of the open connections, and lets go of the others."""
        with self._lock:
            for connection in self._open:
                connection.clogged = self.random.random() < 0.5

    def unclog(self):
        with self._lock:
            for connection in self._open:
                connection.clogged = False

    def reset_all(self):
        with self._lock:
            for connection in self._open:
                self._reset(connection)

    # ---- On the proxy's thread.

    def _run(self):
        while not self._stopping:
            with selectors.PollSelector() as selector:
                self._wait(selector)
            now = time.monotonic()
            with self._lock:
                for connection in self._open:
                    self._serve(connection, now)
                self._open = [c for c in self._open if not c.dead]
        for connection in self._open:
            self._close(connection)
        self._listener.close()

    def _wait(self, selector):
        events = {}
        if self._target:
            events[self._listener] = selectors.EVENT_READ
        now = time.monotonic()
        with self._lock:  # reset_all() closes sockets
            for connection in self._open:
                for direction in connection.directions():
                    if connection.dead or self._is_held(connection, direction):
                        continue
                    if direction.wants_to_read():
                        events[direction.source] = (
                            events.get(direction.source, 0) | selectors.EVENT_READ)
                    if direction.queue and direction.due(now, self.faults):
                        events[direction.target] = (
                            events.get(direction.target, 0) | selectors.EVENT_WRITE)
            for each, mask in events.items():
                selector.register(each, mask)
        ready = selector.select(TURN_S)
        if any(key.fileobj is self._listener for key, _ in ready):
            self._accept()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            self.connections += 1
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                client.close()
                continue
            for each in (client, server):
                each.setblocking(False)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.append(Connection(client, server))

    def _is_held(self, connection, direction):
        return connection.clogged or direction.is_silent(self.faults)

    def _serve(self, connection, now):
        for direction in connection.directions():
            if connection.dead or self._is_held(connection, direction):
                continue
            try:
                self._receive(direction, now)
                self._send(connection, direction, now)
            except OSError:
                self._close(connection)
        if all(direction.shut for direction in connection.directions()):
            self._close(connection)

    def _receive(self, direction, now):
        if not direction.wants_to_read():
            return
        try:
            piece = direction.source.recv(PIECE)
        except BlockingIOError:
            return
        if not piece:
            direction.ended = True
            return
        direction.queue.append((now + self.faults.delay_s, piece))
        direction.queued += len(piece)

    def _send(self, connection, direction, now):
        due = direction.due(now, self.faults)
        while due > 0 and direction.queue:
            when, piece = direction.queue[0]
            part = self._cut(direction, piece[:due])
            flips = self._flips(direction, len(part))
            try:
                sent = direction.target.send(self._damaged(part, flips))
            except BlockingIOError:
                return
            self.flips += sum(1 for position in flips if position < sent)
            self._count(direction, sent)
            due -= sent
            direction.queue[0] = (when, piece[sent:])
            if not direction.queue[0][1]:
                direction.queue.pop(0)
            every = self.faults.reset_every
            if direction.is_down and every and direction.passed >= every:
                self.resets += 1
                self._reset(connection)
                return
            if sent < len(part):
                return
        if direction.ended and not direction.queue and not direction.shut:
            direction.shut = True
            direction.target.shutdown(socket.SHUT_WR)

    def _cut(self, direction, piece):
        """No further than to the next reset."""
        every = self.faults.reset_every
        return piece[: every - direction.passed] if direction.is_down and every else piece

    def _flips(self, direction, size):
        """Where in the next `size` bytes."""
        faults, begin = self.faults, direction.passed
        at = faults.flip_at if direction.is_down else faults.flip_up_at
        positions = {p - begin for p in at if begin <= p < begin + size}
        if direction.is_down and faults.flip_every:
            first = (begin // faults.flip_every + 1) * faults.flip_every - begin
            positions |= set(range(first, size, faults.flip_every))
        return positions

    def _damaged(self, piece, flips):
        if not flips:
            return piece
        damaged = bytearray(piece)
        for position in flips:
            damaged[position] ^= 1 << self.random.randrange(8)
        return bytes(damaged)

    def _count(self, direction, sent):
        direction.passed += sent
        direction.queued -= sent
        if self.faults.rate:
            direction.allowance -= sent
        if direction.is_down:
            self.bytes_down += sent
        else:
            self.bytes_up += sent

    def _reset(self, connection):
        linger_none = struct.pack("ii", 1, 0)
        for each in connection.sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_none)
        self._close(connection)

    @staticmethod
    def _close(connection):
        connection.dead = True
        for each in connection.sockets:
            each.close()
