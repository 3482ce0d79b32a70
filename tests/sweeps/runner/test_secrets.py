"""Keys and tokens never reach records, logs or messages."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from study.config import Adam, Budget, CachedImage, Cell, Execution, MeanPoolText, Model
from study.records import redact as secrets
from study.records.redact import redact
from sweeps.cli.app import _report_error
from sweeps.runner import log_pump, worker
from sweeps.runner.signals import StopFlag
from sweeps.runner.worker_spec import CellTask, WorkerSpec

KEY = "0123456789abcdef" * 2 + "deadbeef"  # 40 characters, as wandb's are
TOKEN = "hf_plantedplantedplanted"
CELL = Cell(
    model=Model(
        image=CachedImage(embeddings="hog-lda-16", dim=16),
        text=MeanPoolText(width=16),
        embed_dim=16,
    ),
    optimizer=Adam(learning_rate=1e-2),
    budget=Budget(examples=256),
    batch_size=32,
)


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("WANDB_MODE", raising=False)


def written(folder: Path) -> bytes:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return b"".join(path.read_bytes() for path in files)


def train_once(folder: Path, execution: Execution):
    spec = WorkerSpec(
        tasks=(CellTask(cell=CELL, execution=execution),), folder=str(folder), group="s", log=False
    )
    lines: list[str] = []
    return worker.train_once(spec, stop=StopFlag(), report=lines.append), lines


def refused(*_, **__):
    raise RuntimeError(f"401 for the key {KEY}, and {TOKEN} is no better")


def test_an_error_that_quotes_a_key_is_noted_without_it(planted, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "import_entry", lambda _: refused)
    ended = train_once(tmp_path / "s", Execution())
    outcome, error = ended[0]
    assert outcome == "raised" and "<WANDB_API_KEY>" in error
    everything = written(tmp_path) + str(ended).encode()
    assert b"401 for the key" in everything
    for secret in (KEY, TOKEN):
        assert secret.encode() not in everything


def test_the_command_line_says_no_key_either(planted, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    try:
        refused()
    except RuntimeError as error:
        _report_error(error)
    everything = capsys.readouterr().err.encode() + written(tmp_path)
    assert b"<HF_TOKEN>" in everything
    for secret in (KEY, TOKEN):
        assert secret.encode() not in everything


def test_only_what_is_named_like_a_secret_and_long_enough_is_hidden():
    environ = {"MY_TOKEN": "abcdefgh", "LONG_KEY": "abcdefghijkl", "PIN_KEY": "1", "HOME": "/root"}
    assert redact("abcdefghijkl abcdefgh 1 /root", environ) == "<LONG_KEY> <MY_TOKEN> 1 /root"


# --- forms ---------------------------------------------------------------------------------------

HEX = "0123456789abcdef0123456789abcdef01234567"
LONG = "Zx9" * 14
SECRETS = [
    f"hf_{LONG}",
    f"token = 'hf_{LONG}'",
    f"wandb_v1_{LONG}_{LONG}",
    f"wandb: ERROR the API key {HEX} was refused",
    f'{{"wandb_api_key": "{HEX}"}}',
    f"machine api.wandb.ai login user password {HEX}",
    f"password {LONG}",
    "AKIAIOSFODNN7EXAMPLE",
    "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    f"MY_SERVICE_TOKEN={LONG}",
    f"MY_CREDENTIALS={LONG}",
    f"headers: {{'Authorization': 'Bearer {LONG}'}}",
    f"Authorization: Basic {LONG}==",
    f"authorization: token {LONG}",
    f"Bearer ya29.{LONG}",
    f"https://storage.googleapis.com/b/o?X-Goog-Credential={LONG}&X-Goog-Signature={LONG}&a=b",
    f"https://b.s3.amazonaws.com/o?X-Amz-Signature={LONG}&X-Amz-Security-Token={LONG}",
    f"https://user:{LONG}@host/path",
    f"https://maps.example.org/?key=AIza{LONG[:35]}",
    f"ghp_{LONG}",
    f"eyJhbGciOiJIUzI1NiJ9.{LONG}.{LONG}",
    f"-----BEGIN RSA PRIVATE KEY-----\n{LONG}\n{LONG}\n-----END RSA PRIVATE KEY-----",
]
CORES = (HEX, LONG, LONG[:35], "IOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")


@pytest.mark.parametrize("text", SECRETS)
def test_known_forms_of_keys_and_tokens_are_hidden(text):
    hidden = redact(f"before {text} after", {})
    assert "<hidden>" in hidden
    assert hidden.startswith("before ") and hidden.endswith(" after")
    for core in CORES:
        assert core not in hidden


@pytest.mark.parametrize(
    "text",
    [
        f"commit {HEX} of the code",
        "train_tokens: 123456789012 tokenizer=/data/cc12m/sentencepiece.model",
        "KeyError: 'eval/zero_shot/val_font/top1' is not a key of the summary",
        "gs://bucket/runs/demo/b512-sigmoid-s0-5a36efe3/metrics.jsonl?generation=1234567890123456",
        "unexpected token: identifier_of_some_length",
        "the bearer of this is unknown, and a secret too",
        "https://host:8265/path@v1",
    ],
)
def test_other_text_is_left_alone(text):
    assert redact(text, {"HF_TOKEN": "hf_something_else"}) == text


def test_each_line_of_a_value_of_several_lines_is_hidden():
    environ = {"GCP_KEY": "first-line-of-it\nsecond-line-of-it\n"}
    assert redact("x second-line-of-it", environ) == "x <GCP_KEY>"


# --- logs ----------------------------------------------------------------------------------------

PRINTING = """
import contextlib, ctypes, os, signal, subprocess, sys, time
from pathlib import Path
from sweeps.runner.logs import logged

