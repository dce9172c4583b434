"""`prorl-study evaluate`: the pipeline's rows for any model, its start after a kill, one sentence a fault."""

import argparse
import http.server
import json
import shutil
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import tiny
from synthetic import completion, problems

from prorl_study import any_model, benchmarks, evaluation, files, model_source, problem_source, sampling
from prorl_study.domains import DOMAINS, Problem
from prorl_study.errors import StudyError
from prorl_study.params import EvaluationParams
from prorl_study.paths import Workspace
from prorl_study.verification.pool import VerificationPool

ROOT = Path(__file__).parents[1]
SETTINGS = EvaluationParams(
    eval_temperature=0.6,
    top_p=0.95,
    samples=3,
    samples_more=9,
    max_tokens=12,
    tuned_temperatures=[0.6],
    batch_tokens=5000,
    bootstrap_resamples=100,
)
SAMPLER = {
    "seed": 5,
    "samples": SETTINGS.samples,
    "max_tokens": SETTINGS.max_tokens,
    "batch_tokens": SETTINGS.batch_tokens,
    "resamples": SETTINGS.bootstrap_resamples,
}


@pytest.fixture(scope="module")
def pool():
    with VerificationPool(workers=2) as pool:
        yield pool


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny.save_model(tmp_path_factory.mktemp("models") / "tiny", seed=0)


@pytest.fixture
def copy(model, tmp_path) -> Path:
    """A copy of the model that a test may damage."""
    return Path(shutil.copytree(model, tmp_path / "copy"))


class Teacher:
    """Answers in the model's place, right half of the time; can be killed; notes what it was asked."""

    def __init__(self, die_after: int | None = None) -> None:
        self.asked, self.die_after = [], die_after

    def sample(self, model, tokenizer, chosen, n, sampler, seed, progress=""):
        if self.die_after == len(self.asked):
            raise KeyboardInterrupt
        self.asked.append((progress, [p.id for p in chosen]))
        rng = np.random.default_rng(seed)
        texts = [[completion(p, rng.random() < 0.5) for _ in range(n)] for p in chosen]
        return [[sampling.Sample(t, tokens=len(t), truncated=False) for t in own] for own in texts]


# ---- the same rows


@pytest.mark.parametrize("answers", ["the model's own", "the teacher's"])
def test_a_model_gets_the_very_rows_that_the_pipeline_gives_it(answers, model, pool, tmp_path, monkeypatch):
    if answers == "the teacher's":  # an untrained model solves next to nothing
        monkeypatch.setattr(sampling, "sample", Teacher().sample)
    splits = {split: problems(split) for split in ("test", "hard")}
    splits["hard"] = splits["hard"][:3]
    settings = EvaluationParams(**{**asdict(SETTINGS), "samples_more": SETTINGS.samples})
    evaluation.evaluate_model(
        "s1", model, splits, settings, 5, pool, tmp_path / "samples", False, tmp_path / "work"
    )
    rows = any_model.evaluate(str(model), splits, pool, tmp_path / "out", name="s1", **SAMPLER)
    theirs = pd.read_parquet(tmp_path / "samples" / "s1.parquet")
    ours = pd.read_parquet(tmp_path / "out" / "samples.parquet")
    assert list(ours) == [*theirs, "backend", "revision"]
    assert set(ours.backend) == {"transformers"} and ours.revision.str.startswith("files:").all()
    pd.testing.assert_frame_equal(ours[list(theirs)], theirs)
    table = evaluation.counts(theirs, settings.samples)
    assert rows == benchmarks.benchmark_rows(table, 5, settings.bootstrap_resamples)
    assert json.loads((tmp_path / "out" / "benchmarks.json").read_text()) == rows
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "counts.csv"), table, check_dtype=False)
    strict = [row["value"] for row in rows if row["metric"] == "strict"]
    assert len(strict) == len(DOMAINS) + 2  # of hard, the first three problems: two domains
    assert answers == "the model's own" or 0 < np.mean(strict) < 1


def test_temperature_0_decodes_greedily_alone(model, pool, tmp_path):
    rows = any_model.evaluate(
        str(model), {"test": problems("test")}, pool, tmp_path, temperature=0.0, **SAMPLER
    )
    assert {row["metric"] for row in rows} == {"greedy", "greedy_graded", "greedy_lenient"}
    assert {row["n_samples"] for row in rows} == {1}
    assert "greedy" in any_model.summary(rows)


