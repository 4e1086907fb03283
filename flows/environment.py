"""What every entry point sets before it imports Prefect: quiet, offline, no telemetry, no orphans.

What Ray, MLflow and webdataset are told stands where they are imported: `tasks/adapters/cluster.py`, `tracking.py` and
`shards.py`.
"""

from __future__ import annotations

import http.client
import logging
import os
import ssl
import subprocess
import urllib.error
import urllib.request
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


def check_server() -> None:
    """Ask the Prefect server that PREFECT_API_URL names whether it is there.

    Raises:
        DsolError: it does not answer.
    """
    from dsol_core.types import DsolError

    address = os.environ["PREFECT_API_URL"]
    try:
        urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=5).close()
    except urllib.error.HTTPError:  # it answers; whether it lets us in shows later
        return
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(getattr(error, "reason", None), ssl.SSLError):
            return  # something answers; Prefect has settings of its own for whom it trusts
        raise DsolError(
            f"PREFECT_API_URL is {address}, which does not answer ({error}); start that server, or unset it and each "
            "command starts a temporary one"
        ) from error


def say_own_errors_once() -> None:
    """Keep Prefect's console from writing dsol's own errors with their stack: the command line says them in a line.

    To be called when Prefect is imported. Its server gets them as before.
    """
    for handler in (*logging.root.handlers, *logging.getLogger("prefect").handlers):
        handler.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    from dsol_core.types import DsolError

    error = record.exc_info[1] if record.exc_info else None
    ended = record.name.startswith("prefect.") and "Finished in state Failed" in record.getMessage()
    return not (isinstance(error, DsolError) or ended)


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
