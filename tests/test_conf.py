"""Configurations beside params.yaml: accelerate reads its own, and the Slurm script keeps its promises.

The script runs with stand-ins for Slurm, vLLM and the trainer, which start local processes. Not run here: any
of it on cards, FSDP2 and ZeRO-3 (DeepSpeed is not installed), and a real Slurm.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from ruamel.yaml import YAML

from prorl_study import cards, cli, hub
from prorl_study.curriculum import phases
from prorl_study.domains import DOMAINS
from prorl_study.model_source import COMMIT

ROOT = Path(__file__).parents[1]
ACCELERATE = sorted((ROOT / "conf" / "accelerate").glob("*.yaml"))
HUB_PROFILES = ("gpu_day", "gpu_small", "gpu", "cluster")


# ---- accelerate --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ACCELERATE, ids=lambda path: path.stem)
def test_accelerate_reads_the_file_with_its_own_class(path):
    from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

    config = load_config_from_file(str(path))
    raw = YAML(typ="safe").load(path)
    assert isinstance(config, ClusterConfig)
    assert config.to_dict() | raw == config.to_dict(), "every key is one of accelerate's"
    processes = {"single_gpu": 1, "fsdp2": 8, "zero3": 8, "ddp_cpu": 2, "fsdp2_cpu": 2}
    assert config.num_processes == processes[path.stem]
    assert config.mixed_precision == ("no" if config.use_cpu else "bf16")


def launched(name: str, *options: str):
    """What `accelerate launch` makes of the file and of options on its command line."""
    from accelerate.commands import launch

    file = str(ROOT / "conf" / "accelerate" / f"{name}.yaml")
    parsed = launch.launch_command_parser().parse_args(["--config_file", file, *options, "-m", "a_module"])
    return launch._validate_launch_command(parsed)[0]


SECOND_OF_TWO = (
    "--num_machines",
    "2",
    "--num_processes",
    "16",
    "--machine_rank",
    "1",
    "--main_process_ip",
    "n1",
)


def test_fsdp2_is_the_second_version_in_bf16_on_as_many_nodes_as_the_command_line_says():
    from accelerate.utils.launch import prepare_multi_gpu_env

    given = launched("fsdp2", *SECOND_OF_TWO, "--main_process_port", "29999")
    environment = prepare_multi_gpu_env(given)
    assert environment["ACCELERATE_USE_FSDP"] == "true" and environment["FSDP_VERSION"] == "2"
    assert environment["ACCELERATE_MIXED_PRECISION"] == "bf16"
    assert environment["FSDP_STATE_DICT_TYPE"] == "FULL_STATE_DICT"
    assert (given.nnodes, given.node_rank, given.nproc_per_node) == ("2", 1, "8")
    assert given.rdzv_endpoint == "n1:29999"


def test_sharded_gradients_are_summed_and_log_probabilities_handed_on_as_fp32(monkeypatch):
    import torch
    from accelerate.utils import FullyShardedDataParallelPlugin
    from trl import GRPOTrainer

    from prorl_study.trainer import ProRLTrainer

    plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
    plugin.set_mixed_precision("bf16")
    assert plugin.mixed_precision_policy.output_dtype == torch.bfloat16, "what accelerate makes of it"

    def made(trainer):
        state = SimpleNamespace(fsdp_plugin=plugin)
        trainer.accelerator = SimpleNamespace(is_fsdp2=True, state=state)

    monkeypatch.setattr(GRPOTrainer, "create_accelerator_and_postprocess", made)
    object.__new__(ProRLTrainer).create_accelerator_and_postprocess()
    policy = plugin.mixed_precision_policy
    wanted = (torch.bfloat16, torch.float32, None)
    assert (policy.param_dtype, policy.reduce_dtype, policy.output_dtype) == wanted


def test_zero3_builds_accelerates_plugin_though_deepspeed_is_not_here(monkeypatch):
    from accelerate.utils import DeepSpeedPlugin
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    given = launched("zero3", *SECOND_OF_TWO)
    given.deepspeed_fields_from_accelerate_config = "zero_stage"
    command, environment = prepare_deepspeed_cmd_env(given)
    assert command is None, "torchrun starts the processes, not the deepspeed command"
    assert (given.nnodes, given.node_rank, given.rdzv_endpoint) == ("2", 1, "n1:29500")
    for name, value in environment.items():
        if name.startswith("ACCELERATE_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO3_INIT", "false")  # what needs DeepSpeed itself
    plugin = DeepSpeedPlugin()
    plugin.set_mixed_precision("bf16")
    assert plugin.deepspeed_config["zero_optimization"]["stage"] == 3
    assert plugin.deepspeed_config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"]
    assert plugin.deepspeed_config["bf16"] == {"enabled": True}


# ---- profiles ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HUB_PROFILES)
def test_a_profile_names_sets_commits_and_files_that_exist(name):
    study = cli.of_profile(name, ROOT)
    assert COMMIT.fullmatch(study.origin.revision)
    assert set(study.origin.training_sets) <= set(hub.TRAINING)
    assert set(study.origin.benchmark_sets) <= set(hub.BENCHMARKS)
    assert {hub.TRAINING[one].domain for one in study.origin.training_sets} == set(study.train.domains)
    tested = {hub.BENCHMARKS[one].domain for one in study.origin.benchmark_sets}
    assert tested == set(study.train.domains), "what is trained is tested, and nothing else"
    for word in study.engine.launcher.split():
        assert "/" not in word or (ROOT / word).is_file()


@pytest.mark.parametrize("name", HUB_PROFILES)
def test_every_phase_of_a_profile_can_be_shared_by_its_processes_and_micro_batches(name, tmp_path):
    from prorl_study.recipe import grpo_config

    study, processes = cli.of_profile(name, ROOT), cards.MACHINES.get(name, cards.H100).training
    for _, phase in phases(study.train, list(DOMAINS)):
        train = replace(study.train, rollouts_per_prompt=phase.rollouts_per_prompt)
        engine = replace(study.engine, rollout_engine="loop", vllm_server="")  # vLLM is not here
        config = grpo_config(train, 1, tmp_path, 1, False, processes, engine)
        rows = config.per_device_train_batch_size * config.gradient_accumulation_steps * processes
        assert config.per_device_train_batch_size == study.engine.micro_batch
        assert rows * train.updates_per_rollout == train.prompts_per_step * phase.rollouts_per_prompt


def test_a_profile_may_take_arms_away_and_laptop_brings_them_back_in_order(tmp_path):
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    cli.switch_profile("laptop", tmp_path)
    before = cli.of_profile("laptop", tmp_path).arms.arms
    changes = cli.switch_profile("gpu_day", tmp_path)
    assert any(line.startswith("arms.arms: ") for line in changes)
    assert list(cli.params.load(tmp_path / "params.yaml").arms.arms) == ["plain_grpo"]
    cli.switch_profile("cluster", tmp_path)
    assert cli.params.load(tmp_path / "params.yaml").arms.arms == {}
    cli.switch_profile("laptop", tmp_path)
    after = cli.params.load(tmp_path / "params.yaml").arms.arms
    assert list(after.items()) == list(before.items())


@pytest.mark.parametrize("name", HUB_PROFILES)
def test_a_profile_is_the_same_whichever_came_before(name, tmp_path):
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    for other in ("smoke", *HUB_PROFILES, "smoke"):
        cli.switch_profile(other, tmp_path)
        assert cli.of_profile(name, tmp_path) == cli.of_profile(name, ROOT)
    assert cli.params.load(tmp_path / "params.yaml").origin.base == "", "nothing of a card's profile is left"


# ---- Slurm -------------------------------------------------------------------------------------------------

SRUN = """
    # Starts the command once per node here, with the rank that Slurm gives it, and passes TERM on.
    import os, signal, subprocess, sys
    options = [word for word in sys.argv[1:] if word.startswith("--")]
    first = next(i for i, word in enumerate(sys.argv[1:], 1) if not word.startswith("--"))
    nodes = next(o for o in options if o.startswith("--nodelist=")).partition("=")[2].split(",")
    assert f"--nodes={len(nodes)}" in options, options
    children = []
    def end(*_):
        for child in children:
            child.terminate()
    signal.signal(signal.SIGTERM, end)
    for rank, node in enumerate(nodes):
        environment = os.environ | {"SLURM_PROCID": str(rank), "SLURMD_NODENAME": node}
        children.append(subprocess.Popen(sys.argv[first:], env=environment))
    sys.exit(max(abs(child.wait()) for child in children))
