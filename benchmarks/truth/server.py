"""Answers on a socket after the time that it is asked for. Runs in a process of its own, until its input ends.

It prints its port. A request is the delay in seconds as eight bytes; the answer is the same eight bytes.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import time


def serve(connection: socket.socket) -> None:
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while len(request := connection.recv(8)) == 8:
            (delay,) = struct.unpack("d", request)
            if delay > 0:
                time.sleep(delay)
            connection.sendall(request)


def accept(listening: socket.socket) -> None:
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    listening = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=accept, args=(listening,), daemon=True).start()
    print(listening.getsockname()[1], flush=True)
    sys.stdin.read()
    os._exit(0)  # threads in accept and recv have nothing to say
