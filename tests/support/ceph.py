"""A Ceph of one monitor and one store in memory, for the gateway that speaks S3.

Of Debian's packages `radosgw`, `ceph-mon` and `ceph-osd`. It runs as whoever runs the tests, root or not, needs no
privileges, listens on 127.0.0.1 alone, keeps everything below a directory of its own, and ends with the process that
started it.
"""

from __future__ import annotations

import atexit
import ctypes
import shutil
import signal
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import free_port

DEADLINE = 120.0
PROGRAMS = ("radosgw", "radosgw-admin", "ceph", "ceph-mon", "ceph-osd", "monmaptool")

_CONFIGURATION = """
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{port}]
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_mon_client_mode = crc
run_dir = {room}
admin_socket = {room}/$name.asok
log_file = {room}/$name.log
crash_dir = {room}
pid_file =
mon_data = {room}/mon
mon_data_avail_crit = 1
mon_allow_pool_size_one = true
osd_data = {room}/osd
osd_objectstore = memstore
memstore_device_bytes = 4294967296
osd_crush_chooseleaf_type = 0
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
rgw_data = {room}
[osd]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
"""


@dataclass(frozen=True)
class Ceph:
    """A cluster that stores. `room`: where it keeps its configuration and logs."""

    room: Path

    def gateway(self, port: int) -> list[str]:
        """The program that serves S3 at this port."""
        listens = f"--rgw-frontends=beast endpoint=127.0.0.1:{port}"
        return ["radosgw", "-f", "--name", "client.gateway", *self._at, listens]

    def user(self, name: str, access: str, secret: str, *more: str) -> None:
        """A user of the gateway. `more`: for `radosgw-admin user create`."""
        keys = ["--access-key", access, "--secret-key", secret]
        self.run("radosgw-admin", "user", "create", "--uid", name, "--display-name", name, *keys, *more)

    def run(self, program: str, *words: str) -> None:
        """Runs one of its programs to the end."""
        done = subprocess.run(
            [program, *self._at, *words], capture_output=True, text=True, check=False, timeout=DEADLINE, cwd=self.room
        )
        if done.returncode:
            raise AssertionError(f"{program} {' '.join(words)}: {done.stderr.strip()[-2000:]}")

    def start(self, program: str, *words: str) -> None:
        """Starts one that runs until this process ends."""
        with open(self.room / f"{program}.out", "wb") as out:
            started = subprocess.Popen(
                [program, "-f", *self._at, *words], stdout=out, stderr=out, cwd=self.room, preexec_fn=end_with_parent
            )
        atexit.register(end, started)

    @property
    def _at(self) -> list[str]:
        return ["--conf", str(self.room / "ceph.conf")]


def begin(room: Path) -> Ceph:
    """Begins a cluster in an empty directory. It is usable when its first command has been answered."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        raise AssertionError(f"tests need {', '.join(missing)}: apt-get install radosgw ceph-mon ceph-osd")
    ceph, store, cluster, port = Ceph(room), str(uuid.uuid4()), str(uuid.uuid4()), free_port()
    (room / "mon").mkdir()
    (room / "osd").mkdir()
    (room / "ceph.conf").write_text(_CONFIGURATION.format(fsid=cluster, port=port, room=room))
    map_ = str(room / "monitors")
    ceph.run("monmaptool", "--create", "--fsid", cluster, "--addv", "a", f"[v2:127.0.0.1:{port}]", map_)
    ceph.run("ceph-mon", "--id", "a", "--mkfs", "--monmap", map_)
    ceph.start("ceph-mon", "--id", "a")
    ceph.run("ceph", "osd", "new", store)
    ceph.run("ceph-osd", "--id", "0", "--mkfs", "--osd-uuid", store)
    ceph.start("ceph-osd", "--id", "0")
    return ceph


def end_with_parent() -> None:
    """For a process that is being started."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends it, and waits."""
    process.kill()
    process.wait()
