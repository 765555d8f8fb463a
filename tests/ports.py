"""Ports of this machine."""

import socket


def free_port() -> int:
    """One that nobody listens on: oldest supported launchers do not look for one themselves."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
