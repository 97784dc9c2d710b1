"""Jobs of a sitting: each ends alone, and what there is lies in the archive."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path
from threading import Lock
from time import monotonic

import pytest

from benchmarks import sitting
from benchmarks.sitting import Job, jobs, run_queue, saving


def python(code: str, limit: float = 60, *, all_gpus: bool = False) -> Job:
    return Job((sys.executable, "-c", code), limit, all_gpus)


def test_job_that_fails_or_hangs_ends_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    known = {
        "fails": python("raise SystemExit('because')"),
        "hangs": python(child, 1.5),
        "works": python("import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"),
        "on-all": python("import os; print(os.environ['CUDA_VISIBLE_DEVICES'])", all_gpus=True),
    }
    begin = monotonic()
    assert run_queue(list(known), known, "5", ["4", "5"], tmp_path, Lock()) == ["fails", "hangs"]
    assert monotonic() - begin < 30
    told = capsys.readouterr().out
    assert "fails failed with status 1\n    because" in told and "hangs stopped after 1.5 s" in told
    assert (tmp_path / "works.log").read_text() == "5\n" and (tmp_path / "on-all.log").read_text() == "4,5\n"


def test_archive_has_what_there_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sitting, "_SECONDS_A_SAVE", 0.05)
    folder, archive = tmp_path / "results", tmp_path / "results.tar.gz"
    folder.mkdir()
    end = saving(folder, archive)
    (folder / "figures.json").write_text("{}")
    end()
    with tarfile.open(archive) as file:
        assert "results/figures.json" in file.getnames()


def test_commands_name_benchmarks_that_there_are(tmp_path: Path) -> None:
    for name, job in jobs(tmp_path, tmp_path, tmp_path, None).items():
        modules = [after for before, after in zip(job.command, job.command[1:], strict=False) if before == "-m"]
        for module in modules[:1]:
            is_ours = module.startswith("benchmarks.")
            assert not is_ours or Path(*module.split(".")).with_suffix(".py").is_file(), name
