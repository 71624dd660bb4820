"""A real Slurm with five nodes on this machine. It needs no systemd and changes no file of the system.

Each node is a slurmd with its own host name, /etc/hosts and process numbers, by namespaces. When a namespace ends, all
its processes are killed: that is how a node is lost. Slurm believes that each node has four GPUs, because device files
of that name exist. Every daemon is a child process that is killed when this process ends for any reason.
"""

import contextlib
import ctypes
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from pathlib import Path

INSTALL = "apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "unshare")
GPUS = 4
NODES = ("box1", "box2", "box3", "box4", "box5")
NODE = ("unshare", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
SEARCH = "/usr/sbin:/sbin:" + os.environ["PATH"]
CONFIGURATION = """\
ClusterName=box
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a job that is queued again has to wait
AuthInfo=socket={folder}/munge/sock,cred_expire=5
StateSaveLocation={folder}/ctld
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
GresTypes=gpu
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout={patience}
KillWait=30
UnkillableStepTimeout=10
CompleteWait=0
MinJobAge=7200
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
{nodes}
PartitionName=main Nodes=ALL Default=YES State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=grace Nodes=ALL State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=urgent Nodes=ALL State=UP PriorityTier=9 PreemptMode=OFF
"""


def missing() -> str | None:
    """Why no Slurm can be started on this machine, with a remedy; None if it can."""
    absent = [program for program in PROGRAMS if shutil.which(program, path=SEARCH) is None]
    if absent:
        return f"{absent[0]} is not installed: {INSTALL}"
    if subprocess.run([*NODE, "true"], capture_output=True).returncode != 0:
        return "host names of its own for every node need root (CAP_SYS_ADMIN)"
    return None


class Slurmbox:
    """Started and stopped by ``with``.

    patience: seconds after which a node that does not answer is down (Slurm's own default is 300).
    """

    def __init__(self, patience: int = 10):
        self.folder, self.patience = Path(tempfile.mkdtemp(prefix="box", dir="/tmp")), patience  # sockets: short names
        # UCX, of MPI: nodes share a network and no memory.
        own = {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": SEARCH, "UCX_TLS": "tcp,self"}
        self.environment = os.environ | own
        self._nodes: dict[str, subprocess.Popen] = {}
        self._others: list[subprocess.Popen] = []  # munged, slurmctld

    def __enter__(self):
        try:
            self._configure()
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for node in list(self._nodes):
            self.lose(node)
        for daemon in reversed(self._others):
            daemon.kill()
            daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, *words, check: bool = True) -> str:
        """Call a command of Slurm and return its output."""
        done = subprocess.run(list(map(str, words)), env=self.environment, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0 or not check, f"{words}: {done.stderr}"
        return done.stdout.strip()

    def job(self, job: str) -> dict[str, str]:
        """What scontrol knows about a job, by its names; {} if Slurm does not know the job."""
        text = self.call("scontrol", "-o", "show", "job", job, check=False)
        return dict(word.partition("=")[::2] for word in text.split() if "=" in word)

    def wait(self, job: str, *states: str, seconds: float = 400) -> dict[str, str]:
        """Wait until a job is in one of the states; what scontrol knows then."""
        deadline = time.monotonic() + seconds
        while (facts := self.job(job)).get("JobState") not in states:
            assert time.monotonic() < deadline, f"job {job} is {facts.get('JobState')}, not one of {states}"
            time.sleep(0.1)
        return facts

    def hosts(self, job: str) -> list[str]:
        """The nodes of a job; the one that runs the batch script first."""
        facts = self.job(job)
        names = self.call("scontrol", "show", "hostnames", facts["NodeList"]).split()
        return sorted(names, key=lambda name: name != facts["BatchHost"])

    def lose(self, node: str) -> None:
        """As when its power fails: the daemon and all processes of the node are killed at once."""
        daemon = self._nodes.pop(node)
        daemon.kill()
        daemon.wait()

    def start_node(self, node: str) -> None:
        """Start the slurmd of a node, in the network of the machine. The shell reaps processes without a parent."""
        inside = f"hostname {node} && mount --bind {self.folder}/hosts /etc/hosts && {{ slurmd -D -N {node} & wait; }}"
        self._nodes[node] = self._daemon(*NODE, "sh", "-c", inside)

    def _configure(self):
        host = socket.gethostname().partition(".")[0]
        for name in ("ctld", "log", "munge", *(f"spool.{node}" for node in NODES)):
            (self.folder / name).mkdir()
        self.folder.chmod(0o755)
        port, *ports = _free_ports(1 + len(NODES))
        line = f"NodeName={{}} NodeAddr=127.0.0.1 Port={{}} CPUs={{}} Gres=gpu:{GPUS} State=UNKNOWN"
        nodes = "\n".join(line.format(node, place, os.cpu_count()) for node, place in zip(NODES, ports))
        text = CONFIGURATION.format(host=host, folder=self.folder, port=port, nodes=nodes, patience=self.patience)
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # never used; slurmd insists on one
        for number in range(GPUS):
            os.mknod(self.folder / f"nvidia{number}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))  # as /dev/null
        (self.folder / "gres.conf").write_text(
            f"Name=gpu File={self.folder}/nvidia[0-{GPUS - 1}] Flags=nvidia_gpu_env\n"
        )
        addresses = ["127.0.0.1 localhost", f"127.0.0.1 {host}"]
        addresses += [f"127.0.0.{10 + number} {node}" for number, node in enumerate(NODES)]
        (self.folder / "hosts").write_text("\n".join(addresses) + "\n")
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)

    def _start(self):
        d = self.folder
        munge = ["munged", "--foreground", "--force", f"--key-file={d}/munge.key", f"--socket={d}/munge/sock"]
        munge += [f"--pid-file={d}/munge/pid", f"--log-file={d}/log/munged.log", f"--seed-file={d}/munge/seed"]
        self._others.append(self._daemon(*munge))
        self._wait_for(lambda: (d / "munge/sock").exists())
        self._others.append(self._daemon("slurmctld", "-D", "-c", "-f", d / "slurm.conf"))
        for node in NODES:
            self.start_node(node)
        states = lambda: self.call("sinfo", "-h", "-N", "-p", "main", "-o", "%T", check=False).split()  # noqa: E731
        self._wait_for(lambda: states() == ["idle"] * len(NODES))

    def _daemon(self, *words) -> subprocess.Popen:
        with open(self.folder / "log/daemons", "a") as output:
            return subprocess.Popen(
                list(map(str, words)), env=self.environment, stdout=output, stderr=output, preexec_fn=_die_with_parent
            )

    def _wait_for(self, condition, seconds: float = 60):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (self.folder / "log/daemons").read_text()[-3000:]
            time.sleep(0.05)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _free_ports(count: int) -> list[int]:
    """Free ports below the ephemeral ones, which outgoing connections take at any time."""
    found = []
    for port in random.sample(range(10_000, 20_000), 1000):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise OSError("no free ports")
