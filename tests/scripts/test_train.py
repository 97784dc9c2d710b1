"""`instant-avatar train` beside ns-train: what it imports, its flags, its folder and its numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.commands import TINY_TRAINING, run_folder, run_here, training_arguments

# Not for help; nor for a training without a viewer.
NEVER = (
    "gsplat",
    "matplotlib",
    "nerfstudio.configs.method_configs",
    "nerfstudio.data.dataparsers.colmap_dataparser",
    "nerfstudio.models.splatfacto",
    "nerfstudio.viewer.viewer",
    "tensorboard",
    "torch._dynamo.convert_frame",  # PyTorch's compiler
    "sympy",
    "torch._decomp.decompositions_for_jvp",  # its forward mode
    "torch._inductor",
    "torchmetrics",
    "torchvision",
    "trimesh",
    "viser",
)
NOT_FOR_HELP = (*NEVER, "h5py", "scipy.interpolate")
STEPS = 6


def arguments(data: Path, output: Path) -> list[str]:
    """Flags of a tiny training, for both commands."""
    more = training_arguments(data, output, STEPS, *TINY_TRAINING)
    place = more.index("--vis")
    return more[:place] + more[place + 2 :]


@pytest.fixture(scope="module")
def trained(demo_subject: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, list[set[str]]]:
    """A training by `instant-avatar train`, and then one by ns-train in the same process, in a folder each."""
    folder = tmp_path_factory.mktemp("trained")
    lean = ("instant-avatar", ["train", *arguments(demo_subject, folder / "lean")])
    whole = arguments(demo_subject, folder / "whole")
    whole = [whole[0], "--vis", "tensorboard", *whole[1:]]
    return folder, *run_here(folder, lean, ("ns-train", whole))


def test_help_imports_what_the_methods_need(tmp_path: Path) -> None:
    output, (modules,) = run_here(tmp_path, ("instant-avatar", ["train", "--help"]))
    assert "--pipeline.model.align-poses" in output and "zju-mocap-data" in output
    assert "instant-avatar-wild" in output and "blender-data" not in output
    assert sorted(modules.intersection(NOT_FOR_HELP)) == []


def test_training_imports_no_viewer_and_no_other_method(trained: tuple[Path, str, list[set[str]]]) -> None:
    _, _, (lean, whole) = trained
    assert sorted(lean.intersection(NEVER)) == []
    assert "nerfstudio.configs.method_configs" in whole and "nerfstudio.models.splatfacto" in whole


def test_parameters_are_those_of_ns_train(trained: tuple[Path, str, list[set[str]]]) -> None:
    """To the last bit, and ns-train works as ever in a process that has trained so before."""
    folder, _, _ = trained
    lean, whole = (
        torch.load(run_folder(folder / name) / "nerfstudio_models" / f"step-{STEPS - 1:09d}.ckpt")
        for name in ("lean", "whole")
    )
    assert lean.keys() == whole.keys() and lean["pipeline"].keys() == whole["pipeline"].keys()
    assert [key for key, value in lean["pipeline"].items() if not torch.equal(value, whole["pipeline"][key])] == []


def test_configuration_is_that_of_ns_train(trained: tuple[Path, str, list[set[str]]]) -> None:
    folder, _, _ = trained
    lean, whole = ((run_folder(folder / name) / "config.yml").read_text().splitlines() for name in ("lean", "whole"))
    assert len(lean) == len(whole)
    different = [pair for pair in zip(lean, whole, strict=True) if pair[0] != pair[1]]
    assert sorted(different) == [("- lean", "- whole"), ("vis: none", "vis: tensorboard")]


def test_end_names_the_run_and_what_can_be_done_with_it(trained: tuple[Path, str, list[set[str]]]) -> None:
    folder, output, _ = trained
    config = run_folder(folder / "lean") / "config.yml"
    for command in ("ns-viewer", "instant-avatar animate", "instant-avatar evaluate", "instant-avatar export"):
        assert f"{command} --load-config {config}" in output


def test_training_that_ends_in_the_noise_of_its_beginning_says_so(
    trained: tuple[Path, str, list[set[str]]],
) -> None:
    _, output, _ = trained
    said = " ".join(output.split())
    assert "Training ends at step 6, but densities are noisy until step 20" in said
    assert "--pipeline.model.density-noise-steps 4" in said


@pytest.mark.nightly
def test_viewer_is_there_where_it_is_asked_for(demo_subject: Path, tmp_path: Path) -> None:
    more = ["--vis", "viewer", "--viewer.quit-on-train-completion", "True", "--viewer.websocket-port-default", "7123"]
    line = arguments(demo_subject, tmp_path)
    output, (loaded,) = run_here(tmp_path, ("instant-avatar", ["train", line[0], *more, *line[1:]]))
    assert "instant-avatar animate" in output, "it came to its end"
    assert {"nerfstudio.viewer.viewer", "instantavatar_ns.viewer.avatar_viewer"} <= loaded


def test_a_machine_without_gpu_is_told_what_trains_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from instantavatar_ns.scripts.train import parse
    from instantavatar_ns.utils.errors import InputError

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"expected an NVIDIA GPU.*instant-avatar-lite with"):
        parse([]).setup(local_rank=0, world_size=1)


@pytest.mark.parametrize("before", [[], ["outputs"], ["outputs", "outputs/person/other"]])
def test_nothing_is_left_of_a_training_that_is_refused(
    before: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither on a machine without GPU nor of a folder that is not there; what was there before stays."""
    from instantavatar_ns.scripts.train import entrypoint
    from instantavatar_ns.utils.errors import InputError

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    for name in before:
        Path(name).mkdir(parents=True, exist_ok=True)
    told = sorted(tmp_path.rglob("*"))
    for method, reason in (("instant-avatar", "expected an NVIDIA GPU"), ("instant-avatar-lite", "no such folder")):
        device = ["--machine.device-type", "cpu"] if method == "instant-avatar-lite" else []
        with pytest.raises(InputError, match=reason):
            entrypoint([method, *device, "--data", "missing/person", "instant-avatar-data"])
        assert sorted(tmp_path.rglob("*")) == told