"""
SCONTROL = """
    import os, sys
    if sys.argv[1:3] == ["show", "hostnames"]:
        print(sys.argv[3].replace(",", "\\n"))
    else:
        with open("said", "a") as said:
            print("scontrol", *sys.argv[1:], file=said)
"""
SERVER = """
    # A server that is up after a while and says so.
    import http.server, os, sys, time
    with open("said", "a") as said:
        print("server", os.environ["SLURMD_NODENAME"], *sys.argv[1:], file=said)
    time.sleep(1.5)
    if os.path.exists("no server"):
        sys.exit(3)
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()
        def log_message(self, *_): pass
    http.server.HTTPServer(("", int(sys.argv[sys.argv.index("--port") + 1])), Answer).serve_forever()
"""
TRAINER = """
    # Ten steps, each of which is kept; it is stopped between them and goes on.
    import os, signal, sys, time, urllib.request
    urllib.request.urlopen(os.environ["PRORL_VLLM_SERVER"] + "/health").close()
    def end(*_):
        with open("said", "a") as said: print("trainer stopped", file=said)
        sys.exit(0)
    signal.signal(signal.SIGTERM, end)
    rank = int(os.environ["SLURM_PROCID"])
    with open("said", "a") as said:
        print("trainer", rank, os.environ["PRORL_NODES"], *sys.argv[1:], file=said)
    if os.path.exists("bad trainer"): sys.exit(7)
    with open(f"steps{rank}", "a+") as steps:
        steps.seek(0)
        for step in range(len(steps.readlines()), 10):
            time.sleep(0.4)
            print(step, file=steps, flush=True)
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        return found.getsockname()[1]


