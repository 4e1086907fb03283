"""What every entry point sets before it imports Prefect: quiet, offline, no telemetry, no orphans.

What Ray, MLflow and webdataset are told stands where they are imported: `tasks/adapters/cluster.py`, `tracking.py` and
`shards.py`.
"""

from __future__ import annotations

import os
import subprocess
import uuid

SETTINGS = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",  # the command line draws its own progress
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # a new database takes longer than the default 20
    "PYTHONWARNINGS": "ignore::DeprecationWarning,ignore::FutureWarning",
}

# Waits until this process is gone, however it went, then ends what still carries its mark: Prefect's temporary server
# survives a SIGKILL of the run that started it and would hold 200 MB and the caller's pipe.
_KEEPER = """
cat > /dev/null
for e in $(grep -lsz "^DSOL_SESSION=$0\\$" /proc/[0-9]*/environ); do
    p=${e%/environ}; p=${p#/proc/}
    [ "$p" = "$$" ] || kill "$p" 2> /dev/null
done
"""


def prepare() -> None:
    """Set what is not set yet; call it before the first import of Prefect."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def leave_no_orphans() -> None:
    """Make sure that processes started from here on end with this process, even when it is killed."""
    session = uuid.uuid4().hex
    keeper = subprocess.Popen(
        ["/bin/sh", "-c", _KEEPER, session],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.environ["DSOL_SESSION"] = session
    _keepers.append(keeper)  # its pipe closes when this process ends


_keepers: list[subprocess.Popen[bytes]] = []
