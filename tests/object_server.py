"""A real server of the S3 protocol on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.flows.servers import answers, free_port, get, wait_for

BUCKET = "dsol-tests"


@contextmanager
def object_server() -> Iterator[dict[str, str]]:
    """Start a server with an empty bucket; yields what its clients need in their environment."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: answers(f"{address}/moto-api/data.json"), 60, every=0.1, describe="the start of the S3 server")
        environment = {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        try:
            from tasks.adapters.objects import Objects

            system, prefix = Objects(f"s3://{BUCKET}?allow_bucket_creation=true").filesystem()
            system.create_dir(prefix)
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        yield environment
    finally:
        server.kill()
        server.wait()


def clear(address: str) -> None:
    """Forget all buckets."""
    get(f"{address}/moto-api/reset", {})
