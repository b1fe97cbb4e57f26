"""What can be wrong with MLflow during an evaluation, and how it gets well again."""

import os
import resource
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from tests.support.process import free_port
from tests.support.proxy import Fault, recording_proxy
from tests.support.servers import MlflowServer


@dataclass
class Servers:
    """The MLflow servers of all troubles."""

    lasting: MlflowServer
    """Nothing happens to it: what misbehaves is in front of it."""
    mortal: MlflowServer
    empty_store: Path
    """An SQLite database of MLflow's with nothing in it."""
    turn: threading.Lock = field(default_factory=threading.Lock)
    """Whose turn it is to hurt the mortal one."""


@dataclass
class Trouble:
    """One evaluation's MLflow."""

    uri: str
    """As the evaluation is told."""
    store: str
    """Where it can be looked at: a server, or the database."""
    strike: Callable[[], None] | None = None
    """Makes it misbehave midway; None: it does from the start."""
    sleep: float = 1.5
    """Seconds of each of a sample's three model calls, where it misbehaves midway."""
    flush_timeout: int = 4
    """Seconds that the evaluation may wait at its end."""
    heal: Callable[[], None] = lambda: None
    healed_environ: Mapping[str, str] = field(default_factory=dict)
    """What the import needs in its environment beside the evaluation's."""


Play = Callable[[Servers, Path, str], Any]
"""Context manager of a Trouble, for servers, a folder, and the name of the experiment."""


def answers(fault: Fault, *, midway: bool = False, sleep: float = 1.5) -> Play:
    """A server, or something in front of it, that answers wrongly."""

    @contextmanager
    def play(servers: Servers, folder: Path, experiment: str) -> Iterator[Trouble]:
        with recording_proxy(servers.lasting.uri, fault=None if midway else fault) as proxy:

            def set_fault(value: Fault | None) -> None:
                proxy.fault = value

            yield Trouble(
                proxy.uri,
                servers.lasting.uri,
                strike=(lambda: set_fault(fault)) if midway else None,
                sleep=sleep,
                heal=lambda: set_fault(None),
            )

    return play


@contextmanager
def refuses(servers: Servers, folder: Path, experiment: str) -> Iterator[Trouble]:
    """Nobody listens there, until later."""
    port = free_port()
    with ExitStack() as later:

        def heal() -> None:
            later.enter_context(recording_proxy(servers.lasting.uri, port=port))

        yield Trouble(f"http://127.0.0.1:{port}", servers.lasting.uri, heal=heal)


@contextmanager
def has_no_address(servers: Servers, folder: Path, experiment: str) -> Iterator[Trouble]:
    """A name that does not resolve."""
    yield Trouble(
        "http://mlflow.invalid:5000",
        servers.lasting.uri,
        healed_environ={"MLFLOW_TRACKING_URI": servers.lasting.uri},
    )


@contextmanager
def has_a_bad_certificate(servers: Servers, folder: Path, experiment: str) -> Iterator[Trouble]:
    """Its certificate is signed by nobody that the client knows."""
    certificate, authority = _certificate(folder)
    with recording_proxy(servers.lasting.uri, certificate=certificate) as proxy:
        yield Trouble(
            proxy.uri,
            servers.lasting.uri,
            healed_environ={"MLFLOW_TRACKING_SERVER_CERT_PATH": str(authority)},
        )


@contextmanager
def deletes_the_experiment(servers: Servers, folder: Path, experiment: str) -> Iterator[Trouble]:
    """Somebody deletes the experiment."""
    client = servers.lasting.client()

    def strike() -> None:
        found = client.get_experiment_by_name(experiment)
        assert found is not None
        client.delete_experiment(found.experiment_id)

    yield Trouble(servers.lasting.uri, servers.lasting.uri, strike=strike)


@contextmanager
def dies(servers: Servers, folder: Path, experiment: str) -> Iterator[Trouble]:
    """It is killed, and started again after the evaluation."""
    with servers.turn:
        process = servers.mortal.process
        try:
            yield Trouble(
                servers.mortal.uri, servers.mortal.uri, strike=process.kill, heal=process.start
            )
        finally:
            if not process.running:
                process.start()


@contextmanager
def dies_and_comes_back(servers: Servers, folder: Path, experiment: str) -> Iterator[Trouble]:
    """It is killed, and comes back on the same port and database while the evaluation runs."""
    with servers.turn:
        process = servers.mortal.process

        def strike() -> None:
            process.kill()
            process.start()

        yield Trouble(servers.mortal.uri, servers.mortal.uri, strike=strike, flush_timeout=150)


