"""A Slurm cluster of this machine alone, for tests: the real daemons, on loopback, all files under one folder.

Two partitions share the node: ``main``, whose jobs are requeued when a job of ``urgent`` needs their cores. A third,
``large``, is down and has two nodes of eight GPUs: what asks for them is read and queued by Slurm, and never starts.
"""

import getpass
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Debian keeps the daemons where only root looks.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol")
MISSING = [name for name in NEEDED if shutil.which(name, path=SEARCH_PATH) is None]
HOW_TO_INSTALL = "apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"

NUM_CPUS = 2

# linuxproc, because cgroups can't be had in every container. cred_expire is the least that is allowed: a requeued job
# waits for its old credential to end, 120 s by default. Slurm 22.05 knows preempt_send_user_signal at this place only.
# config_overrides lets a machine with fewer cores pass for the node described here.
SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/sock,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoAddrCache,NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/log/jobcomp.txt
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
SwitchType=switch/none
MpiDefault=none
GresTypes=gpu
ReturnToService=2
JobRequeue=1
KillWait=5
MinJobAge=600
SlurmdTimeout=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs={num_cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={num_cpus} \
ThreadsPerCore=1 RealMemory=4000 State=UNKNOWN
NodeName=gpu[1-2] NodeAddr=127.0.0.1 Port={unused_port} CPUs=64 Boards=1 SocketsPerBoard=1 CoresPerSocket=64 \
ThreadsPerCore=1 RealMemory=4000 Gres=gpu:8 State=DOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=15
PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=large Nodes=gpu[1-2] MaxTime=INFINITE State=DOWN PriorityTier=1 PreemptMode=OFF
"""


@dataclass(frozen=True)
class Cluster:
    """A running cluster; commands that are run by it find it through ``SLURM_CONF``."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """For whatever is to see this cluster; one thread a process, since a node has two cores."""
        # A session that runs in a job of another cluster carries its SLURM_* and SBATCH_* variables, which would win.
        own = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
        here = {"PATH": SEARCH_PATH, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        return own | here | {"SLURM_CONF": str(self.folder / "slurm.conf"), "OMP_NUM_THREADS": "1"}

    def run(self, command: Sequence[str | Path], *, cwd: Path | None = None, check: bool = True) -> str:
        """What a command prints; its stderr is in the failure."""
        words = [str(word) for word in command]
        ran = subprocess.run(words, cwd=cwd, env=self.environment, capture_output=True, text=True, timeout=120)
        if check and ran.returncode:
            raise AssertionError(f"{' '.join(words)} ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}")
        return ran.stdout

    def submit(self, script: Path, *options: str, cwd: Path | None = None) -> str:
        """Submit a script as it is; the job's id."""
        return self.run(["sbatch", "--parsable", *options, script], cwd=cwd).strip().split(";")[0]

    def job(self, job: str) -> dict[str, str]:
        """What Slurm knows of a job (``12``) or a task of an array (``12_0``), by Slurm's own names."""
        shown = self.run(["scontrol", "--oneliner", "show", "job", job]).splitlines()[0]
        # A value may hold blanks (a path does), so a value ends where the next name begins.
        parts = re.split(r"(?:^| )([A-Z][\w/:]*)=", shown)
        return dict(zip(parts[1::2], (value.strip() for value in parts[2::2]), strict=True))

    def wait(self, job: str, states: str | Sequence[str] = "COMPLETED", timeout: float = 90) -> dict[str, str]:
        """Wait until a job is in one of ``states``; the failure holds its output and the daemons' logs."""
        wanted = (states,) if isinstance(states, str) else tuple(states)
        final = {"COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"}
        deadline = time.monotonic() + timeout
        while (found := self.job(job))["JobState"] not in wanted:
            if found["JobState"] in final or time.monotonic() > deadline:
                raise AssertionError(f"job {job} is {found['JobState']}, not {wanted}\n{self.logs(job)}")
            time.sleep(0.25)
        return found

    def preempt(self, job: str, seconds: int = 5) -> str:
        """Take all cores from a job of ``main`` by an urgent one of so many seconds; the urgent job's id."""
        assert self.job(job)["Partition"] == "main"
        options = ["--partition=urgent", f"--ntasks={NUM_CPUS}", "--output=/dev/null", f"--wrap=sleep {seconds}"]
        return self.run(["sbatch", "--parsable", *options], cwd=self.folder).strip()

    def cancel(self, *jobs: str) -> None:
        """Cancel these jobs, or all."""
        self.run(["scancel", *(jobs or [f"--user={getpass.getuser()}"])], check=False)

    def logs(self, job: str | None = None) -> str:
        """The ends of the daemons' logs and of a job's output, and all that Slurm knows of it."""
        paths = [self.folder / "log" / "slurmctld.log", self.folder / "log" / "slurmd.log"]
        parts = []
        if job is not None:
            known = self.job(job)
            parts.append(" ".join(f"{name}={value}" for name, value in known.items()))
            paths.append(Path(known.get("StdOut", os.devnull)))
        for path in paths:
            if path.is_file():
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-40:]
                parts.append("\n".join([f"== {path}", *lines]))
        return "\n".join(parts)