def test_the_sampler_sees_the_prompt_ids_that_the_length_check_counts(model, monkeypatch):
    seen = []

    def generate(model, prompts, copies, *rest, eos, pad):
        seen.extend(prompts)
        return [[[eos]] * count for count in copies]

    monkeypatch.setattr(sampling, "generate", generate)
    source = model_source.find(str(model))
    tokenizer = model_source.load_tokenizer(source)
    chosen = problems("test")
    sampling.sample(
        model_source.load_model(source, "float32"), tokenizer, chosen, 1, sampling.Sampler(1, 1, 4, 9000), 0
    )
    expected = [model_source.chat_ids(tokenizer, problem.prompt) for problem in chosen]
    assert sorted(seen) == sorted(expected) and len(seen) == 10


# ---- after a kill


def test_a_killed_evaluation_goes_on_without_sampling_twice(model, pool, tmp_path, monkeypatch):
    splits = {"test": problems("test"), "own": tiny_problems(5)}
    small = {**SAMPLER, "piece_tokens": 4 * SETTINGS.samples * SETTINGS.max_tokens}

    def run(teacher: Teacher, folder: str) -> list[dict]:
        monkeypatch.setattr(sampling, "sample", teacher.sample)
        return any_model.evaluate(str(model), splits, pool, tmp_path / folder, **small)

    whole = Teacher()
    expected = run(whole, "whole")
    # 10 and 5 problems, 4 to a piece when sampled, 12 when decoded greedily
    assert [len(ids) for _, ids in whole.asked] == [4, 4, 2, 10, 4, 1, 5]
    killed = Teacher(die_after=3)
    with pytest.raises(KeyboardInterrupt):
        run(killed, "killed")
    assert not (tmp_path / "killed" / "samples.parquet").exists()
    resumed = Teacher()
    assert run(resumed, "killed") == expected
    assert killed.asked + resumed.asked == whole.asked
    for name in ("samples.parquet", "counts.csv", "benchmarks.json", "settings.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert run(Teacher(die_after=0), "killed") == expected  # and nothing is left to sample


def tiny_problems(count: int) -> list[Problem]:
    return [DOMAINS["math"].generate(99, "test", i) for i in range(count)]


def test_another_seed_sampler_or_model_samples_anew_and_nothing_stale_stays(
    model, pool, tmp_path, monkeypatch
):
    splits, other = {"own": tiny_problems(2)}, tiny.save_model(tmp_path / "tiny", seed=1)
    seen: set[str] = set()
    for path, change in [(model, {}), (model, {"seed": 6}), (model, {"top_p": 0.9}), (other, {})]:
        teacher = Teacher()
        monkeypatch.setattr(sampling, "sample", teacher.sample)
        any_model.evaluate(str(path), splits, pool, tmp_path / "out", **{**SAMPLER, **change})
        pieces = {piece.name for piece in (tmp_path / "out" / ".pieces").iterdir()}
        assert len(teacher.asked) == 2 and len(pieces) == 2 and not pieces & seen
        seen |= pieces


# ---- problems from files

BY_HAND = [
    ({"domain": "math", "answer": r"\frac{1}{2}"}, r"</think>\boxed{0.5}"),
    (
        {"domain": "code", "checks": {"entry_point": "add", "tests": [[[1, 2], 3], [[0, 0], 0]]}},
        "```python\ndef add(a, b): return a + b\n```",
    ),
    (
        {"domain": "code", "checks": {"inputs": ["1 2\n"], "outputs": ["3\n"]}},
        "```python\nprint(sum(map(int, input().split())))\n```",
    ),
    (
        {"domain": "stem", "answer": "B", "checks": {"options": {"A": "12 N", "B": "24 N"}}},
        "The answer is B.",
    ),
    ({"domain": "stem", "answer": "9.81 m/s^2", "checks": {"tolerance": 0.01}}, r"\boxed{9.8 m/s^2}"),
    (
        {
            "domain": "logic",
            "answer": "7",
            "task": "chain_sum",
            "checks": {"task": "chain_sum", "metadata": {}},
        },
        "<answer>7</answer>",
    ),
    (
        {
            "domain": "instruction",
            "checks": {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
        },
        "No such mark is here.",
    ),
]


def by_hand(path: Path, *changes: dict) -> Path:
    """The hand-written rows, with a prompt each, and the changed copies of the first behind them."""
    rows = [
        {"prompt": [{"role": "user", "content": f"Question {i}"}], **row}
        for i, (row, _) in enumerate(BY_HAND)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *(rows[0] | c for c in changes)]))
    return path


