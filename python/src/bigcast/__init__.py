"""Large objects in the memory of a host's Bigcast node, shared by all processes there.

With PySpark, on an application that runs the Bigcast plugin::

    import bigcast
    table = bigcast.broadcast(sc, matrix)            # a NumPy array of a gigabyte, say
    rdd.map(lambda i: table.value[i].sum())          # read-only, one copy a host

Without Spark, on any node::

    client = bigcast.connect("127.0.0.1:7420", local_node="unix:@bigcast")
    client.put("team/matrix", matrix, mappable=True)
    view = client.open("team/matrix").view           # a read-only memoryview of the node's memory
"""

from ._client import Blob, Client, connect
from ._native import BigcastError, version as _version
from ._spark import Broadcast, broadcast

__all__ = ["BigcastError", "Blob", "Broadcast", "Client", "broadcast", "connect"]


def __getattr__(name: str) -> str:
    if name == "__version__":
        return _version()
    raise AttributeError(f"module 'bigcast' has no attribute {name!r}")
