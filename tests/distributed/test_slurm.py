"""`kpod submit` and `kpod status` on a real Slurm cluster, which the tests start on this machine."""

import json
import re
import sys
import time
from itertools import product
from pathlib import Path

import pytest
import yaml
from slurm_cluster import Cluster
from test_project import ROOT

from kpod_lightning.runs.folder import load_run

pytestmark = pytest.mark.slurm

KPOD = [sys.executable, "-m", "kpod_lightning"]
TINY = [
    "method=plain",
    "data.num_train=8",
    "data.num_validation=2",
    "data.num_test=4",
    "optim.epochs=1",
    "optim.batch_size=8",
    "evaluation.max_new_tokens=8",
    "logging.wandb=disabled",
]
ON_ONE_CORE = ["--processes", "1", "--time", "10", *TINY]


def kpod_submit(cluster: Cluster, folder, *words) -> str:
    """Submit, from ``folder``; the job's id."""
    printed = cluster.run([*KPOD, "submit", ROOT / "experiments" / "arithmetic.yaml", *words], cwd=folder)
    return printed.split(":")[0].removeprefix("job ")


def rows(cluster: Cluster, folder) -> dict[str, str]:
    """The lines of `kpod status` by the name of the run; no name here has two blanks in a row."""
    lines = cluster.run([*KPOD, "status", folder]).splitlines()
    return {line.strip().split("  ")[0]: line for line in lines if line.strip()}


def test_a_submitted_run_ends_in_a_folder_whose_name_needs_quotes(slurm, tmp_path):
    folder = tmp_path / 'it\'s 100 % "mine" #1, $HOME'
    folder.mkdir()
    job = kpod_submit(slurm, folder, "--run", "a run", *ON_ONE_CORE)
    slurm.wait(job)
    assert len(load_run(folder / "a run").records("test")) == 4
    assert "after distillation" in (folder / "a run.log").read_text()
    row = rows(slurm, folder)["a run"]
    assert "report" in row and "1 of 1" in row and f"{job} COMPLETED" in row


def test_an_array_waits_for_the_job_before_it_and_ends_with_a_run_folder_for_each_seed(slurm, tmp_path):
    before = slurm.run(["sbatch", "--parsable", "--hold", "--output=/dev/null", "--wrap=true"]).strip()
    runs = tmp_path / "runs"
    job = kpod_submit(slurm, tmp_path, "--run", "runs/tiny", "--seeds", "0,3", "--after", before, *ON_ONE_CORE)
    deadline = time.monotonic() + 30
    # Slurm finds out what a job waits for when it next looks through its queue.
    while (found := rows(slurm, runs)) and str(found).count("Dependency") < 2 and time.monotonic() < deadline:
        time.sleep(0.5)
    for seed in (0, 3):
        assert "nothing yet" in found[f"tiny-s{seed}"]
        assert f"{job}_{seed} PENDING (Dependency afterok:{before}" in found[f"tiny-s{seed}"]
    slurm.run(["scontrol", "release", before])
    for seed in (0, 3):
        slurm.wait(f"{job}_{seed}")
        assert load_run(runs / f"tiny-s{seed}").config.seed == seed
        assert (runs / f"tiny-s{seed}.log").stat().st_size > 0


def test_missing_runs_of_a_study_are_the_tasks_of_an_array(slurm, tmp_path):
    arms = {"plain": ["method=plain"], "two-words": ["method=plain", "logging.group=two words"]}
    experiment = str(ROOT / "experiments" / "arithmetic.yaml")
    study = {"experiment": experiment, "seeds": [0, 3], "settings": TINY, "arms": arms}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    words = ["mine.yaml", "--runs", "runs", "--slurm", "--processes", "1", "--time", "10", "--jobs", "1"]
    printed = slurm.run([*KPOD, "study", *words], cwd=tmp_path)
    job = re.search(r"job (\d+)", printed)[1]
    for task, (seed, arm) in enumerate(product((0, 3), arms)):
        slurm.wait(f"{job}_{task}", timeout=240)
        run = load_run(tmp_path / "runs" / f"{arm}-s{seed}")
        assert run.config.seed == seed and (run.config.logging.group == "two words") == (arm == "two-words")
    assert "4 of 4 finished" in slurm.run([*KPOD, "study", *words], cwd=tmp_path)


def test_a_run_after_a_failed_job_is_cancelled(slurm, tmp_path):
    before = slurm.run(["sbatch", "--parsable", "--output=/dev/null", "--wrap=exit 1"]).strip()
    job = kpod_submit(slurm, tmp_path, "--run", "tiny", "--after", before, *ON_ONE_CORE)
    slurm.wait(job, "CANCELLED")
    assert not (tmp_path / "tiny").exists()


@pytest.fixture(scope="module")
def waiting(slurm, tmp_path_factory):
    """A run on two nodes of eight GPUs each, in the queue for them: folder, job id and site file."""
    folder = tmp_path_factory.mktemp("large")
    site = folder / "site.yaml"
    site.write_text("partition: large\nsbatch: [--comment='two nodes']\nsetup: [export HF_HOME=/shared]\n")
    job = kpod_submit(
        slurm, folder, "--run", "big", "--nodes", "2", "--gpus", "8", "--time", "1-00", "--site", str(site), *TINY
    )
    yield folder, job, site
    slurm.cancel(job)