class Job:
    """A folder in which the very script runs, with stand-ins on PATH for what a cluster has."""

    def __init__(self, folder: Path, nodes: str = "localhost,127.0.0.1,127.0.0.2") -> None:
        self.folder, self.started, self.script = folder, 0, ROOT / "conf" / "slurm" / "prorl.sbatch"
        (folder / "bin").mkdir(parents=True)
        programs = {"srun": SRUN, "scontrol": SCONTROL, "vllm": SERVER, "accelerate": TRAINER}
        for name, code in programs.items():
            program = folder / "bin" / name
            program.write_text(f"#!{sys.executable}\n{textwrap.dedent(code)}")
            program.chmod(0o755)
        launch = ROOT / "conf" / "slurm" / "launch.sh"
        self.environment = {
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "SLURM_JOB_ID": "41",
            "SLURM_JOB_NODELIST": nodes,
            "PRORL_MODEL": "a/model",
            "PRORL_PORT": str(free_port()),
            "PRORL_COMMAND": f"bash {launch} some.yaml -m a_module config.json",
            "PRORL_GPUS": "2",
            "PRORL_GRACE": "10",
            "PRORL_WAIT": "30",
            "PRORL_MARK": str(folder),
        }

    def start(self) -> subprocess.Popen[str]:
        environment = os.environ | self.environment | {"SLURM_RESTART_COUNT": str(self.started)}
        self.started += 1
        pipe = subprocess.PIPE
        return subprocess.Popen(
            ["bash", str(self.script)], cwd=self.folder, env=environment, stderr=pipe, text=True
        )

    def said(self) -> list[str]:
        path = self.folder / "said"
        return path.read_text().splitlines() if path.exists() else []

    def left(self) -> dict[str, psutil.Process]:
        """Processes that have this job's environment, by their command lines."""
        found = {}
        for process in psutil.process_iter():
            try:
                if process.environ().get("PRORL_MARK") == str(self.folder):
                    found[" ".join(process.cmdline())] = process
            except psutil.Error:
                continue
        return found

    def wait_until(self, happened) -> None:
        deadline = time.monotonic() + 60
        while not happened():
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)


@pytest.fixture
def job(tmp_path):
    made = Job(tmp_path / "job")
    yield made
    deadline = time.monotonic() + 5
    while made.left() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert made.left() == {}, "nothing is left running"


def for_trl() -> list[str]:
    """What TRL adds to vLLM's command line so that its client can send weights and read probabilities."""
    from trl.scripts.vllm_serve import ScriptArguments, build_command

    command = build_command(ScriptArguments(model="a/model"))
    return [
        part for part in command[command.index("--weight-transfer-config") :] if part != "--enable-scale-out"
    ]