def test_hand_written_problems_of_all_five_domains_are_asked_and_judged(model, pool, tmp_path, monkeypatch):
    answers = {f"mine-{i}": text for i, (_, text) in enumerate(BY_HAND, 1)}

    def sample(model, tokenizer, chosen, n, sampler, seed, progress=""):
        assert all(p.prompt[0]["content"].startswith("Question") for p in chosen)
        return [[sampling.Sample(answers[p.id] if sampler.temperature else "", 1, False)] * n for p in chosen]

    monkeypatch.setattr(sampling, "sample", sample)
    chosen = problem_source.load_benchmarks([str(by_hand(tmp_path / "mine.jsonl"))])
    rows = any_model.evaluate(str(model), chosen, pool, tmp_path / "out", **SAMPLER)
    values = {(row["domain"], row["metric"]): row["value"] for row in rows if row["split"] == "mine"}
    assert {domain for domain, _ in values} == set(DOMAINS)
    for domain in DOMAINS:
        assert values[domain, "strict"] == 1 and values[domain, "greedy"] == 0, domain


def test_parquet_and_jsonl_rows_nested_or_flat_give_the_same_problems(tmp_path):
    chosen = problems("test")
    rows = [p.row() for p in chosen]
    pd.DataFrame(rows).to_parquet(tmp_path / "flat.parquet")
    (tmp_path / "flat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "nested.jsonl").write_text("".join(json.dumps(asdict(p)) + "\n\n" for p in chosen))
    for name in ("flat.parquet", "flat.jsonl", "nested.jsonl"):
        assert problem_source.read_problems(tmp_path / name) == chosen, name


def test_limit_takes_the_first_of_each_domain_in_their_order(tmp_path):
    chosen = problems("test", per_domain=3)[::-1]
    pd.DataFrame([p.row() for p in chosen]).to_parquet(tmp_path / "mine.parquet")
    kept = problem_source.load_benchmarks([str(tmp_path / "mine.parquet")], limit=2)["mine"]
    assert kept == [p for i, p in enumerate(chosen) if i % 3 < 2]


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"anwser": "1"}, "row 8: unknown field anwser"),
        ({"domain": "poetry"}, "row 8: domain 'poetry' is none of math"),
        ({"prompt": []}, "row 8: no prompt"),
        ({"prompt": "What is 1 + 1?"}, "row 8: "),
        ({"prompt": [{"role": "user"}]}, "row 8: 'content'"),
        ({"answer": 7}, "row 8: answer must be text"),
        ({"id": "mine-3"}, "row 8: id mine-3 is there twice"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_file(change, complaint, tmp_path):
    with pytest.raises(StudyError) as error:
        problem_source.read_problems(by_hand(tmp_path / "mine.jsonl", change))
    assert f"mine.jsonl, {complaint}" in str(error.value) and "\n" not in str(error.value)


def test_files_and_names_that_are_no_benchmark_are_named(tmp_path, monkeypatch):
    def refused(*wanted) -> str:
        with pytest.raises(StudyError) as error:
            problem_source.load_benchmarks([str(one) for one in wanted])
        return str(error.value)

    assert "no such benchmark: aime; give one of test, hard, ood, validation" in refused("aime")
    assert "gone.jsonl does not exist" in refused(tmp_path / "gone.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    assert "holds no problem" in refused(tmp_path / "empty.jsonl")
    (tmp_path / "text.jsonl").write_text("what?\n")
    assert "text.jsonl, row 1: no JSON" in refused(tmp_path / "text.jsonl")
    (tmp_path / "text.parquet").write_text("what?")
    assert "text.parquet is no parquet file" in refused(tmp_path / "text.parquet")
    one, other = by_hand(tmp_path / "mine.jsonl"), tmp_path / "deeper" / "mine.jsonl"
    other.parent.mkdir()
    shutil.copy(one, other)
    assert "two benchmarks are called mine" in refused(one, other)
    monkeypatch.chdir(tmp_path)
    assert "run from inside the project's folder" in refused("test")


def test_a_problem_that_no_judge_can_use_is_refused_before_anything_is_sampled(
    model, pool, tmp_path, monkeypatch
):
    monkeypatch.setattr(sampling, "sample", Teacher(die_after=0).sample)
    broken = Problem(id="p7", domain="code", prompt=[{"role": "user", "content": "Add."}])
    with pytest.raises(StudyError, match="mine: problem p7 .code. cannot be judged .*no tests"):
        any_model.evaluate(str(model), {"mine": [broken]}, pool, tmp_path, **SAMPLER)


@pytest.mark.skipif(not (ROOT / "data").is_dir(), reason="the snapshot is not here; `dvc pull data.dvc`")
def test_splits_generated_without_the_snapshot_are_those_of_the_snapshot(tmp_path, monkeypatch):
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    made = problem_source.study_split("hard", Workspace(tmp_path))
    (tmp_path / "data").symlink_to(ROOT / "data")
    read = problem_source.study_split("hard", Workspace(tmp_path))
    assert made == read and {p.domain for p in made} == set(DOMAINS)
    (tmp_path / "artifacts" / "problems").mkdir(parents=True)
    pd.DataFrame([p.row() for p in made[:3]]).to_parquet(tmp_path / "artifacts" / "problems" / "hard.parquet")
    assert problem_source.load_benchmarks(["hard"])["hard"] == made[:3]


# ---- models that cannot be used


def load_all(model: object, revision: str | None = None) -> None:
    source = model_source.find(str(model), revision)
    model_source.load_tokenizer(source)
    model_source.load_model(source, "float32")


def refusal(model: object, revision: str | None = None) -> str:
    with pytest.raises(StudyError) as error:
        load_all(model, revision)
    assert "\n" not in str(error.value) and str(model) in str(error.value)
    return str(error.value)


def change_json(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_an_unharmed_copy_can_be_used(copy):
    load_all(copy)


def test_a_missing_folder_and_a_revision_of_a_folder_are_refused(copy, tmp_path):
    assert "is no folder" in refusal(tmp_path / "gone")
    assert "is no folder" in refusal("./gone")
    assert "is no folder" in refusal(copy / "config.json")
    assert "revision v1 was given for the local folder" in refusal(copy, "v1")
    assert "neither a local folder nor a hub id" in refusal("a/b/c")


def test_a_folder_without_a_whole_model_is_refused(copy):
    weights = safetensors.torch.load_file(copy / "model.safetensors")
    weights.pop(sorted(weights)[-1])
    safetensors.torch.save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert "lacks 1 of its weights" in refusal(copy)
    (copy / "model.safetensors").write_bytes(b"no weights")
    assert "cannot be loaded" in refusal(copy)
    (copy / "config.json").write_text("{")
    assert "config.json is damaged" in refusal(copy)
    (copy / "config.json").unlink()
    assert "holds no model (config.json is missing)" in refusal(copy)
    (copy / "adapter_config.json").write_text("{}")
    assert "adapter only; merge it" in refusal(copy)


def test_pickled_weights_are_never_loaded(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    assert "holds no *.safetensors, only pytorch_model.bin" in refusal(copy)


def test_code_of_a_repository_is_never_run(copy, tmp_path):
    mark = tmp_path / "was-run"
    (copy / "modeling_own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Own: ...\n")
    auto_map = {"AutoConfig": "modeling_own.Own", "AutoModelForCausalLM": "modeling_own.Own"}
    change_json(copy / "config.json", auto_map=auto_map)
    load_all(copy)  # as the class that transformers has for it
    change_json(copy / "config.json", model_type="own")
    assert "auto_map in config.json), which is never run" in refusal(copy)
    assert not mark.exists()


def test_a_model_without_chat_template_end_token_or_tokenizer_is_refused(copy):
    config, template = copy / "tokenizer_config.json", copy / "chat_template.jinja"
    text = template.read_text()
    template.unlink()
    assert "has no chat template" in refusal(copy)
    template.write_text(text)
    before = config.read_text()
    change_json(config, eos_token=None)
    assert "names no eos_token" in refusal(copy)
    config.write_text(before)
    (copy / "tokenizer.json").write_text("{}")
    assert "tokenizer cannot be loaded" in refusal(copy)


def test_a_prompt_that_the_chat_template_refuses_is_named(copy):
    source = model_source.find(str(copy))
    tokenizer = model_source.load_tokenizer(source)
    tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(StudyError, match="refuses a prompt with roles system, user .*no system role"):
        model_source.chat_ids(
            tokenizer, [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
        )


def test_the_end_token_is_the_one_with_which_the_chat_template_ends_a_turn(copy):
    tokenizer = model_source.load_tokenizer(model_source.find(str(copy)))
    usual, other = tokenizer.eos_token, "</think>"
    file = copy / "generation_config.json"
    both = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(other)]
    turn = "{{ m['content'] }}. {% if m['role'] == 'assistant' %}END{% endif %}"
    template = "{% for m in messages %}" + turn + "{% endfor %}"
    for listed, end, expected in [(both, other, other), (both, usual, usual), (both[:1], other, usual)]:
        change_json(file, eos_token_id=listed)
        (copy / "chat_template.jinja").write_text(template.replace("END", end))
        assert model_source.load_tokenizer(model_source.find(str(copy))).eos_token == expected


def test_more_tokens_than_the_model_was_built_for_are_refused_with_the_cap_that_fits(model, pool, tmp_path):
    splits = {"own": tiny_problems(1)}
    with pytest.raises(StudyError, match="takes 512 tokens.*lower max_tokens to") as error:
        any_model.evaluate(str(model), splits, pool, tmp_path, **{**SAMPLER, "max_tokens": 500})
    fits = int(str(error.value).split("max_tokens to ")[1].split()[0])
    source = model_source.find(str(model))
    prompt = model_source.chat_ids(model_source.load_tokenizer(source), splits["own"][0].prompt)
    assert len(prompt) + fits == 512


@pytest.mark.parametrize(
    "change",
    [
        {"samples": 0},
        {"temperature": -1.0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"max_tokens": 0},
        {"backend": "tgi"},
        {"dtype": "int8"},
    ],
)
def test_a_setting_out_of_range_is_named(change, model, pool, tmp_path):
    name, value = next(iter(change.items()))
    with pytest.raises(StudyError, match=f"{name}={value!r}"):
        any_model.evaluate(str(model), {"own": tiny_problems(1)}, pool, tmp_path, **{**SAMPLER, **change})


def test_a_missing_vllm_is_named_with_its_remedy(model, monkeypatch):
    from prorl_study import sampling_vllm

    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(StudyError, match=r"pip install 'prorl_study\[vllm\]'"):
        sampling_vllm.load(model, "float32", 100)


# ---- the hub

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(model, tmp_path, monkeypatch):
    """A hub on this machine, with one model at `org/tiny`; `org/gated` and all others are refused."""
    served: list[str] = []
    offered = {path.name: path.read_bytes() for path in model.iterdir()} | {"pytorch_model.bin": b"pickle"}

    class Hub(http.server.BaseHTTPRequestHandler):
        def answer(self, status: int, content: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if "org/gated" in path:
                self.answer(403, b"{}", X_Error_Code="GatedRepo", X_Error_Message="gated")
            elif "org/tiny" not in path:
                self.answer(404, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="not found")
            elif path in ("/api/models/org/tiny", "/api/models/org/tiny/revision/main"):
                self.answer(200, json.dumps({"id": "org/tiny", "sha": SHA, "siblings": []}).encode())
            elif path == f"/api/models/org/tiny/tree/{SHA}":
                listing = [
                    {"type": "file", "path": name, "size": len(content), "oid": f"{i:040x}"}
                    for i, (name, content) in enumerate(offered.items())
                ]
                self.answer(200, json.dumps(listing).encode(), Content_Type="application/json")
            elif path.startswith(f"/org/tiny/resolve/{SHA}/"):
                name = path.split("/")[-1]
                served.append(name)
                tag = f'"{list(offered).index(name):040x}"'
                self.answer(200, offered[name], ETag=tag, X_Repo_Commit=SHA)
            else:
                self.answer(404, b"{}", X_Error_Code="RevisionNotFound", X_Error_Message="no such revision")

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", here := f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", here + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    huggingface_hub.close_session()
    yield served
    server.shutdown()
    server.server_close()
    huggingface_hub.close_session()


def test_a_hub_model_is_fetched_once_without_pickles_and_pinned_to_its_commit(hub, model):
    with pytest.warns(UserWarning, match=f"revision main can move; pin it with --revision {SHA}"):
        source = model_source.find("org/tiny")
    assert source.revision == SHA and "model.safetensors" in hub and "pytorch_model.bin" not in hub
    assert source.files == model_source.find(str(model)).files
    fetched = list(hub)
    assert model_source.find("org/tiny", SHA) == source and hub == fetched
    load_all("org/tiny", SHA)


def test_gated_unknown_and_unreachable_models_are_told_apart(hub, monkeypatch):
    assert "org/gated is gated: accept its terms" in refusal("org/gated")
    assert "nor a model of the hub that you may see" in refusal("org/nothing")
    assert "org/tiny has no revision v9" in refusal("org/tiny", "v9")
    assert f"org/tiny has no revision {SHA[::-1]}" in refusal("org/tiny", SHA[::-1])
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "neither be found in the local cache nor be fetched" in refusal("org/tiny")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for revision in (None, SHA):
        assert "unset HF_HUB_OFFLINE" in refusal("org/tiny", revision)


# ---- the command


def arguments(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    any_model.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def test_the_command_takes_the_projects_sampler_and_prints_a_table(model, tmp_path, monkeypatch):
    asked = []

    def sample(model, tokenizer, chosen, n, sampler, seed, progress=""):
        asked.append((n, sampler))
        return Teacher().sample(model, tokenizer, chosen, n, sampler, seed)

    monkeypatch.setattr(sampling, "sample", sample)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    file = by_hand(tmp_path / "mine.jsonl")
    file.write_text("".join(json.dumps(asdict(p)) + "\n" for p in problems("test")))
    printed = any_model.run(arguments(model, "--benchmarks", file, "--samples", 2, "--workers", 1))
    own = any_model._defaults()
    expected = sampling.Sampler(own["temperature"], own["top_p"], own["max_tokens"], own["batch_tokens"])
    assert asked[0] == (2, expected) and asked[1][1].temperature == 0
    lines = printed.splitlines()
    assert lines[0].split() == ["benchmark", "domain", "n", *any_model.COLUMNS]
    assert sorted(line.split()[1] for line in lines[1:6]) == sorted(DOMAINS)
    assert (tmp_path / "evaluations" / "tiny" / "benchmarks.json").is_file()
    rows = json.loads((tmp_path / "evaluations" / "tiny" / "benchmarks.json").read_text())
    parsed = next(r for r in rows if r["metric"] == "unparseable" and r["domain"] == "math")
    assert f"{100 - 100 * parsed['value']:.1f} [" in next(line for line in lines if " math " in line)


def test_outside_the_project_the_cap_must_be_given(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = by_hand(tmp_path / "mine.jsonl")
    with pytest.raises(StudyError, match="--max-tokens is missing"):
        any_model.run(arguments(model, "--benchmarks", file))
    with pytest.raises(StudyError, match="--limit 0"):
        any_model.run(arguments(model, "--benchmarks", file, "--max-tokens", 8, "--limit", 0))


def test_help_needs_no_torch():
    code = (
        "import sys, prorl_study.any_model; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_settings_name_what_the_numbers_depend_on_and_no_time(model, pool, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "sample", Teacher().sample)
    any_model.evaluate(str(model), {"own": tiny_problems(2)}, pool, tmp_path, **SAMPLER)
    card = json.loads((tmp_path / "settings.json").read_text())
    assert card["backend"] == "transformers" and card["dtype"] == "float32"
    assert card["benchmarks"]["own"]["problems"] == 2 and card["samples"] == 2 * (SETTINGS.samples + 1)
    assert card["revision"] == model_source.find(str(model)).revision
    assert {"torch", "transformers"} <= set(card["libraries"])
    assert files.digest(model / "model.safetensors") in model_source.find(str(model)).files.values()
