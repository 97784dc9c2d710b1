"""A page that shows how the posed body lies in the images, in one file that needs no other."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from instantavatar_ns.check.diagnosis import Diagnosis
from instantavatar_ns.check.overlap import project
from instantavatar_ns.check.recording import Recording
from instantavatar_ns.utils.errors import InputError
from instantavatar_ns.utils.files import written_whole

_MARK = '<meta name="generator" content="instant-avatar check">'
_SHOWN_HEIGHT = 540  # pixels
_BODY, _MASK, _CHANGED = (230, 60, 40), (255, 255, 255), (40, 190, 90)
_STYLE = """
body { font: 16px/1.5 sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
figure { display: inline-block; margin: 0 1rem 1rem 0 } img { max-width: 100% } figcaption { font-size: 0.9rem }
table { border-collapse: collapse } td, th { text-align: left; padding: 0.2rem 1rem 0.2rem 0 }
.good { color: #187838 } .doubtful { color: #a06000 } .wrong { color: #b02010 }
"""


@dataclass(frozen=True)
class Section:
    """One set of frames on the page.

    Attributes:
        name: Of the set.
        frame_names: Of its frames.
        recording: What was compared.
        diagnosis: What was found.
        figures: Some of its frames, by their title.
        description: The finding in full; empty where there is none.
    """

    name: str
    frame_names: Sequence[str]
    recording: Recording
    diagnosis: Diagnosis
    figures: dict[str, tuple[int, UInt8[np.ndarray, "height width 4"]]]
    description: str


def telling_frames(diagnosis: Diagnosis) -> dict[str, int]:
    """Indices of the worst, a middling and the best frame."""
    order = diagnosis.overlap.iou.argsort().tolist()
    return {"worst": order[0], "middling": order[len(order) // 2], "best": order[-1]}


def check_page_is_ours(path: Path) -> None:
    """Refuse to overwrite what is no page of this command.

    Raises:
        InputError: There is another file.
    """
    if not path.exists():
        return
    if path.is_dir() or _MARK.encode() not in path.read_bytes()[:2000]:
        message = "expected a page that this command wrote, or nothing yet, found another file"
        raise InputError(path, message, "Give another --output")


def write_page(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write the page; it appears whole.

    Args:
        path: HTML file to write.
        title: Its heading.
        sections: Sets of frames.
    """
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{_MARK}<title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
        "<p>Outlines: <b>white</b> the mask, <b style='color:#e63c28'>red</b> the posed body, "
        "<b style='color:#28be5a'>green</b> the body with the suspected change.</p>",
        *(_section(section) for section in sections),
        "</body></html>\n",
    ]
    with written_whole(path) as partial:
        partial.write_text("".join(parts), encoding="utf8")


def _section(section: Section) -> str:
    diagnosis = section.diagnosis
    means = {"as given": diagnosis.means}
    if diagnosis.change is not None and diagnosis.changed is not None:
        means[f"with {diagnosis.change.words}"] = diagnosis.changed
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{100 * value.coverage:.0f} %</td><td>{100 * value.joints:.0f} %</td>"
        f"<td>{value.iou:.2f}</td></tr>"
        for name, value in means.items()
    )
    return (
        f'<h2>{escape(section.name)}: <span class="{diagnosis.verdict}">{diagnosis.verdict}</span></h2>'
        f"<p>{escape(section.description)}</p>"
        "<table><tr><th></th><th>mask covered</th><th>joints inside</th><th>intersection over union</th></tr>"
        f"{rows}</table>{_figures(section)}"
    )


def _figures(section: Section) -> str:
    diagnosis, chosen = section.diagnosis, [index for index, _ in section.figures.values()]
    recording = section.recording.at(chosen).with_vertices()
    shown = [(recording, _BODY)]
    if diagnosis.change is not None:
        changed = diagnosis.change.apply(recording)
        if changed.masks is recording.masks:  # otherwise it is the image that has to change
            shown.append((changed, _CHANGED))
    figures = []
    for place, (title, (index, image)) in enumerate(section.figures.items()):
        drawn = _shown(image)
        shapes = [(body_shape(body, place, drawn.shape[:2]), color) for body, color in shown]
        draw_outline(drawn, _shown(image[..., 3]) > 127, _MASK)
        for shape, color in shapes:
            draw_outline(drawn, shape, color)
        data = b64encode(cv2.imencode(".jpg", drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()).decode()
        overlap = diagnosis.overlap
        caption = (
            f"{title}: {section.frame_names[index]}, mask covered {100 * float(overlap.coverage[index]):.0f} %, joints "
            f"inside {100 * float(overlap.joints[index]):.0f} %"
        )
        if not shapes[0][0].any():
            caption += ", the body lies beside the image"
        figures.append(
            f'<figure><img alt="{escape(caption)}" src="data:image/jpeg;base64,{data}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    return f"<div>{''.join(figures)}</div>"


def _shown(image: UInt8[np.ndarray, "height width *channels"]) -> UInt8[np.ndarray, "shown_height shown_width *some"]:
    """Colours or a mask at the page's size."""
    scale = _SHOWN_HEIGHT / image.shape[0]
    size = (max(round(image.shape[1] * scale), 1), _SHOWN_HEIGHT)
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.ascontiguousarray(
        cv2.resize(np.ascontiguousarray(image[..., :3] if image.ndim == 3 else image), size, interpolation=way)
    )


def body_shape(recording: Recording, frame: int, size: tuple[int, ...]) -> Bool[np.ndarray, "height width"]:
    """Filled outline of the posed body in an image.

    Args:
        recording: A recording `with_vertices`, whose points are all vertices of the body.
        frame: Index of the frame in the recording.
        size: Height and width of the outline, pixels; it may differ from the masks'.

    Returns:
        True where the body covers a pixel's middle. Faces with a corner behind the camera are left out.
    """
    pixels, seen = project(recording, recording.points)
    pixels = pixels[frame] / recording.image_size * recording.image_size.new_tensor([size[1], size[0]])
    faces = recording.surface.body.faces
    whole = seen[frame][faces].all(dim=1)
    # OpenCV counts the first pixel's middle as 0, and takes fixed-point numbers of 4 binary digits here.
    corners = ((pixels.clamp(-1e4, 1e4) - 0.5) * 16).round().int()[faces[whole]].cpu().numpy()
    image = np.zeros(size, np.uint8)
    for corner in corners:
        cv2.fillConvexPoly(image, corner, (1,), shift=4)
    return image > 0


def draw_outline(
    image: UInt8[np.ndarray, "height width 3"], shape: Bool[np.ndarray, "height width"], color: tuple[int, int, int]
) -> None:
    """Draw the outline of a shape into an image, 2 pixels wide.

    Args:
        image: Changed in place.
        shape: True within the shape.
        color: In the order of the image's channels, 0 to 255.
    """
    contours, _ = cv2.findContours(shape.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, contours, -1, color, 2, cv2.LINE_AA)
