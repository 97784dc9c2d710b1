"""The page that a processed clip ends with: what was found, on pictures and over time, in one file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from instantavatar_ns.check.report import Section, body_shape, draw_outline
from instantavatar_ns.data.folder import list_images
from instantavatar_ns.data.images import read_rgb
from instantavatar_ns.process.charts import line_chart
from instantavatar_ns.process.findings import Finding, yaw
from instantavatar_ns.process.frames import ChosenFrames, write_text
from instantavatar_ns.process.landmarks import Landmarks
from instantavatar_ns.process.network import BONES

REPORT_FILE = "report.html"
_FRAMES_SHOWN = 6
_SHOWN_HEIGHT = 540  # pixels
_MASK, _BODY, _SKELETON = (255, 255, 255), (230, 60, 40), (60, 220, 90)
_VISIBLE = 0.5
_STYLE = """
body { font: 16px/1.5 sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
figure { display: inline-block; margin: 0 1rem 1rem 0; max-width: 30%; vertical-align: top }
img { max-width: 100% } figcaption { font-size: 0.9rem }
table { border-collapse: collapse } td, th { text-align: left; padding: 0.2rem 1rem 0.2rem 0 }
li b { color: #a06000 } code { background: #f2f2f2; padding: 0.1rem 0.3rem } svg { max-width: 100% }
"""


@dataclass(frozen=True)
class Report:
    """All that the page shows.

    Attributes:
        title: Its heading.
        facts: Lines of a table.
        findings: Faults, the gravest first.
        command: The next command to type; None where there is none, as nothing was fitted.
        sections: The check's results for sets of frames; their frame names tell which images they are of.
        reprojection: Pixels from each frame's landmarks to those of the fitted body; None where nothing was fitted.
    """

    title: str
    facts: dict[str, str]
    findings: Sequence[Finding]
    command: str | None
    sections: Sequence[Section]
    reprojection: Float[np.ndarray, "frames"] | None = None


def overlap_of_frames(names: Sequence[str], sections: Sequence[Section]) -> Float[np.ndarray, "frames"]:
    """Intersection over union of body and mask in each image; NaN where none was checked.

    Args:
        names: Names of all images.
        sections: The check's results; each frame of theirs is one of these images.
    """
    iou = np.full(len(names), np.nan)
    rows = {name: row for row, name in enumerate(names)}
    for section in sections:
        for name, value in zip(section.frame_names, section.diagnosis.overlap.iou.tolist(), strict=True):
            iou[rows[name]] = value
    return iou


def write_report(
    folder: Path, report: Report, landmarks: Landmarks | None, masks: Bool[np.ndarray, "frames height width"]
) -> Path:
    """Write `process/report.html`, which appears whole.

    Args:
        folder: The clip's folder.
        report: What to show.
        landmarks: Of the person, where there are some.
        masks: Of the person.

    Returns:
        The page's path.
    """
    clip = ChosenFrames.read(folder)
    paths = list_images(folder)
    iou = overlap_of_frames([path.name for path in paths], report.sections)
    figures = []
    for title, index in _frames_to_show(iou, report.findings).items():
        image = read_rgb(paths[index], (clip.height, clip.width))
        body = _body_in(paths[index].name, report.sections)
        drawn = draw_frame(image, masks[index], landmarks, index, body)
        jpeg = cv2.imencode(".jpg", drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
        caption = f"{title}: {paths[index].name}, {clip.times[index]:.2f} s"
        if np.isfinite(iou[index]):
            caption += f", overlap {iou[index]:.2f}"
        figures.append(
            f'<figure><img alt="{escape(caption)}" src="data:image/jpeg;base64,{b64encode(jpeg).decode()}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    fitted = ", <b style='color:#e63c28'>red</b> the fitted body" if report.sections else ""
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(report.title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(report.title)}</h1>{_facts(report.facts)}"
        f"<h2>What to look at</h2>{_findings(report.findings)}"
        f"{_next(report.command)}<h2>Frames</h2><p>Outlines: <b>white</b> the mask{fitted}; "
        "<b style='color:#28a050'>green</b> the landmarks.</p>"
        f"<div>{''.join(figures)}</div>{_charts(clip, report, landmarks, masks, iou)}</body></html>\n"
    )
    path = folder / "process" / REPORT_FILE
    write_text(path, page)
    return path


def draw_frame(
    image: UInt8[np.ndarray, "height width 3"],
    mask: Bool[np.ndarray, "height width"],
    landmarks: Landmarks | None,
    index: int,
    body: Section | None,
) -> UInt8[np.ndarray, "shown_height shown_width 3"]:
    """Return a frame at the page's size with the mask's outline, the skeleton and the body's outline.

    Args:
        image: The frame.
        mask: Its mask.
        landmarks: Of all frames, where there are some.
        index: The frame's row among the landmarks.
        body: The check's results that show the frame's body, with this frame alone.
    """
    scale = _SHOWN_HEIGHT / image.shape[0]
    size = (max(round(image.shape[1] * scale), 1), _SHOWN_HEIGHT)
    drawn = np.ascontiguousarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    draw_outline(drawn, cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_LINEAR) > 127, _MASK)
    if body is not None:
        draw_outline(drawn, body_shape(body.recording.with_vertices(), 0, drawn.shape[:2]), _BODY)
    if landmarks is not None and landmarks.found[index]:
        points = ((landmarks.pixels[index] + 0.5) * scale - 0.5).round().astype(int).tolist()
        seen = landmarks.visibility[index] > _VISIBLE
        for a, b in BONES:
            if seen[a] and seen[b]:
                cv2.line(drawn, points[a], points[b], _SKELETON, 2, cv2.LINE_AA)
        for point in np.flatnonzero(seen):
            cv2.circle(drawn, points[point], 3, _SKELETON, -1, cv2.LINE_AA)
    return drawn


def _frames_to_show(iou: Float[np.ndarray, "frames"], findings: Sequence[Finding]) -> dict[str, int]:
    """Frames spread over the clip, the worst one, and one of each fault that some frames show."""
    spread = np.linspace(0, len(iou) - 1, min(_FRAMES_SHOWN, len(iou))).round().astype(int)
    shown = {f"frame {index}": int(index) for index in spread}
    if np.isfinite(iou).any():
        shown["least overlap"] = int(np.nanargmin(iou))
    for finding in findings:
        if finding.frames:
            shown[finding.words.rstrip(".")] = finding.frames[len(finding.frames) // 2]
    return shown


def _body_in(name: str, sections: Sequence[Section]) -> Section | None:
    """Return the check's results for one image."""
    for section in sections:
        if name in section.frame_names:
            row = list(section.frame_names).index(name)
            return Section(section.name, [name], section.recording.at([row]), section.diagnosis, {}, "")
    return None


def _next(command: str | None) -> str:
    return "" if command is None else f"<p>Next: <code>{escape(command)}</code></p>"


def _facts(facts: dict[str, str]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts.items())
    return f"<table>{rows}</table>"


def _findings(findings: Sequence[Finding]) -> str:
    if not findings:
        return "<p>Nothing looks wrong.</p>"
    items = "".join(f"<li><b>{escape(item.words)}</b> {escape(item.advice)}</li>" for item in findings)
    return f"<ul>{items}</ul>"


def _charts(
    clip: ChosenFrames,
    report: Report,
    landmarks: Landmarks | None,
    masks: Bool[np.ndarray, "frames height width"],
    iou: Float[np.ndarray, "frames"],
) -> str:
    charts = []
    if np.isfinite(iou).any():
        text = "Overlap of the fitted body and the mask (intersection over union)"
        charts.append((text, iou, (0.5, 1.0), [int(np.nanargmin(iou))]))
    if report.reprojection is not None:
        text = "Distance of the fitted body's landmarks from the network's, pixels"
        charts.append((text, report.reprojection, None, []))
    if landmarks is not None:
        charts.append(("Direction that the person faces, degrees", yaw(landmarks), None, []))
    share = 100 * masks.mean(axis=(1, 2))
    charts.append(("Share of the picture that the mask takes, %", share, (0.0, 1.1 * max(float(share.max()), 1.0)), []))
    charts.append(("Sharpness beside the frames around", np.array(clip.sharpness), (0.0, 2.0), []))
    drawn = (f"<h3>{escape(t)}</h3>{line_chart(clip.times, v, t, limits, marked)}" for t, v, limits, marked in charts)
    return f"<h2>Over time</h2>{''.join(drawn)}"