def test_an_error_of_the_program_keeps_the_configuration(tmp_path: Path) -> None:
    from instantavatar_ns.scripts.train import nothing_left_of_a_refusal
    from instantavatar_ns.utils.errors import InputError

    def end_by(error: Exception, *names: str) -> list[str]:
        run = tmp_path / "run"
        with pytest.raises(type(error)), nothing_left_of_a_refusal(run):
            run.mkdir()
            for name in names:
                (run / name).touch()
            raise error
        return sorted(path.name for path in tmp_path.rglob("*"))

    refusal = InputError("--data", "expected data", "Give it")
    assert end_by(refusal, "config.yml") == []
    assert end_by(ValueError(), "config.yml") == ["config.yml", "run"]
    (tmp_path / "run" / "config.yml").unlink()
    (tmp_path / "run").rmdir()
    assert end_by(refusal, "config.yml", "step-1.ckpt") == ["config.yml", "run", "step-1.ckpt"]


def test_method_is_the_first_argument() -> None:
    from instantavatar_ns.scripts.train import parse

    assert parse([]).method_name == "instant-avatar" and parse([]).vis == "none"
    wild = parse(["instant-avatar-wild", "--vis", "viewer", "neuman-data", "--downscale", "2"])
    assert wild.method_name == "instant-avatar-wild" and wild.vis == "viewer"
    assert type(wild.pipeline.datamanager.dataparser).__name__ == "NeuManDataParserConfig"
    assert wild.pipeline.datamanager.dataparser.downscale == 2
    assert parse(["instant-avatar-wild"]).pipeline.datamanager.dataparser != wild.pipeline.datamanager.dataparser