key, token = os.environ["WANDB_API_KEY"], os.environ["HF_TOKEN"]
bearer = "Bearer " + "Zx9" * 14
log = contextlib.ExitStack()
log.enter_context(logged(Path(sys.argv[1])))
print("python", key)
print("stderr", token, file=sys.stderr)
sys.stdout.flush()
libc = ctypes.CDLL(None)
libc.printf(b"from C %s\\n", key.encode())
libc.fflush(None)
os.write(1, b"raw " + bearer.encode() + b"\\n")
for part in ("half ", key[:20], key[20:], " and ", bearer[:15], bearer[15:], "\\n"):
    os.write(2, part.encode())
    time.sleep(0.02)
subprocess.run(["sh", "-c", "echo child $HF_TOKEN; printf %s $WANDB_API_KEY >&2; echo"])
os.write(1, b"\\xff\\xfe not utf-8\\n")
os.write(1, b"tail " + key.encode())
END
"""
ENDINGS = {
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "exited": "os._exit(3)",
    "aborted": "os.abort()",
    "returned": "pass",
    "closed": "log.close(); print('after', key)",
}
LINES = [
    *("python <WANDB_API_KEY>", "stderr <HF_TOKEN>", "from C <WANDB_API_KEY>"),
    *("raw Bearer <hidden>", "half <WANDB_API_KEY> and Bearer <hidden>", "child <HF_TOKEN>"),
    *("<WANDB_API_KEY>", "\udcff\udcfe not utf-8", "tail <WANDB_API_KEY>"),
]


def printed(folder, ending):
    """What the log holds when the pump, which outlives the process, has written the last line."""
    code = PRINTING.replace("END", ENDINGS[ending])
    subprocess.run([sys.executable, "-c", code, folder], check=False, capture_output=True)
    path = folder / "logs" / "0.log"
    for _ in range(600):
        text = path.read_bytes().decode(errors="surrogateescape")
        if LINES[-1] in text:
            break
        time.sleep(0.05)
    return text


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_log_holds_no_key_and_all_lines_however_its_process_ends(planted, tmp_path, ending):
    text = printed(tmp_path, ending)
    head, *lines = text.split("\n")
    assert head.startswith("--- ") and lines == LINES


def pumped(chunks, environ):
    """What `log_pump` writes of these reads."""
    known = SimpleNamespace(
        LONGEST=secrets.LONGEST,
        redact=lambda text: secrets.redact(text, environ),
        safe_cut=lambda text, cut: secrets.safe_cut(text, cut, environ),
    )
    out, held = [], b""
    for chunk in chunks:
        done, held = log_pump.split(known, held + chunk)
        out.append(done)
    return "".join(known.redact(part.decode(errors="surrogateescape")) for part in [*out, held])


def test_a_secret_cut_by_two_reads_is_hidden_wherever_the_cut_is():
    text = f"loss 1.5\rprogress {KEY}\nX-Amz ?X-Amz-Signature={LONG}&b\n{SECRETS[-1]}\nend".encode()
    want = "loss 1.5\rprogress <WANDB_API_KEY>\nX-Amz ?X-Amz-Signature=<hidden>&b\n"
    want += "-----BEGIN RSA PRIVATE KEY-----<hidden>-----END RSA PRIVATE KEY-----\nend"
    for cut in range(len(text) + 1):
        assert pumped([text[:cut], text[cut:]], {"WANDB_API_KEY": KEY}) == want, cut


@pytest.mark.parametrize("space", [" ", ""])
def test_a_line_without_end_is_cut_between_secrets(space, monkeypatch):
    """At any place, and the secrets may hold no space either side."""
    monkeypatch.setattr(log_pump, "LONGEST_LINE", 1 << 14)
    environ = {"A_TOKEN": "p@ss word with spaces", "B_TOKEN": "#" * 3000}
    for more in range(5100, 8300, 50):  # the cut is wanted 8192 before the end
        line = "x" * log_pump.LONGEST_LINE
        line += f"{space}{environ['B_TOKEN']}{space}{environ['A_TOKEN']}" + "y" * more
        got = pumped([line.encode(), b"z"], environ)
        assert (
            got
            == line.replace("#" * 3000, "<B_TOKEN>").replace("p@ss word with spaces", "<A_TOKEN>")
            + "z"
        )


def test_a_log_on_a_full_disk_stops_nobody():
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    code = (
        "import os\nfrom sweeps.runner.logs import _Pump\n"
        "p = _Pump(os.open('/dev/full', os.O_WRONLY))\n"
        "os.write(p.pipe, b'x' * 1000000 + b'\\n')\np.close()\nprint('well')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "well\n", done.stderr


def test_what_a_child_prints_after_the_log_is_closed_breaks_nothing(planted, tmp_path):
    """A service that wandb began for the first cell goes on through the next."""
    code = (
        "import subprocess, sys\nfrom pathlib import Path\nfrom sweeps.runner.logs import logged\n"
        "with logged(Path(sys.argv[1])):\n"
        "    child = subprocess.Popen(['sh', '-c', 'read x; echo late $HF_TOKEN && echo more'],"
        " stdin=subprocess.PIPE)\n"
        "child.communicate(b'x')\nassert child.returncode == 0\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    path = tmp_path / "logs" / "0.log"
    for _ in range(600):
        if path.read_text().endswith("more\n"):
            break
        time.sleep(0.05)
    assert path.read_text().endswith("\nlate <HF_TOKEN>\nmore\n")
