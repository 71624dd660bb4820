"""The topology from the environments that launchers make."""

import pytest

from nivp_dist.cluster.topology import (
    CANDIDATES,
    Meeting,
    Topology,
    detect,
    first_host,
    local_devices,
    ports_of,
    tasks_per_node,
)
from nivp_dist.errors import InputError

# A step over both parts of a heterogeneous job (srun --het-group=0,1) in Slurm 22.05: one task, and two tasks.
HETEROGENEOUS = {
    "SLURM_CLUSTER_NAME": "box",
    "SLURM_HET_SIZE": "2",
    "SLURM_JOB_ID": "5",
    "SLURM_JOB_ID_HET_GROUP_0": "5",
    "SLURM_JOB_ID_HET_GROUP_1": "6",
    "SLURM_JOB_NODELIST": "box[1-2]",
    "SLURM_JOB_NODELIST_HET_GROUP_1": "box2",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NTASKS": "3",
    "SLURM_NTASKS_HET_GROUP_1": "2",
    "SLURM_PROCID": "2",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "box[1-2]",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_TASKS_PER_NODE": "1,2",
    "SLURM_TASKS_PER_NODE_HET_GROUP_1": "2",
}
THREE = {"NIVP_PROCESSES": "3", "NIVP_PROCESS_ID": "2", "NIVP_MEETING": "node1:1234"}
STEP = {
    "SLURM_CLUSTER_NAME": "alps",
    "SLURM_JOB_ID": "17",
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "6",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_PROCID": "4",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NODELIST": "node[07-08]",
    "SLURM_STEP_TASKS_PER_NODE": "4,2",
}


def test_without_a_launcher_a_process_is_alone():
    assert detect({}) == Topology(1, 0, "alone")
    assert detect({"NIVP_PROCESSES": ""}) == Topology(1, 0, "alone")
    assert detect(STEP | {"NIVP_PROCESSES": "1"}) == Topology(1, 0, "alone")


def test_launch_local_sets_three_variables():
    assert detect(THREE) == Topology(3, 2, "launch/local", 3, 2, Meeting("node1", (1234,), "local-1234"))


def test_a_step_of_slurm_meets_on_its_first_host():
    place = detect(STEP)
    assert place[:5] == (6, 4, "srun", 2, 0) and not place.mpi
    assert place.meeting.host == "node07" and place.meeting.token == "alps.17.0.0"


