"""The seven-minute talk about a study, as PowerPoint slides that are ready to be edited."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vl_convert

from contest.candidate import Candidate, Recipe, plain
from contest.errors import UsageError
from search.output.figures import BLUE, importance, pareto, stage_costs
from search.output.html import finalist_rows
from search.output.progress import bits_text, counts, duration
from search.policy.ranking import Judge, load_stages
from search.study.study import Study
from search.study.trial import TrialRecord

WIDTH_IN, HEIGHT_IN = 13.333, 7.5
MARGIN_IN = 0.6


class Deck:
    """A presentation of plain slides: a title, then text, a table or a picture below it.

    Titles and text are the layout's own placeholders, so the outline view and a change of theme work.
    """

    def __init__(self) -> None:
        try:
            from pptx import Presentation
            from pptx.util import Inches
        except ImportError as error:
            raise UsageError("--slides: install the extra: pip install 'contest[slides]'") from error
        self._inches = Inches
        self.file = Presentation()
        self.file.slide_width, self.file.slide_height = Inches(WIDTH_IN), Inches(HEIGHT_IN)

    def slide(
        self, title: str, notes: str, lines: Sequence[str] = (), *, size: int = 24, height: float = HEIGHT_IN - 2
    ) -> Any:
        """A new slide with its title, bullets if it has lines, and what to say in its notes."""
        from pptx.dml.color import RGBColor

        layout = self.file.slide_layouts.get_by_name("Title and Content" if lines else "Title Only")
        slide = self.file.slides.add_slide(layout)
        self._write(slide.shapes.title, [title], top=0.4, height=0.9, size=34, bold=True)
        slide.shapes.title.text_frame.paragraphs[0].font.color.rgb = RGBColor.from_string(BLUE.lstrip("#"))
        if lines:
            self._write(slide.placeholders[1], lines, top=1.5, height=height, size=size)
        slide.notes_slide.notes_text_frame.text = notes
        return slide

    def table(
        self, slide: Any, head: Sequence[str], body: Sequence[Sequence[str]], *, top: float = 1.5, size: int = 14
    ) -> None:
        from pptx.util import Pt

        inches = self._inches
        width = WIDTH_IN - 2 * MARGIN_IN
        shape = slide.shapes.add_table(
            len(body) + 1, len(head), inches(MARGIN_IN), inches(top), inches(width), inches(0.38 * (len(body) + 1))
        )
        longest = [max(len(str(row[i])) for row in [head, *body]) + 3 for i in range(len(head))]
        for i, length in enumerate(longest):
            shape.table.columns[i].width = inches(width * length / sum(longest))
        for y, row in enumerate([head, *body]):
            for x, text in enumerate(row):
                cell = shape.table.cell(y, x)
                cell.text = str(text)
                cell.text_frame.paragraphs[0].font.size = Pt(size)

    def picture(self, slide: Any, chart: Any, *, top: float = 1.4) -> None:
        """A chart with letters for the back row, as large as fits below the title, in the middle."""
        from PIL import Image

        large = {"labelFontSize": 16, "titleFontSize": 17, "labelLimit": 400}
        chart = (
            chart.configure_axis(**large)
            .configure_legend(**large, symbolSize=150)
            .configure_text(fontSize=16)
            .configure_title(fontSize=18, subtitleFontSize=15, anchor="start", offset=14)
        )
        png = vl_convert.vegalite_to_png(chart.to_json(), scale=3.0)
        with Image.open(io.BytesIO(png)) as image:
            ratio = image.width / image.height
        height = HEIGHT_IN - top - 0.4
        width = min(height * ratio, WIDTH_IN - 2 * MARGIN_IN)
        left = (WIDTH_IN - width) / 2
        slide.shapes.add_picture(io.BytesIO(png), self._inches(left), self._inches(top), self._inches(width))

    def _write(
        self, shape: Any, lines: Sequence[str], *, top: float, height: float, size: int, bold: bool = False
    ) -> None:
        from pptx.enum.text import MSO_ANCHOR, PP_ALIGN
        from pptx.util import Pt

        inches = self._inches
        shape.left, shape.top = inches(MARGIN_IN), inches(top)
        shape.width, shape.height = inches(WIDTH_IN - 2 * MARGIN_IN), inches(height)
        frame = shape.text_frame
        frame.word_wrap, frame.vertical_anchor = True, MSO_ANCHOR.TOP
        for number, line in enumerate(lines):
            paragraph = frame.paragraphs[0] if number == 0 else frame.add_paragraph()
            paragraph.text, paragraph.alignment = line, PP_ALIGN.LEFT
            paragraph.font.size, paragraph.font.bold = Pt(size), bold
            paragraph.space_after = Pt(size * 0.5)


def write_slides(study: Study, path: Path) -> Path:
    """Write the talk. Raises UsageError for a study without results or a name that does not end in .pptx."""
    if path.suffix != ".pptx":
        raise UsageError(f"--slides {path}: the name must end in .pptx")
    judge = Judge.of(study)
    best = judge.best()
    if best is None:
        raise UsageError(f"{study.directory}: no trial of this study has a result yet")
    finalists, stages = finalist_rows(study), load_stages(study.directory)
    shown = next((r for f in finalists for r in judge.records if r.key == f["key"]), best)
    deck = Deck()
    _title(deck, study, finalists, shown)
    _experiments(deck, study, shown)
    _techniques(deck, shown)
    if stages:
        slide = deck.slide("What each stage cost and gained", "1 minute: where the time went, and what it bought.")
        deck.picture(slide, stage_costs(stages))
    chart = importance(study)
    if chart is not None:
        slide = deck.slide("Which choices mattered", "30 seconds: importance over all trials (PED-ANOVA).")
        deck.picture(slide, chart)
    _scores(deck, study, finalists, judge.leaders())
    slide = deck.slide("Accuracy against score", "1 minute: the dashed line is the accuracy that the contest asks for.")
    deck.picture(slide, pareto(study, judge, finalists))
    _lessons(deck, study)
    path.parent.mkdir(parents=True, exist_ok=True)
    deck.file.save(str(path))
    return path


_TERMS = {"params": "weights", "ops": "operations"}


def _title(deck: Deck, study: Study, finalists: Sequence[dict[str, Any]], shown: TrialRecord) -> None:
    settings = study.settings
    lines = [
        f"Contest: lowest score ({settings.rule_name}) at {settings.threshold:.0%} accuracy or more "
        f"on {settings.dataset}"
    ]
    if finalists:
        first = finalists[0]
        lines += [
            f"Best score {first['score']:.5f} = "
            + " + ".join(f"{value:.5f} ({_TERMS.get(name, name)})" for name, value in first["terms"].items()),
            f"Accuracy on the test set {first['accuracy']:.2f} %, read once for each of {len(finalists)} finalists",
        ]
    lines.append(f"{shown.candidate.architecture}")
    title = f"{study.name}: a small network for {settings.dataset}"
    deck.slide(title, "30 seconds: the result first.", lines, size=28)


def _experiments(deck: Deck, study: Study, shown: TrialRecord) -> None:
    settings = study.settings
    slide = deck.slide(
        "Experiments",
        "1 minute: what was searched, and with which hyperparameters the winner trained.",
        [
            f"Trials: {counts(study.records())}",
            f"Sampler {settings.sampler}, seed {settings.seed}; price computed before training",
        ],
        size=18,
        height=1.4,
    )
    train, tune = shown.candidate.train, shown.candidate.tune
    body = [
        [name, _shown(getattr(train, name)), _shown(getattr(tune, name))]
        for name in {**plain(train), **plain(tune)}
        if _tells(name, train, tune)
    ]
    deck.table(slide, ["hyperparameter", "training", "fine-tuning (quantised)"], body[:10], top=2.95, size=12)


def _tells(name: str, train: Recipe, tune: Recipe) -> bool:
    """Whether a hyperparameter says something: it is used, in one of the two trainings."""
    return bool(getattr(train, name)) or bool(getattr(tune, name))


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _techniques(deck: Deck, shown: TrialRecord) -> None:
    deck.slide("Techniques", "2 minutes: one sentence for each.", techniques(shown.candidate), size=22)


def techniques(candidate: Candidate) -> list[str]:
    """What was done to a candidate, in words."""
    train = candidate.train
    augmentation = [
        name
        for name, used in (
            ("flip", train.flip),
            (f"crop with {train.crop} pixels of padding", train.crop),
            (f"cutout {train.cutout}", train.cutout),
            (f"mixup {train.mixup:g}", train.mixup),
            (f"cutmix {train.cutmix:g}", train.cutmix),
        )
        if used
    ]
    bits = candidate.bits
    special = ", ".join(f"{name} {w}/{a}" for name, (w, a) in bits.layers.items())
    if len(bits.layers) > 4:
        special = f"chosen for each layer by sensitivity: {bits_text(bits)}"
    lines = [
        f"Architecture: {candidate.architecture}",
        f"Augmentation: {', '.join(augmentation) or 'none'}",
        f"Structured pruning: {candidate.structured:.0%} of the weights in whole channels, then fine-tuning"
        if candidate.structured
        else "Structured pruning: none; the network is thin from the start",
        f"Unstructured pruning: {candidate.unstructured:.0%} of the weights by {candidate.pruning}, growing meanwhile"
        if candidate.unstructured
        else "Unstructured pruning: none",
        f"Quantisation-aware training with learned steps: weights {bits.weights}, activations {bits.activations} bits"
        + (f" ({special})" if special else ""),
    ]
    if train.distillation or candidate.tune.distillation:
        weight = max(train.distillation, candidate.tune.distillation)
        lines.append(f"Distillation: {weight:.0%} soft labels of a teacher at temperature {train.temperature:g}")
    return lines


def _scores(deck: Deck, study: Study, finalists: Sequence[dict[str, Any]], ranked: Sequence[TrialRecord]) -> None:
    slide = deck.slide("Scores of the architectures", "1 minute: validation chose, the test set was read at the end.")
    tests = {f["key"]: f"{f['accuracy']:.2f} %" for f in finalists}
    body = []
    for record in ranked[:9]:
        assert record.result is not None
        price, candidate = record.result.price, record.candidate
        widths = candidate.architecture.options.get("widths", ())
        name = f"{candidate.architecture.family} {'-'.join(map(str, widths)) if isinstance(widths, tuple) else ''}"
        numbers = [
            f"{price.macs / 1e6:.2f}M",
            f"{price.weights:,}",
            bits_text(candidate.bits),
        ]
        terms = [f"{price.params:.5f}", f"{price.ops:.5f}", f"{price.total:.5f}"]
        body.append([name, *numbers, *terms, f"{100 * record.result.accuracy:.2f} %", tests.get(record.key, "")])
    deck.table(slide, ["network", "MACs", "weights", "bits w/a", "params", "ops", "score", "validation", "test"], body)


def _lessons(deck: Deck, study: Study) -> None:
    stages = load_stages(study.directory)
    total = sum(stage.seconds for stage in stages)
    images = sum(stage.images for stage in stages)
    deck.slide(
        "What we learned",
        "30 seconds: replace these by your own words.",
        [
            f"The whole search took {duration(total)} and {images / 1e6:.2f} million training images",
            "Operations weigh more than weights: MACs times bits decide",
            "What cannot win by its price was not trained; hopeless trainings ended early",
            "Next: (your own words)",
        ],
    )
