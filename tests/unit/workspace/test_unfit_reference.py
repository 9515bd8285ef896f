"""The reference is judged as soon as it is made, in a DVC stage by the epoch tables."""

from pathlib import Path

import pytest

from lethe._util.files import write_text
from lethe.config import loader
from lethe.pipeline import references
from lethe.workspace import scores
from lethe.workspace.prepare import prepare

DIGITS = ("--data.source", "digits", "--data.limit", "12", "--data.forget.fraction", "0.5", "--run.workspace")


def test_a_dvc_stage_judges_by_the_last_rows_of_both_epoch_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DVC_STAGE", "retrain")
    prepared = prepare(loader.load([*DIGITS, str(tmp_path)]))
    write_text(prepared.layout.epochs("retrained"), "step,retain.accuracy,forget.accuracy\n0,10,10\n9,54.6,50\n")
    assert scores.unfit_by_epochs(prepared) == ""  # there is no original yet
    write_text(prepared.layout.epochs("original"), "step,retain.accuracy,forget.accuracy\n0,10,10\n9,100,98\n")
    references.judge(prepared)
    line = "the retrained model is no reference: it gets 54.6 % of retain right, where the original gets 99.0 % of its training images; "
    assert line + "raise pretrain.min_steps or retrain.epochs" in capsys.readouterr().err
    assert not prepared.layout.all_logits.exists()
    write_text(prepared.layout.epochs("retrained"), "step,retain.accuracy,forget.accuracy\n9,96,50\n")
    assert scores.unfit_by_epochs(prepared) == ""