def test_slurm_with_one_and_several_tasks_a_node():
    one = STEP | {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
    assert detect(one | {"SLURM_PROCID": "1"})[:5] == (2, 1, "srun", 1, 0)
    several = STEP | {"SLURM_STEP_TASKS_PER_NODE": "3(x2)", "SLURM_LOCALID": "2", "SLURM_PROCID": "5"}
    assert detect(several)[:5] == (6, 5, "srun", 3, 2)


def test_a_heterogeneous_job_of_slurm():
    place = detect(HETEROGENEOUS)
    assert place[:5] == (3, 2, "srun", 2, 1)
    first = {"SLURM_PROCID": "0", "SLURM_NODEID": "0", "SLURM_LOCALID": "0"}
    assert detect(HETEROGENEOUS | first)[:5] == (3, 0, "srun", 1, 0)
    assert place.meeting.host == "box1" and detect(HETEROGENEOUS | first).meeting == place.meeting


def test_other_steps_jobs_and_restarts_meet_elsewhere():
    changes = [{}, {"SLURM_STEP_ID": "1"}, {"SLURM_JOB_ID": "18"}, {"SLURM_RESTART_COUNT": "1"}]
    # The tasks of an array are jobs of their own; the last of them has the number of the array.
    array = {"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_COUNT": "2"}
    changes += [
        array | {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_JOB_ID": job} for task, job in enumerate(("41", "40"))
    ]
    meetings = [detect(STEP | change).meeting for change in changes]
    assert len({meeting.token for meeting in meetings}) == len({meeting.ports[0] for meeting in meetings}) == 6
    assert all(detect(STEP | {"SLURM_PROCID": str(i)}).meeting == meetings[0] for i in range(6))


def test_a_job_of_one_task_is_alone_in_and_outside_a_step():
    one = STEP | {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}
    assert detect(one) == Topology(1, 0, "alone")
    assert detect({"SLURM_JOB_ID": "17", "SLURM_NTASKS": "1"}) == Topology(1, 0, "alone")


def test_mpirun_of_mpich_and_of_open_mpi():
    hydra = {"PMI_SIZE": "4", "PMI_RANK": "3", "MPI_LOCALNRANKS": "2", "MPI_LOCALRANKID": "1"}
    assert detect(hydra) == Topology(4, 3, "mpirun", 2, 1, None, True)
    names = ("SIZE", "RANK", "LOCAL_SIZE", "LOCAL_RANK")
    open_mpi = {f"OMPI_COMM_WORLD_{name}": value for name, value in zip(names, "4321")}
    with pytest.raises(InputError):
        detect(open_mpi | {"OMPI_COMM_WORLD_RANK": "4"})
    assert detect(open_mpi) == Topology(4, 3, "mpirun", 2, 1, None, True)
    # Inside a job mpirun starts its proxies by srun: the numbers of that step do not count.
    assert (
        detect(STEP | {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"} | hydra).launcher
        == "mpirun"
    )


@pytest.mark.parametrize("prefix", ["MV2", "MVP"])
def test_mpirun_of_mvapich(prefix):
    names = ("SIZE", "RANK", "LOCAL_SIZE", "LOCAL_RANK")
    assert detect({f"{prefix}_COMM_WORLD_{name}": value for name, value in zip(names, "4321")}) == Topology(
        4, 3, "mpirun", 2, 1, None, True
    )


def test_mpiexec_of_pals():
    pals = {"PALS_RANKID": "3", "PALS_LOCAL_RANKID": "1", "PALS_LOCAL_SIZE": "2"}
    cray = pals | {"PMI_SIZE": "4", "PMI_RANK": "3", "PMI_LOCAL_RANK": "1"}
    assert detect(cray) == Topology(4, 3, "mpirun", 2, 1, None, True)
    assert detect(pals | {"PMI_SIZE": "4", "PMI_RANK": "3"}) == detect(cray)


def test_jsrun_of_lsf():
    jsm = {"JSM_NAMESPACE_SIZE": "4", "JSM_NAMESPACE_RANK": "3"}
    jsm |= {"JSM_NAMESPACE_LOCAL_SIZE": "2", "JSM_NAMESPACE_LOCAL_RANK": "1", "PMIX_RANK": "3", "LSB_JOBID": "9"}
    assert detect(jsm) == Topology(4, 3, "mpirun", 2, 1, None, True)


def test_flux_run():
    flux = {"FLUX_JOB_SIZE": "4", "FLUX_JOB_NNODES": "2", "FLUX_TASK_RANK": "3", "FLUX_TASK_LOCAL_ID": "1"}
    assert detect(flux) == Topology(4, 3, "mpirun", 2, 1, None, True)
    assert detect(flux | {"PMI_SIZE": "4", "PMI_RANK": "3"}) == detect(flux)


@pytest.mark.parametrize("variables", [{"PMIX_RANK": "1"}, {"PALS_RANKID": "1"}])
def test_a_process_of_several_whose_number_is_not_known_is_refused(variables):
    with pytest.raises(InputError, match=r"says how many processes there are: start them with `mpirun -n N nivp run"):
        detect(variables)
    assert detect(variables | {"NIVP_PROCESSES": "1"}).processes == 1
    assert detect(STEP | variables).processes == 6


def test_the_old_names_of_slurm():
    old = {"SLURM_JOB_ID": "SLURM_JOBID", "SLURM_STEP_ID": "SLURM_STEPID", "SLURM_NTASKS": "SLURM_NPROCS"}
    assert detect({old.get(name, name): value for name, value in STEP.items()}) == detect(STEP)
    with pytest.raises(InputError, match="Slurm job 17 has 6 tasks"):
        detect({"SLURM_JOBID": "17", "SLURM_NPROCS": "6"})


def test_one_process_in_a_job_of_two_nodes_is_refused(tmp_path):
    slurm = {"SLURM_JOB_ID": "17", "SLURM_JOB_NUM_NODES": "2"}
    (tmp_path / "nodes").write_text("node1\nnode1\nnode2\nnode2\n")
    pbs = {"PBS_JOBID": "9.server", "PBS_NODEFILE": str(tmp_path / "nodes")}
    lsf = {"LSB_JOBID": "9", "LSB_MCPU_HOSTS": "node1 4 node2 4"}
    for job, line in (
        (slurm, "job 17 has 2 nodes .* `srun nivp run"),
        (pbs, "job 9.server has 2 hosts .* `mpiexec nivp"),
        (lsf, "LSF job 9 has 2 hosts .* `mpirun nivp"),
    ):
        with pytest.raises(InputError, match=line):
            detect(job)
        assert detect(job | {"NIVP_PROCESSES": "1"}) == Topology(1, 0, "alone")
    (tmp_path / "nodes").write_text("node1\nnode1\n")
    assert detect(pbs) == detect(slurm | {"SLURM_JOB_NUM_NODES": "1"}) == Topology(1, 0, "alone")
    assert detect(lsf | {"LSB_MCPU_HOSTS": "node1 8"}) == Topology(1, 0, "alone")


def test_srun_that_offers_mpi():
    place = detect(STEP | {"PMI_SIZE": "6", "PMI_RANK": "4"})
    assert place.launcher == "srun" and place.mpi and place.meeting is not None
    assert detect(STEP | {"PMIX_RANK": "4"}).mpi


@pytest.mark.parametrize(
    "environment, line",
    [
        (THREE | {"NIVP_PROCESS_ID": ""}, "environment: NIVP_PROCESSES is set but NIVP_PROCESS_ID is not"),
        (THREE | {"NIVP_MEETING": ""}, "environment: NIVP_PROCESSES is set but NIVP_MEETING is not"),
        (THREE | {"NIVP_MEETING": "node1"}, "environment: NIVP_MEETING must be HOST:PORT[,PORT...]"),
        (THREE | {"NIVP_PROCESS_ID": "3"}, "environment: the index of this process, 3, is not in 0..2"),
        (THREE | {"NIVP_PROCESS_ID": "-1"}, "environment: NIVP_PROCESS_ID must be a whole number"),
        (THREE | {"NIVP_PROCESSES": "x"}, "environment: NIVP_PROCESSES must be a whole number, got 'x'"),
        ({"SLURM_JOB_ID": "17", "SLURM_NTASKS": "6"}, "environment: Slurm job 17 has 6 tasks and this is one process"),
        (STEP | {"SLURM_STEP_TASKS_PER_NODE": "4,"}, "environment: the tasks per node '4,' cannot be read"),
        (
            STEP | {"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "8"},
            "environment: the tasks per node '4,2' are not the 8",
        ),
        (
            STEP | {"SLURM_NODEID": "2"},
            "environment: the tasks per node '4,2' are not the 6 tasks of the step, or have no",
        ),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "environment: OMPI_COMM_WORLD_RANK must be a whole number, got ''"),
        ({"PMI_SIZE": "2", "PMI_RANK": "2"}, "environment: the index of this process, 2, is not in 0..1"),
        (STEP | {"SLURM_PROCID": "6"}, "environment: the index of this process, 6, is not in 0..5"),
        (STEP | {"SLURM_PROCID": ""}, "environment: SLURM_PROCID must be a whole number"),
    ],
)
def test_an_environment_that_contradicts_itself_is_an_error(environment, line):
    with pytest.raises(InputError) as error:
        detect(environment)
    assert str(error.value).startswith(line)


@pytest.mark.parametrize(
    "nodelist, host",
    [
        ("node1", "node1"),
        ("node[1-4]", "node1"),
        ("node[03-07,9],login1", "node03"),
        ("rack[1-2]n[08-12].site", "rack1n08.site"),
        ("gpu-a,gpu-b", "gpu-a"),
        ("node[5,7-9]", "node5"),
    ],
)
def test_the_first_host_of_a_node_list(nodelist, host):
    assert first_host(nodelist) == host


def test_the_tasks_per_node():
    assert tasks_per_node("2") == [2]
    assert tasks_per_node("4(x2),3") == [4, 4, 3]


def test_the_candidate_ports_differ_and_lie_in_their_range():
    ports = ports_of("alps.17.0.0")
    assert len(ports) == CANDIDATES and len(set(ports)) > CANDIDATES - 3
    assert all(20_000 <= port < 30_000 for port in ports)


def place(local_processes, local_index):
    return Topology(8, 0, "srun", local_processes, local_index)


@pytest.mark.parametrize(
    "who, environment, visible, mine",
    [
        (place(1, 0), {}, 8, None),  # one process a host takes all
        (place(4, 3), {"SLURM_GPUS_ON_NODE": "4"}, 4, [3]),  # one process a GPU, all visible to all
        (place(2, 1), {"SLURM_GPUS_ON_NODE": "4"}, 4, [2, 3]),
        (place(4, 3), {"SLURM_GPUS_ON_NODE": "4"}, 1, None),  # each sees only its own
        (place(2, 1), {"SLURM_GPUS_PER_TASK": "2"}, 2, None),
        (place(4, 1), {}, 0, None),  # no GPU at all
    ],
)
def test_the_gpus_of_a_process(who, environment, visible, mine):
    assert local_devices(who, environment, visible) == mine


@pytest.mark.parametrize("visible, line", [(1, "4 processes share one GPU"), (6, "cannot share its 6 GPUs evenly")])
def test_gpus_that_cannot_be_shared_evenly_are_an_error(visible, line):
    with pytest.raises(InputError, match=line):
        local_devices(place(4, 1), {}, visible)