@contextmanager
def has_a_locked_database(servers: Servers, folder: Path, experiment: str) -> Iterator[Trouble]:
    """Another process holds the write lock of its database."""
    with servers.turn:
        lock = sqlite3.connect(
            servers.mortal.db_path, isolation_level=None, check_same_thread=False, timeout=60
        )
        try:
            yield Trouble(
                servers.mortal.uri,
                servers.mortal.uri,
                strike=lambda: lock.executescript("BEGIN IMMEDIATE").close(),
                heal=lock.rollback,
            )
        finally:
            lock.close()


@contextmanager
def is_a_locked_file(servers: Servers, folder: Path, experiment: str) -> Iterator[Trouble]:
    """There is no server, and another process holds the write lock of the database."""
    uri = f"sqlite:///{shutil.copy(servers.empty_store, folder / 'mlflow.db')}"
    lock = sqlite3.connect(
        folder / "mlflow.db", isolation_level=None, check_same_thread=False, timeout=60
    )
    try:
        yield Trouble(
            uri,
            uri,
            strike=lambda: lock.executescript("BEGIN IMMEDIATE").close(),
            heal=lock.rollback,
        )
    finally:
        lock.close()


@contextmanager
def is_no_database(servers: Servers, folder: Path, experiment: str) -> Iterator[Trouble]:
    """There is no server, and the file is not a database."""
    (folder / "mlflow.db").write_bytes(b"no database".ljust(4096))
    uri = f"sqlite:///{folder / 'mlflow.db'}"

    def heal() -> None:
        shutil.copy(servers.empty_store, folder / "mlflow.db")

    yield Trouble(uri, uri, heal=heal)


@contextmanager
def is_no_postgres(servers: Servers, folder: Path, experiment: str) -> Iterator[Trouble]:
    """Nobody listens there, or the driver is not installed."""
    yield Trouble(
        f"postgresql://mlflow@127.0.0.1:{free_port()}/mlflow",
        servers.lasting.uri,
        healed_environ={"MLFLOW_TRACKING_URI": servers.lasting.uri},
    )


@contextmanager
def has_no_space(servers: Servers, folder: Path, experiment: str) -> Iterator[Trouble]:
    """Its files can't grow any more."""
    with servers.turn:
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)

        def limit(size: int) -> None:
            for pid in servers.mortal.process.pids():
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, unlimited[1]))

        try:
            yield Trouble(
                servers.mortal.uri,
                servers.mortal.uri,
                strike=lambda: limit(servers.mortal.db_path.stat().st_size),
                heal=lambda: limit(unlimited[0]),
            )
        finally:
            limit(unlimited[0])


_ANSWERS = {
    "500": Fault(status=500),
    "503, Retry-After": Fault(status=503, headers={"Retry-After": "2"}),
    "429": Fault(status=429),
    "401": Fault(status=401),
    "403": Fault(status=403),
    "413": Fault(status=413),
}

TROUBLES: Mapping[str, Play] = {
    # the longest first, and those of the mortal server apart from each other
    "dies and comes back": dies_and_comes_back,
    "hangs midway": answers(Fault(hang=True), midway=True, sleep=3),
    "slow": answers(Fault(delay=5)),
    "dies": dies,
    "refused": refuses,
    "black hole": answers(Fault(hang=True)),
    "database locked": has_a_locked_database,
    "database file locked": is_a_locked_file,
    "no database file": is_no_database,
    "no postgres": is_no_postgres,
    "no such name": has_no_address,
    "disk full": has_no_space,
    "bad certificate": has_a_bad_certificate,
    **{name: answers(fault) for name, fault in _ANSWERS.items()},
    "503 midway": answers(_ANSWERS["503, Retry-After"], midway=True),
    "500 midway": answers(_ANSWERS["500"], midway=True),
    "401 midway": answers(_ANSWERS["401"], midway=True),
    "413 for large requests": answers(Fault(status=413, above_bytes=20_000)),
    "experiment deleted": deletes_the_experiment,
}


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1: with its key, and alone."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    alone, both = folder / "certificate.pem", folder / "certificate-and-key.pem"
    alone.write_bytes(certificate)
    both.write_bytes(certificate + secret)
    os.chmod(both, 0o600)
    return both, alone