def test_the_trainers_start_once_the_server_is_up_each_with_its_rank(job):
    script = job.start()
    assert script.wait(60) == 0, script.stderr.read()
    server, *trainers = job.said()
    port = job.environment["PRORL_PORT"]
    assert server == (
        f"server 127.0.0.2 serve a/model --host 0.0.0.0 --port {port} --tensor-parallel-size 4 "
        "--max-model-len 18432 --load-format safetensors " + " ".join(for_trl()) + " --enable-scale-out"
    )
    common = "--config_file some.yaml --num_machines 2 --num_processes 4 --main_process_ip localhost"
    assert sorted(trainers) == [
        f"trainer {rank} localhost,127.0.0.1 launch --machine_rank {rank} {common} "
        "--main_process_port 29500 -m a_module config.json"
        for rank in range(2)
    ]
    assert "start 0 of: bash" in script.stderr.read()


def steps(job: Job) -> list[int]:
    files = [job.folder / f"steps{rank}" for rank in range(2)]
    return [len(file.read_text().splitlines()) if file.exists() else 0 for file in files]


def test_before_its_time_is_up_a_job_stops_is_queued_again_and_goes_on_where_it_was(job):
    script = job.start()
    job.wait_until(lambda: min(steps(job)) >= 1)
    script.send_signal(signal.SIGUSR1)
    assert script.wait(60) == 0, script.stderr.read()
    assert job.said()[-3:] == ["trainer stopped", "trainer stopped", "scontrol requeue 41"]
    before = steps(job)
    assert min(before) < 10
    again = job.start()
    assert again.wait(60) == 0, again.stderr.read()
    assert steps(job) == [10, 10], "each step was made once"
    assert sum(line.startswith("scontrol") for line in job.said()) == 1


def test_a_job_that_is_cancelled_stops_and_is_not_queued_again(job):
    script = job.start()
    job.wait_until(lambda: min(steps(job)) >= 1)
    script.send_signal(signal.SIGTERM)
    assert script.wait(60) == 143, script.stderr.read()
    assert not any(line.startswith("scontrol") for line in job.said())


def test_a_signal_that_comes_before_the_server_is_up_is_heard(job):
    script = job.start()
    job.wait_until(lambda: bool(job.said()))
    script.send_signal(signal.SIGUSR1)
    assert script.wait(60) == 0, script.stderr.read()
    assert job.said()[-1] == "scontrol requeue 41" and steps(job) == [0, 0]


@pytest.mark.parametrize(
    ("broken", "code", "sentence"),
    [("no server", 1, "the server on 127.0.0.2 is not up"), ("bad trainer", 7, "start 0 of")],
)
def test_what_fails_ends_the_job_with_its_code(job, broken, code, sentence):
    (job.folder / broken).touch()
    script = job.start()
    assert script.wait(60) == code
    assert sentence in script.stderr.read()


def test_a_server_that_dies_ends_the_job(job):
    script = job.start()
    job.wait_until(lambda: min(steps(job)) >= 1)
    (server,) = [p for line, p in job.left().items() if "bin/vllm serve" in line]
    server.kill()
    assert script.wait(60) == 1
    assert "the server on 127.0.0.2 has ended" in script.stderr.read()


def test_one_node_is_too_few(job):
    job.environment["SLURM_JOB_NODELIST"] = "localhost"
    script = job.start()
    assert script.wait(60) == 1 and "needs two nodes (got 1)" in script.stderr.read()


@pytest.mark.slow
def test_two_launchers_of_accelerate_make_one_run(job):
    (job.folder / "bin" / "accelerate").unlink()
    (job.folder / "trains.py").write_text(
        "from accelerate import Accelerator\n"
        "from accelerate.utils import gather_object\n"
        "found = Accelerator(cpu=True)\n"
        "ranks = gather_object([found.process_index])\n"
        "if found.is_main_process:\n"
        "    open('ranks', 'w').write(repr(ranks))\n"
        "found.end_training()\n"
    )
    launch, config = ROOT / "conf" / "slurm" / "launch.sh", ROOT / "conf" / "accelerate" / "ddp_cpu.yaml"
    job.environment |= {
        "PRORL_COMMAND": f"bash {launch} {config} trains.py",
        "PRORL_GPUS": "1",
        "PRORL_MAIN_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    script = job.start()
    assert script.wait(300) == 0, script.stderr.read()
    assert (job.folder / "ranks").read_text() == "[0, 1]"
