"""A contest from roster to marks, as one class has it: the steps of an organiser and of forty teams, over HTTP.

Once quickly with the scripts of `board_helpers` as files, and once with real small networks of all forms, opened and
scored in this process (that submissions are opened in a child is for `test_hostile_models` and the sandbox's tests).
"""

from __future__ import annotations

import copy
import csv
import io
import re
import warnings
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from board_helpers import auth, content, scripted
from click.testing import CliRunner
from fastapi.testclient import TestClient
from torch import nn

from contest import networks
from contest.datasets import load
from contest.model_file import freeze, save
from leaderboard.app import create_app
from leaderboard.board import Board
from leaderboard.commands.admin import admin
from leaderboard.domain import contests, copies
from leaderboard.settings import BoardSettings
from leaderboard.storage.tables import State, Submission, now
from scoring.readers.user_module import export_qonnx
from scoring.report import Report
from scoring.rules import Rule, load_rule
from scoring.score import score_file
from tests.scoring import students

SUBMIT = "/api/v1/contests/class/submissions"


def run(settings: BoardSettings, *arguments: str) -> str:
    done = CliRunner().invoke(admin, [*arguments, "--contest", "class", "--directory", str(settings.directory)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.output


def join(client: TestClient, code: str, number: int) -> str:
    client.cookies.clear()
    found = re.search(r'name="csrf" value="([^"]+)"', client.get("/join").text)
    assert found is not None
    told = {"csrf": found[1], "code": code, "mail": f"late{number}@uni.example", "team": f"Late {number}"}
    token = re.search(r"contest_[0-9a-f]{16}_[\w-]{43}", client.post("/join", data=told).text)
    client.cookies.clear()
    assert token is not None
    return token[0]


class Scripts:
    """Files that say what becomes of them; the private images are harder."""

    rule, scorer, endings = "lab", staticmethod(scripted), ("pt",)
    wrong = (content(refuse="it is a pickled module"), content(report={"accuracy": 0.7}), content(crash=1))

    def __init__(self, data: Path) -> None:
        self.entries = [
            content(n=i, report={"score": 0.01 + i / 1000, "accuracy": 0.91}, private={"accuracy": 0.905})
            for i in range(40)
        ]
        self.again = content(n=9, report={"score": 0.019})
        self.best = content(n=98, report={"score": 0.001}, private={"accuracy": 0.906})

    def private_accuracy(self, number: int) -> float | None:
        return 0.905


class Networks:
    """Two networks trained a moment on digits, pruned by a little more each, in the forms that students hand in."""

    rule, endings = "digits", ("pt", "safetensors", "onnx", "onnx", "onnx")

    def __init__(self, data: Path) -> None:
        data.mkdir()
        test = students.digits()
        held_out = slice(0, None, 2)
        every = np.arange(10)
        np.savez(
            data / "private.npz",
            x_train=np.zeros((10, 8, 8), np.uint8),
            y_train=every,
            x_test=test.pixels[held_out].squeeze().numpy(),
            y_test=test.labels[held_out].numpy(),
        )
        self.folder = data
        architecture = networks.parse("thin:widths=8-12,depths=1-1")
        torch.manual_seed(0)
        self.thin = students.train(networks.build(architecture, (1, 8, 8), 10), steps=400), architecture
        torch.manual_seed(1)
        self.lenet = students.train(students.LeNet(), steps=150)
        forms = (self._ours, self._ours_safe, self._float_onnx, self._qdq, self._qonnx)
        self.entries = [forms[i % 5](0.01 * (i // 5)) for i in range(40)]
        self.again, self.best = self._ours(0.1), self._qonnx(0.3)
        torch.save(self.lenet, data / "module.pt")
        torch.manual_seed(2)
        untrained = self._float_onnx(0, students.LeNet().eval())
        self.wrong = ((data / "module.pt").read_bytes(), untrained)

    def scorer(self, path: Path, rule: Rule, isolation: str) -> Report:
        images = load(rule.dataset, self.folder, download=False).test
        return score_file(path, images=images, rule=rule, trust=True, details=True)

    def private_accuracy(self, number: int) -> float | None:
        """By ONNX Runtime, of the forms that it runs."""
        if number % 5 not in (2, 3):
            return None
        session = onnxruntime.InferenceSession(self.entries[number], providers=["CPUExecutionProvider"])
        held_out = np.load(self.folder / "private.npz")
        answers = session.run(None, {"x": held_out["x_test"][:, None].astype(np.float32) / 255})[0]
        return float((answers.argmax(1) == held_out["y_test"]).mean())

    def _pruned(self, model: nn.Module, share: float) -> nn.Module:
        """A copy whose smallest weights are zero."""
        model = copy.deepcopy(model)
        for weight in (p.data for p in model.parameters() if p.ndim > 1):
            weight[weight.abs() <= weight.abs().flatten().kthvalue(max(1, int(share * weight.numel()))).values] = 0
        return model.eval()

    def _ours(self, share: float, ending: str = "pt") -> bytes:
        model, architecture = self.thin
        frozen = freeze(self._pruned(model, share), architecture, image_shape=(1, 8, 8), classes=10)
        return save(frozen, self.folder / f"model.{ending}").read_bytes()

    def _ours_safe(self, share: float) -> bytes:
        return self._ours(share + 0.002, "safetensors")

    def _float_onnx(self, share: float, model: nn.Module | None = None) -> bytes:
        path = self.folder / "model.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                self._pruned(model or self.lenet, share),
                (torch.rand(1, 1, 8, 8),),
                str(path),
                opset_version=17,
                dynamo=False,
                input_names=["x"],
                dynamic_axes={"x": {0: "n"}},
            )
        return path.read_bytes()

    def _qdq(self, share: float) -> bytes:
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Calibration(CalibrationDataReader):
            batches = iter((load("digits").train.pixels[:200].float() / 255).split(50))

            def get_next(self) -> dict[str, object] | None:
                batch = next(self.batches, None)
                return None if batch is None else {"x": np.ascontiguousarray(batch.numpy())}

        source, path = self.folder / "model.onnx", self.folder / "qdq.onnx"
        source.write_bytes(self._float_onnx(share))
        quant_pre_process(str(source), str(source))
        quantize_static(str(source), str(path), Calibration(), weight_type=QuantType.QInt8)
        return path.read_bytes()

    def _qonnx(self, share: float) -> bytes:
        import brevitas.nn as qnn

        source = self._pruned(self.lenet, share)
        model = nn.Sequential(
            qnn.QuantIdentity(bit_width=8),
            qnn.QuantConv2d(1, 6, 3, padding=1, weight_bit_width=6),
            nn.BatchNorm2d(6),
            qnn.QuantReLU(bit_width=8),
            nn.MaxPool2d(2),
            qnn.QuantConv2d(6, 12, 3, padding=1, bias=False, weight_bit_width=6),
            nn.BatchNorm2d(12),
            qnn.QuantReLU(bit_width=8),
            nn.MaxPool2d(2),
            nn.Flatten(),
            qnn.QuantLinear(48, 10, bias=True, weight_bit_width=6),
        )
        for mine, theirs in ((1, "conv1"), (2, "bn1"), (5, "conv2"), (6, "bn2"), (10, "fc")):
            model[mine].load_state_dict(getattr(source, theirs).state_dict(), strict=False)
        with torch.no_grad():
            for _ in range(20):  # in training the quantisers of activations see what arrives
                model.train()
                for norm in (model[2], model[6]):
                    norm.eval()
                model(load("digits").train.pixels[:500].float() / 255)
        export_qonnx(model, (1, 8, 8), self.folder / "q.onnx")
        return (self.folder / "q.onnx").read_bytes()


@pytest.mark.parametrize("kind", [Scripts, pytest.param(Networks, marks=pytest.mark.slow)])
def test_a_class_from_roster_to_marks(kind: type[Scripts | Networks], settings: BoardSettings, tmp_path: Path) -> None:
    files = kind(tmp_path / "data")
    settings = replace(settings, workers=0)
    with TestClient(create_app(settings, files.scorer), raise_server_exceptions=False) as client:
        board: Board = client.app.state.board  # type: ignore[attr-defined]
        with board.database.write() as session:
            contests.create(session, "class", load_rule(files.rule), daily_limit=1000)
        table, out = tmp_path / "roster.csv", tmp_path / "tokens.csv"
        table.write_text("team,name,mail,id\n" + "".join(f"Team {i},P{i},p{i}@e.edu,{i}\n" for i in range(30)))
        assert "30 new teams, 30 new members" in run(settings, "teams", str(table), "--out", str(out))
        tokens = {row["team"]: row["token"] for row in csv.DictReader(io.StringIO(out.read_text()))}
        code = run(settings, "class-code", "--domain", "uni.example").strip()
        tokens |= {f"Late {i}": join(client, code, i) for i in range(10)}
        assert len(tokens) == 40

        def submit(team: str, file: bytes, ending: str = "pt") -> int:
            answer = client.post(SUBMIT, params={"name": f"net.{ending}"}, content=file, headers=auth(tokens[team]))
            return int(answer.json()["submission"]["id"]) if answer.status_code in (200, 202) else answer.status_code

        def states() -> dict[str, int]:
            with board.database.read() as session:
                return contests.count_submissions(session, contests.find(session, "class"))

        endings = files.endings * (40 // len(files.endings))
        entered = {
            team: submit(team, file, ending) for team, file, ending in zip(tokens, files.entries, endings, strict=True)
        }
        for team, file, ending in zip(("Team 3", "Team 5", "Team 4"), files.wrong, ("pt", "onnx", "pt"), strict=False):
            assert submit(team, file, ending) == 41 + ("Team 3", "Team 5", "Team 4").index(team)
        submit("Team 6", files.again)
        submit("Team 29", files.entries[0])  # Team 0's very file
        for _ in range(50):
            board.work.score()
        expected = {State.RANKED: 42, State.REFUSED: 1, State.BELOW_THRESHOLD: 1, State.FAILED: len(files.wrong) - 2}
        assert states() == {state: count for state, count in expected.items() if count}
        run(settings, "rerun", str(entered["Team 7"]))
        board.work.score()
        end = now()
        run(
            settings,
            "set",
            "--deadline",
            f"{end:%Y-%m-%dT%H:%M:%S}",
            "--final-data",
            "private",
            "--final-at",
            f"{end + timedelta(hours=1):%Y-%m-%dT%H:%M:%S}",
        )
        run(settings, "team", "Team 8", "--deadline", f"{end + timedelta(hours=2):%Y-%m-%dT%H:%M:%S}")
        assert submit("Team 9", files.best) == 403
        late = submit("Team 8", files.best, files.endings[-1])
        board.jobs.sweep()
        board.work.score()
        with board.database.read() as session:
            assert session.get_one(Submission, late).state == State.RANKED
            alike = copies.find(session, contests.find(session, "class"))
            assert {(c.team, c.other_team) for c in alike if c.same_file} == {("Team 29", "Team 0")}
        run(settings, "team", "Team 8", "--deadline", "none")
        for _ in range(45):
            board.jobs.sweep()
            board.work.score()
        assert client.get("/api/v1/contests/class/final").status_code == 403
        run(settings, "set", "--final-at", f"{now() - timedelta(seconds=1):%Y-%m-%dT%H:%M:%S}")
        final = client.get("/api/v1/contests/class/final").json()
    assert [row["rank"] for row in final] == list(range(1, 41)) and final[0]["team"] == "Team 8"
    private = {row["team"]: row["accuracy"] for row in final if row["team"] != "Team 8"}
    for i, team in enumerate(tokens):
        known = files.private_accuracy(i) if team in private else None
        assert known is None or abs(private[team] - known) < 1e-6, team
    marks = tmp_path / "marks.csv"
    run(settings, "grades", "--csv", str(marks), "--formula", "6 - (rank - 1) / teams")
    rows = list(csv.DictReader(io.StringIO(marks.read_text(encoding="utf-8"))))
    assert len(rows) == 40
    assert (rows[0]["name"], rows[0]["id"], rows[0]["points"], rows[0]["final rank"]) == ("P8", "8", "6.0", "1")
    assert {row["rank"] for row in rows} == {str(i) for i in range(1, 41)}
    assert np.isclose(float(rows[39]["points"]), 6 - 39 / 40, atol=1e-4)
