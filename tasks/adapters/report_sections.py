"""The sections of the report's page, as HTML."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dsol_core.benchmarks import BASELINES
from tasks.adapters import gallery, images, page, report_rules, tables
from tasks.adapters.fingerprints import plain
from tasks.adapters.gallery import Picture
from tasks.adapters.heat_video import colour
from tasks.adapters.store import RECORD, Artifact

if TYPE_CHECKING:
    from dsol_core.types import Estimate
    from tasks.adapters.report import Report

MEANINGS = {
    "iou@0.5": "frames whose class-agnostic map reaches IoU 0.5 with the boxes",
    "ciou@0.3": "scenes whose mean IoU over the sounding classes reaches 0.3, each map against its own maximum",
    "auc": "area under the success curve over thresholds 0 to 1",
    "nsa": "share of the silent entries' area below 0.2, absolute, as the reference has it",
    "sciou@0.3": "strict: the same with one threshold for the scene, half of the maximum over all classes",
    "sauc": "strict: area under its success curve",
    "snsa": "strict: share of the silent classes' area that stays off",
    "silent_nsa": "strict: share of the boxes of visible but silent objects that stays off",
    "audio_top1": "sounds whose class is heard first, by the sound alone",
    "audio_top2": "sounding classes among the two that are heard first, by the sound alone",
    "sounding_top2": "sounding classes among the two that most probably sound, by sound and picture",
    "agreement": "needs no labels: the entry heard best is also among those seen best (1 of a solo, 2 of a scene)",
    "heard": "needs no labels: some entry sounds with the configured probability",
    "evenness": "needs no labels: entropy of the entries heard best, as a share of its maximum",
    "nmi": "normalised mutual information of the training clips' clusters and their labels",
    "purity": "training clips that carry the commonest label of their cluster",
}
MEASURED = {"iou": "IoU", "ciou": "CIoU", "sciou": "strict CIoU", "silent_nsa": "silent boxes off"}  # of one frame
HEADLINES = ("iou@0.5", "ciou@0.3", "nmi", "agreement")


def html(report: Report, success: str, training: str) -> str:
    """Return the page.

    Args:
        report: what to show.
        success: HTML of the success curves.
        training: HTML of the training curves.
    """
    sections = [
        ("headline", "", _cards(report)),
        ("metrics", "Metrics", _metrics(report, success)),
        ("negatives", "Negative audio", report_rules.negatives(report)),
        ("rules", "Under the published evaluators' rules", report_rules.rules(report)),
        ("gallery", "Scenes", _gallery(report)),
        ("classes", "Classes", _classes(report)),
        ("dictionary", "Dictionary", _dictionary(report)),
        ("training", "Training", training),
        ("data", "Data", _losses(report)),
        ("left-out", "Left out", _left_out(report)),
        ("provenance", "Provenance", _provenance(report)),
    ]
    return page.document(f"Sounding objects: {report.name}", _subtitle(report), [one for one in sections if one[2]])


def _subtitle(report: Report) -> str:
    record = report.parents["predictions"].record.get("provenance", {})
    commit = (record.get("commit") or "unknown")[:10] + (" with changes" if record.get("dirty") else "")
    frames = ", ".join(f"{len(one.items):,} {name}" for name, one in report.benchmarks.items()) or "none"
    facts = [
        f"recipe <b>{page.text(report.experiment.stage_one.recipe)}</b>",
        f"seed {report.experiment.seed}",
        f"test frames: {frames}",
        f"code {page.text(commit)}",
    ]
    return page.paragraph(" &nbsp;·&nbsp; ".join(facts), "soft")


def _cards(report: Report) -> str:
    cards = []
    for subset in report.benchmarks:
        for name, one in report.of(subset).items():
            if name not in HEADLINES or (name == "agreement" and not _bare(report, subset)):
                continue
            rivals = report.baselines.get(f"{report.name}-{subset}/{name}", {})
            best = max(rivals.items(), key=lambda pair: pair[1].value, default=None)
            told = f" · best baseline: {page.text(best[0])} {best[1].value:.3f}" if best else ""
            ticks = page.interval(
                one.value,
                one.low,
                one.high,
                {key: rivals[key].value if key in rivals else None for key in BASELINES},
                200,
            )
            cards.append(
                f'<div class="card" title="{page.text(MEANINGS[name])}"><span class="name">{page.text(subset)} · '
                f"{page.text(name)}</span><b>{one.value:.3f}</b>{ticks}"
                f'<div class="rival soft">{one.low:.3f} to {one.high:.3f}{told}</div></div>'
            )
    return f'<div class="cards">{"".join(cards)}</div>'


def _bare(report: Report, subset: str) -> bool:
    return not {"iou@0.5", "ciou@0.3"} & set(report.of(subset))


def _metrics(report: Report, success: str) -> str:
    parts = [
        page.paragraph(
            "Test frames only; the centre box is chosen on validation frames. Intervals are 95 %, "
            "bootstrapped over videos. The visual-only baseline shows the same maps without listening: CIoU cannot "
            "tell it from a model that listens, the strict metrics can."
        ),
        page.legend(BASELINES),
    ]
    for subset, benchmark in report.benchmarks.items():
        rows = [_metric_row(report, subset, name, one) for name, one in report.of(subset).items()]
        parts.append(f"<h3>{page.text(report.name)}-{page.text(subset)}</h3>")
        parts.append(
            page.paragraph(
                f"{len(benchmark.items):,} frames, {len(set(benchmark.groups)):,} videos or sets of videos", "note"
            )
        )
        heads = ["metric", "", "value", "95 %", "n", *BASELINES, "validation"]
        parts.append(page.table(heads, rows, numbers=range(2, len(heads))))
    if report.centre:
        told = f"The centre box is a square of {report.centre.split()[-1]} of the frame's side, the best on validation."
        parts.append(page.paragraph(page.text(told), "note"))
    parts.append(success)
    rows = [[page.text(name), page.text(meaning)] for name, meaning in MEANINGS.items()]
    parts.append(page.details("What the metrics mean", page.table(["metric", "meaning"], rows, wide=1)))
    return "".join(parts)


def _metric_row(report: Report, subset: str, name: str, one: Estimate) -> list[str]:
    key = f"{report.name}-{subset}/{name}"
    rivals = report.baselines.get(key, {})
    bar = page.interval(one.value, one.low, one.high, {n: rivals[n].value if n in rivals else None for n in BASELINES})
    shown = [
        f'<span title="{rivals[n].low:.3f} to {rivals[n].high:.3f}">{rivals[n].value:.3f}</span>' if n in rivals else ""
        for n in BASELINES
    ]
    known = report.validation.get(key)
    return [
        f'<span title="{page.text(MEANINGS[name])}">{page.text(name)}</span>',
        bar,
        f"<b>{one.value:.3f}</b>",
        f"{one.low:.3f} – {one.high:.3f}",
        f"{one.n:,}",
        *shown,
        f"{known.value:.3f}" if known else "",
    ]


def _gallery(report: Report) -> str:
    parts = [
        page.paragraph(
            "Best, median and worst test frames: scenes by strict IoU, solos by IoU, without boxes by agreement. "
            'Boxes: <b class="sounding">green</b> sounds, <b class="silent">red</b> is visible but silent. '
            "Under a map the frame is grey. All class maps of a frame share one scale, so what the model gives little "
            "stays dark. The bar is the probability that the class sounds."
        )
    ]
    for subset in report.benchmarks:
        for rank in gallery.RANKS:
            scenes = [one for one in report.pictures if (one.benchmark, one.rank) == (subset, rank)]
            if scenes:
                parts.append(f"<h3>{page.text(subset)}: {rank}</h3>{page.grid(_scene(one) for one in scenes)}")
    return "".join(parts) if report.pictures else ""


def _scene(picture: Picture) -> str:
    ordered = [name for name in MEASURED if name in picture.values]
    values = " &nbsp;·&nbsp; ".join(f"{page.text(MEASURED[name])} {picture.values[name]:.2f}" for name in ordered)
    panels = "".join(_panel(one) for one in picture.panels)
    head = f"<code>{page.text(picture.item)}</code> <span class='soft'>&nbsp; {values}</span>"
    columns = min(6, max(3, len(picture.panels)))
    small = " small" if len(picture.panels) <= 3 else ""
    return f'<div class="scene{small}"><p>{head}</p><div class="panels" style="--n:{columns}">{panels}</div></div>'


def _panel(panel: gallery.Panel) -> str:
    found = [(b.x, b.y, b.width, b.height, b.sounding, b.category or "") for b in panel.boxes]
    shown = page.picture(images.encode_jpeg(panel.picture, 82), panel.title, page.boxes(found))
    told = {"sounding": "sounds", "silent": "silent", "absent": "not there"}
    tag = f'<span class="tag {panel.state}">{told[panel.state]}</span>' if panel.state else ""
    what = f'{page.dot(panel.colour)}<span class="what">{page.text(panel.title)}</span>{tag}'
    name = f'<div class="title" title="{page.text(panel.title)}">{what}</div>'
    if panel.probability is None:
        extra = "<small class='soft'>no entry of the dictionary</small>" if panel.state else ""
        return f'<figure class="panel">{shown}<figcaption>{name}{extra}</figcaption></figure>'
    iou = f" · IoU {panel.iou:.2f}" if panel.iou is not None else ""
    bar = page.share_bar(panel.probability, panel.colour)
    heard = f'<small class="soft">heard {100 * panel.probability:.0f} %{iou}</small>'
    return f'<figure class="panel">{shown}<figcaption>{name}{heard}{bar}</figcaption></figure>'


def _classes(report: Report) -> str:
    names = sorted({name for one in report.benchmarks.values() for name in one.classes})
    if not names:
        return ""
    shown = {subset: one for subset, one in report.benchmarks.items() if one.classes}
    heads = ["class", *(cell for name in shown for cell in (f"{page.text(name)} n", "mean IoU", "heard"))]
    rows = []
    for name in names:
        cells = [page.text(name)]
        for one in shown.values():
            found = np.array(one.classes.get(name, ())).reshape(-1, 2)
            cells += [str(len(found)), *(f"{value:.2f}" for value in found.mean(0))] if len(found) else ["", "", ""]
        rows.append(cells)
    told = "Each sounding class by itself. Heard: among the first two of a scene, the first of a solo."
    return page.paragraph(told) + page.table(heads, rows, numbers=range(1, len(heads)))


def _dictionary(report: Report) -> str:
    entries, total = report.entries, max(int(np.sum(report.entries.counts)), 1)
    purity = _purity(report)
    rows = []
    for i, name in enumerate(entries.names):
        count = int(entries.counts[i])
        bar = page.share_bar(count / total, colour(i), "160px")
        category = entries.categories[i] if entries.categories else "not named"
        mark = f"{page.dot(colour(i))}{page.text(name)}"
        pure = [f"{purity[i]:.2f}" if purity[i] is not None else ""] if purity else []
        rows.append([mark, page.text(category), f"{count:,}", f"{100 * count / total:.1f} %", *pure, bar])
    heads = ["entry", "category", "training clips", "share", *(["purity"] if purity else []), ""]
    told = "Purity: share of an entry's labelled clips that carry their commonest label; nothing is learnt from labels."
    return page.table(heads, rows, numbers=(2, 3, 4) if purity else (2, 3)) + (page.paragraph(told) if purity else "")


def _purity(report: Report) -> list[float | None]:
    """Return the purity of each entry, None where it has no labelled clip; nothing where there are no labels."""
    dictionary = report.parents.get("dictionary")
    path = dictionary.folder / "summary.json" if dictionary else None
    entries = json.loads(path.read_text()).get("entries") if path and path.is_file() else None
    return [one["purity"] for one in entries or []]


def _losses(report: Report) -> str:
    videos: Counter[tuple[str, str, str]] = Counter()
    path = report.parents["videos"].folder / "videos.parquet"
    for row in tables.read(path, ["kind", "split", "status"]) if path.is_file() else ():
        videos[row["kind"], row["split"], row["status"]] += 1
    rows = [[*map(page.text, key), f"{count:,}"] for key, count in sorted(videos.items())]
    counted = page.table(["kind", "split", "status", "videos"], rows, numbers=(3,)) if rows else ""
    losses = [[page.text(s), page.text(reason), f"{count:,}"] for s, reason, count in report.losses()]
    told = page.table(["step", "reason", "dropped"], losses, numbers=(2,), wide=1) if losses else ""
    flow = [
        [page.text(one.step), f"{one.record['rows'].get('read', 0):,}", f"{one.record['rows'].get('written', 0):,}"]
        for one in report.parents.values()
        if one.record.get("rows")
    ]
    return (
        page.paragraph("Nothing is skipped in silence: what each step could not use is counted here with its reason.")
        + counted
        + (f"<h3>Dropped</h3>{told}" if told else page.paragraph("No step dropped anything."))
        + (
            page.details("Rows in and out of each step", page.table(["step", "read", "written"], flow, numbers=(1, 2)))
            if flow
            else ""
        )
    )


def _left_out(report: Report) -> str:
    rows = [[f"<code>{page.text(one['metric'])}</code>", page.text(one["reason"])] for one in report.left_out]
    return page.table(["metric", "reason"], rows, wide=1) if rows else ""


def _provenance(report: Report) -> str:
    rows = []
    for step, mark, record in _ancestors(report.parents):
        made = record.get("provenance", {})
        trained = record.get("notes", {}).get("trained_with", {})  # its weights are of another artifact's training
        compute = trained.get("compute") or record.get("compute", {})
        memory, seconds = record.get("peak_memory_bytes"), trained.get("seconds") or record.get("seconds")
        rows.append(
            [
                page.text(step),
                f"<code>{page.text(mark)}</code>",
                "" if record.get("seed") is None else page.text(record["seed"]),
                f"{seconds:,.1f}" if seconds is not None else "",
                f"{memory / 2**30:.2f}" if memory else "",
                f"<code>{page.text((made.get('commit') or '')[:10])}</code>{' +' if made.get('dirty') else ''}",
                page.text(compute.get("workers", "")),
            ]
        )
    heads = ["step", "fingerprint", "seed", "seconds", "peak GiB", "commit", "workers"]
    settings = json.dumps(plain(report.experiment), indent=1)
    return page.table(heads, rows, numbers=(2, 3, 4, 6)) + page.details(
        "All settings", f'<div class="box"><pre><code>{page.text(settings)}</code></pre></div>'
    )


def _ancestors(parents: Mapping[str, Artifact]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Return (step, fingerprint, record) of the parents, and before them of the media where a step made those."""
    found: list[tuple[str, str, Mapping[str, Any]]] = []
    media = parents["videos"].record.get("parents", {}).get("media")
    if media:
        path = parents["videos"].folder.parents[1] / media["step"] / media["fingerprint"] / RECORD
        found.append((media["step"], media["fingerprint"], json.loads(path.read_text()) if path.is_file() else {}))
    return found + [(one.step, one.fingerprint, one.record) for one in parents.values()]
