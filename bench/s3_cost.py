"""What sending to S3 costs this machine: CPU seconds for a gigabyte of packs, put through the provider.

    python -m bench.s3_cost [--packs N] [--threads N] [--profile]

The other side is a process of its own that takes everything and keeps nothing, so the figure is the client's alone:
user and system time of this process by getrusage. Plain http on loopback: what TLS adds is not in it. Beside it the
client library as it comes, on the same bytes in the same run.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import hashlib
import os
import pstats
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config

from chatkeep.providers.memo import MemoryMemo
from chatkeep.providers.s3 import facts
from chatkeep.providers.s3.client import Settings
from chatkeep.providers.s3.provider import S3Provider

PACK = 16 << 20
ALLOWED = 0.8
"""CPU seconds for a gigabyte."""
_ROUNDS = 3

_SINK = """
import socket, sys, threading
REPLY = b'HTTP/1.1 200 OK\\r\\nETag: "0"\\r\\nContent-Length: 0\\r\\n\\r\\n'
room = bytearray(1 << 20)
def serve(peer):
    kept = b''
    while True:
        while b'\\r\\n\\r\\n' not in kept:
            more = peer.recv(65536)
            if not more:
                return
            kept += more
        head, _, rest = kept.partition(b'\\r\\n\\r\\n')
        fields = dict(line.lower().split(b': ', 1) for line in head.split(b'\\r\\n')[1:])
        if b'expect' in fields:
            peer.sendall(b'HTTP/1.1 100 Continue\\r\\n\\r\\n')
        left = int(fields.get(b'content-length', 0)) - len(rest)
        while left > 0:
            left -= peer.recv_into(room, min(left, len(room)))
        kept = b''
        peer.sendall(REPLY)
there = socket.create_server(('127.0.0.1', 0))
print(there.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(there.accept()[0],), daemon=True).start()
"""


@contextlib.contextmanager
def sink() -> Iterator[str]:
    """The URL of a server that takes everything."""
    with subprocess.Popen([sys.executable, "-c", _SINK], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


def used() -> float:
    """CPU seconds of this process until now."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


def cost(put: Callable[[str, bytes], object], packs: list[tuple[str, bytes]], threads: int) -> tuple[float, float]:
    """CPU seconds for a gigabyte, and megabytes a second."""
    put(*packs[0])  # connections, and what is imported when it is first used
    before, began = used(), time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(put, *each) for each in packs]:
            done.result()
    size = sum(len(body) for _, body in packs)
    return (used() - before) / size * 1e9, size / (time.perf_counter() - began) / 1e6


def ours(url: str) -> S3Provider:
    """The provider, at a service that was found to verify the signed digest and to know the condition."""
    provider = S3Provider("sink", Settings("bucket", endpoint=url), MemoryMemo())
    provider.learned.keep(facts.Facts(True, "sha256", "md5"))
    return provider


def plain(url: str) -> Callable[[str, bytes], object]:
    """The client library as it comes."""
    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", config=Config(s3={"addressing_style": "path"})
    )
    return lambda name, body: client.put_object(Bucket="bucket", Key=name, Body=body)


def main() -> int:
    """Prints the figures; 1 if the provider's is above what is allowed."""
    parser = argparse.ArgumentParser(prog="python -m bench.s3_cost")
    parser.add_argument("--packs", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--profile", action="store_true", help="where the provider's time goes, in one thread")
    asked = parser.parse_args()
    os.environ.update(AWS_ACCESS_KEY_ID="AKIABENCH", AWS_SECRET_ACCESS_KEY="bench")  # noqa: S106
    bodies = [os.urandom(PACK) for _ in range(4)]
    names = [hashlib.sha256(body).hexdigest() for body in bodies]
    packs = [(f"d/{number}/p/{names[number % 4]}", bodies[number % 4]) for number in range(asked.packs)]
    with sink() as url, contextlib.closing(ours(url)) as provider:
        if asked.profile:
            profiled = cProfile.Profile()
            with profiled:
                for each in packs:
                    provider.put(*each)
            pstats.Stats(profiled).sort_stats("tottime").print_stats(15)
            return 0
        library = plain(url)
        rows = [(cost(provider.put, packs, asked.threads), cost(library, packs, asked.threads)) for _ in range(_ROUNDS)]
    print(f"{asked.packs} packs of 16 MiB, {asked.threads} threads, {_ROUNDS} rounds in turns")
    for word, column in (("the provider", 0), ("boto3 as it comes", 1)):
        figures = [row[column] for row in rows]
        print(f"{word:20} {' '.join(f'{cpu:.2f}' for cpu, _ in figures)} CPU s/GB,", end=" ")
        print(f"{max(speed for _, speed in figures):.0f} MB/s at best")
    worst = max(row[0][0] for row in rows)
    print(f"allowed: {ALLOWED} CPU s/GB; worst: {worst:.2f}")
    return int(worst > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