def test_slurm_reads_from_the_script_what_was_asked(slurm, waiting):
    folder, job, _ = waiting
    found = slurm.job(job)
    asked = {
        "Partition": "large",
        "NumNodes": "2-2",
        "NumTasks": "16",
        "NtasksPerN:B:S:C": "8:0:*:*",
        "CPUs/Task": "4",
        "TresPerNode": "gres:gpu:8",
        "TimeLimit": "1-00:00:00",
        "Requeue": "1",
        "Comment": "two nodes",
        "WorkDir": str(folder),
        "StdOut": str(folder / "big.log"),
    }
    assert {name: found.get(name) for name in asked} == asked


def test_a_run_folder_is_not_given_to_a_second_job(slurm, waiting):
    folder, job, _ = waiting
    with pytest.raises(AssertionError, match=f"ended with 2:\nkpod: big is the run folder of job {job}, PENDING"):
        kpod_submit(slurm, folder, "--run", "big", *ON_ONE_CORE)
    assert json.loads((folder / "big.job.json").read_text())["job"] == job


def test_what_slurm_refuses_is_told_in_one_line(slurm, tmp_path):
    (tmp_path / "site.yaml").write_text("partition: none-such\n")
    with pytest.raises(AssertionError, match=r"ended with 2:\nkpod: sbatch refused tiny\.sbatch: .*partition.*\n$"):
        kpod_submit(slurm, tmp_path, "--run", "tiny", "--site", "site.yaml", *ON_ONE_CORE)
    assert not (tmp_path / "tiny.job.json").exists()


TWO_RANKS = [
    "data.num_train=48",
    "data.num_validation=6",
    "data.num_test=12",
    "optim.epochs=6",
    "optim.batch_size=12",
    "schedule.num_stages=2",
    "weights.num_train=24",
    "weights.num_held_out=8",
    "weights.warmup_epochs=1",
    "weights.epochs=2",
    "weights.batch_size=4",
    "weights.if_not_found=uniform",
    "evaluation.max_new_tokens=24",
    "logging.wandb=offline",
]


def wait_for(path: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.05)


def test_a_job_of_two_ranks_that_is_preempted_three_times_ends_as_the_unbroken_one(slurm, tmp_path):
    """While it learns weights, in the first stage of training, and in a later one."""
    run = tmp_path / "preempted" / "run"
    job = kpod_submit(slurm, tmp_path, "--run", "preempted/run", "--processes", "2", "--time", "30", *TWO_RANKS)
    for number, moment in enumerate(
        ["checkpoints-weights/last.ckpt", "checkpoints/settings", "checkpoints/best-0.ckpt"]
    ):
        wait_for(run / moment)
        slurm.preempt(job, seconds=1)
        deadline = time.monotonic() + 120
        while slurm.job(job)["Restarts"] == str(number):
            assert time.monotonic() < deadline, slurm.logs(job)
            time.sleep(0.25)
    slurm.wait(job, timeout=240)
    assert slurm.job(job)["Restarts"] == "3"
    unbroken = tmp_path / "unbroken" / "run"
    words = ["run", ROOT / "experiments" / "arithmetic.yaml", "--run", unbroken, *TWO_RANKS]
    slurm.run([*KPOD, *words, "launch.devices=2", "launch.accelerator=cpu"])
    for name in ("weights.safetensors", "student/model.safetensors", "predictions/test.jsonl"):
        assert (run / name).read_bytes() == (unbroken / name).read_bytes(), name

    ids = {path.name.rpartition("-")[2] for path in (run / "wandb").glob("offline-run-*")}
    assert ids == {json.loads((run / "wandb.json").read_text())["id"]}  # one W&B run, in a folder for each start

    def learned(folder: Path) -> list[dict]:
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in row.items() if key != "train/tokens_per_second"} for row in rows]

    assert learned(run) == learned(unbroken)  # tokens seen, too: every example once an epoch


def test_a_job_before_its_time_limit_goes_back_into_the_queue_and_goes_on(slurm, tmp_path):
    long = ["optim.epochs=2000"]
    settings = [setting for setting in TINY if not setting.startswith("optim.epochs")] + long
    job = kpod_submit(slurm, tmp_path, "--run", "long", "--processes", "1", "--time", "2", "--lead", "30", *settings)
    deadline = time.monotonic() + 150
    while slurm.job(job)["Restarts"] == "0":
        assert time.monotonic() < deadline, slurm.logs(job)
        time.sleep(0.5)
    done = len((tmp_path / "long" / "metrics.jsonl").read_text().splitlines())
    slurm.wait(job, "RUNNING", timeout=60)
    while len((tmp_path / "long" / "metrics.jsonl").read_text().splitlines()) <= done:
        assert time.monotonic() < deadline + 60, slurm.logs(job)
        time.sleep(0.5)
    slurm.cancel(job)
    slurm.wait(job, "CANCELLED")
    steps = [json.loads(line) for line in (tmp_path / "long" / "metrics.jsonl").read_text().splitlines()]
    epochs = [row["epoch"] for row in steps if "train/nats_per_token" in row]
    assert epochs == list(range(len(epochs)))
    assert "goes back into the queue" in (tmp_path / "long.log").read_text()