def free_ports(number: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start(folder: Path) -> Cluster:
    for name in ("munge", "state", "spool", "log"):
        (folder / name).mkdir(parents=True)
    (folder / "munge").chmod(0o700)
    key = folder / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    host = socket.gethostname().split(".")[0]
    controller_port, node_port, unused_port = free_ports(3)
    text = SLURM_CONF.format(
        host=host,
        controller_port=controller_port,
        node_port=node_port,
        unused_port=unused_port,
        user=getpass.getuser(),
        folder=folder,
        num_cpus=NUM_CPUS,
    )
    (folder / "slurm.conf").write_text(text)
    (folder / "gres.conf").write_text("NodeName=gpu[1-2] Name=gpu Count=8\n")
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nConstrainCores=no\n")
    cluster = Cluster(folder)
    files = {"socket": "sock", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    cluster.run(["munged", "--force", *(f"--{name}={folder / 'munge' / file}" for name, file in files.items())])
    cluster.run(["slurmctld", "-f", folder / "slurm.conf"])
    cluster.run(["slurmd", "-f", folder / "slurm.conf", "-N", host])
    deadline = time.monotonic() + 30
    while cluster.run(["sinfo", "-h", "-o", "%T", "-p", "main"], check=False).strip() != "idle":
        if time.monotonic() > deadline:
            raise AssertionError(f"the cluster's node is not ready\n{cluster.logs()}")
        time.sleep(0.1)
    return cluster


def stop(cluster: Cluster) -> None:
    """End the jobs, then the daemons, each by the id that it wrote down."""
    if (cluster.folder / "slurmd.pid").is_file():
        cluster.cancel()
        deadline = time.monotonic() + 15
        while cluster.run(["squeue", "-h", "-t", "running,completing"], check=False) and time.monotonic() < deadline:
            time.sleep(0.1)
    for path in ("slurmd.pid", "slurmctld.pid", "munge/pid"):
        try:
            pid = int((cluster.folder / path).read_text())
        except (FileNotFoundError, ValueError):
            continue  # it never started
        end(pid)


def end(pid: int) -> None:
    for number, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 2.0)):
        deadline = time.monotonic() + seconds
        try:
            os.kill(pid, number)
            while time.monotonic() < deadline:
                os.kill(pid, 0)
                time.sleep(0.05)
        except ProcessLookupError:
            return


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """A cluster with its files under ``folder``, which is to be new and have a short path without blanks."""
    try:
        yield start(folder)
    finally:
        stop(Cluster(folder))


if __name__ == "__main__":
    # By hand: python tests/slurm_cluster.py start|stop FOLDER, then export SLURM_CONF=FOLDER/slurm.conf
    verb, where = sys.argv[1], Path(sys.argv[2]).resolve()
    start(where) if verb == "start" else stop(Cluster(where))
