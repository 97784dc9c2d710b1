"""`instant-avatar unseen-views`: views of what a run's training views never saw, to be filled by other programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from nerfstudio.utils.rich_utils import CONSOLE

from instantavatar_ns.model import InstantAvatarModel
from instantavatar_ns.scripts.run_folder import open_run, write_variant
from instantavatar_ns.training.unseen_views import write_unseen_views
from instantavatar_ns.utils.errors import InputError

_RANGES = {"views": (1, 64), "size": (64, 4096)}


@dataclass
class UnseenViews:
    """Write views from around the person, masks of the pixels that no training view showed, and the cameras.

    Fill the white pixels of each mask in its view with any program, and put the pictures into filled/ under the same
    names. Then train anew with `--pipeline.model.unseen-views FOLDER`.
    """

    load_config: Path
    """The run's config.yml."""
    output: Path
    """Folder to write, which must not exist yet."""
    views: int = 8
    """Views at equal angles around the person; those without anything to fill are left out."""
    size: int = 512
    """Height and width of a view, pixels."""

    def main(self) -> Path:
        """Write the folder, and return its path.

        Raises:
            InputError: An option or the run cannot be used, or nothing is to fill; nothing is written then.
        """
        for option, (least, most) in _RANGES.items():
            value = getattr(self, option)
            if not least <= value <= most:
                message = f"expected {least} to {most}, found {value}"
                raise InputError(f"--{option}", message, "Give a number in this range")
        if self.output.exists():
            raise InputError(self.output, "expected no such folder yet", "Give another --output, or move it away")
        config_path = write_variant(self.load_config, "unseen-views", lambda pipeline: None)
        model = cast(InstantAvatarModel, open_run(config_path)[0].model)
        count = write_unseen_views(model, self.output, self.views, self.size)
        CONSOLE.print(
            f"{count} views in {self.output}/views. Fill the white pixels of {self.output}/masks, save the pictures as "
            f"{self.output}/filled/00.png and so on, and train with --pipeline.model.unseen-views {self.output}",
            soft_wrap=True,
        )
        return self.output
