"""The benchmark of the method's parts, at a tiny size, and the page that holds its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torchvision
import tyro

from benchmarks.ablations import MARKS, VARIANTS, Ablations, replace_table, summary, table
from instantavatar_ns.data.dataset import AvatarDataset
from instantavatar_ns.deformer.skinning_grid import SkinningSettings
from tests.commands import TINY_TRAINING

RESULT = {
    "method": "instant-avatar",
    "device": "a GPU",
    "commit": "0123456789",
    "date": "2026-01-01",
    "variants": {name: variant._asdict() for name, variant in VARIANTS.items()},
}


def run(novel: float, heldout: float) -> dict[str, float]:
    return {"novel_psnr": novel, "heldout_psnr": heldout, "train_seconds": 10.0, "steps": 3000}


def test_table_has_mean_spread_and_difference_to_the_full_method() -> None:
    runs = {f"some.one.full.{seed}": run(27.0 + seed, 30.0) for seed in range(3)}
    runs |= {f"some.one.no-refinement.{seed}": run(25.0, 30.5) for seed in range(2)}
    runs["other.full.0"] = run(20.0, 21.0)
    figures = summary(runs)
    assert figures["some.one"]["full"]["novel_psnr"] == {"mean": 28.0, "spread": 1.0, "seeds": 3}
    lines = table({**RESULT, "summary": figures}).splitlines()
    assert lines[0] == "instant-avatar, a GPU, commit 0123456, 2026-01-01."
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert cells[2][0] == "some.one" and cells[2][2:] == ["28.00 ± 1.00", "30.00 ± 0.00", "10.00 ± 0.00", "–", "3"]
    assert cells[3][1] == VARIANTS["no-refinement"].description and cells[3][-2:] == ["-3.00, +0.50", "2"]
    assert cells[4][0] == "other" and cells[4][2] == "20.00", "of one seed no spread"


def test_lpips_has_a_column_where_all_runs_measured_it() -> None:
    runs = {f"a.{name}.0": {**run(27.0, 30.0), "novel_lpips": 0.01234} for name in ("full", "no-refinement")}
    header, _, first, _ = table({**RESULT, "summary": summary(runs)}).splitlines()[2:]
    assert header.split(" | ")[2:6] == ["novel PSNR", "held-out PSNR", "novel LPIPS", "seconds"]
    assert first.split(" | ")[4] == "0.0123"
    assert "LPIPS" not in table({**RESULT, "summary": summary({**runs, "b.full.0": run(27.0, 30.0)})})


def test_table_replaces_what_stands_between_the_comments(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{MARKS[0]}\n\nold\n\n{MARKS[1]}\n\nafter\n")
    result = {**RESULT, "summary": summary({"a.full.0": run(1.0, 2.0)})}
    replace_table(page, result)
    assert page.read_text() == f"before\n\n{MARKS[0]}\n\n{table(result)}\n\n{MARKS[1]}\n\nafter\n"
    page.write_text("no comments")
    with pytest.raises(SystemExit, match="expected the comments"):
        replace_table(page, result)
    assert page.read_text() == "no comments"


def test_page_shows_what_was_measured(repo_root: Path) -> None:
    text = (repo_root / "docs" / "ablations.md").read_text(encoding="utf8")
    shown = text.split(MARKS[0])[1].split(MARKS[1])[0].strip()
    results = repo_root / "benchmarks" / "results" / "ablations.json"
    expected = table(json.loads(results.read_text(encoding="utf8"))) if results.is_file() else "Not measured yet."
    assert shown == expected


def test_unknown_variant_is_named() -> None:
    with pytest.raises(SystemExit, match=r"No variant none\. There are: full, "):
        Ablations(subjects=(Path("x"),), variants=("none",)).main()


def test_options_of_every_variant_are_those_of_ns_train(tmp_path: Path) -> None:
    from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion

    small = Ablations(subjects=(tmp_path,), steps=40, runs=tmp_path / "runs")
    arguments = small.arguments(tmp_path, "full", 3)
    options = [option.format(steps=40) for variant in VARIANTS.values() for option in variant.options]
    place = arguments.index("--data")
    config = tyro.cli(AnnotatedBaseConfigUnion, args=[*arguments[:place], *options, *arguments[place:]])
    assert config.pipeline.datamanager.dataparser.eval_set == "novel"
    assert config.machine.seed == config.pipeline.datamanager.seed == 3
    model = config.pipeline.model
    assert model.occupancy_warmup == 40 and not (model.refine_poses or model.align_poses or model.move_joints)
    assert model.occupancy_loss_mult == model.hard_surface_loss_mult == 0
    assert model.skinning == SkinningSettings(neighbors=30, smoothing_passes=30, sharpness=1.0)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ablations:
    """Of two variants, with one seed."""
    monkeypatch.setenv("COMMIT", "0123456789")
    variants = ("full", "no-union-grid")
    output = tmp_path / "ablations.json"
    return Ablations((tmp_path / "subject",), variants, (0,), output=output, runs=tmp_path / "runs")


def test_runs_are_not_made_again_and_failures_are_told(
    small: Ablations, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[tuple[str, int]] = []

    def measure(subject: Path, name: str, seed: int) -> dict[str, float]:
        made.append((name, seed))
        if (name, seed) == ("full", 1):
            raise RuntimeError("out of memory")
        return run(27.0 + seed, 30.0)

    monkeypatch.setattr(small, "measure", measure)
    small.main()
    small.seeds = (0, 1)
    result = small.main()
    assert made == [("full", 0), ("no-union-grid", 0), ("full", 1), ("no-union-grid", 1)]
    assert "subject.full.1 failed: RuntimeError: out of memory" in capsys.readouterr().out
    assert json.loads(small.output.read_text()) == result
    assert len(result["runs"]) == 3
    assert result["summary"]["subject"]["no-union-grid"]["novel_psnr"]["mean"] == 27.5
    small.options = "--pipeline.model.empty-steps 7"
    small.seeds = (0,)
    assert len(small.main()["runs"]) == 2, "those of other options are made anew"


@pytest.mark.nightly
def test_variants_are_trained_and_evaluated(
    small: Ablations, demo_subject: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convolutions = torchvision.models.alexnet().features.state_dict(prefix="features.")
    torch.save(convolutions, tmp_path / "alexnet.pth")
    small.subjects, small.method, small.steps = (demo_subject,), "instant-avatar-lite", 6
    small.options, small.lpips_backbone = " ".join(TINY_TRAINING), tmp_path / "alexnet.pth"
    read = []
    original = AvatarDataset.get_numpy_image
    monkeypatch.setattr(AvatarDataset, "get_numpy_image", lambda self, i: read.append(i) or original(self, i))
    result = small.main()
    assert len(read) == 8 + 4 + 3, "two runs read the training, novel and held-out frames once"
    assert all(5 < figures["novel_psnr"] < 30 for figures in result["runs"].values())
    assert all(0 < figures["novel_lpips"] < 1 for figures in result["runs"].values())
    assert result["summary"]["subject"]["no-union-grid"]["heldout_psnr"]["seeds"] == 1
    config = (tmp_path / "runs" / "subject.no-union-grid.0" / "instant-avatar-lite" / "run" / "config.yml").read_text()
    assert "occupancy_warmup: 6\n" in config and config.count("seed: 0\n") == 2
