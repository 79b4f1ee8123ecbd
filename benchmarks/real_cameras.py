"""`python -m benchmarks.real_cameras IMAGES TRUTH`: what rules catch, and what they alert for.

The images are those of real cameras, named as for a job; the truth is a CSV file of `evaluate`
(docs/evaluate.md). The job looks at the images twice: once as a whole, and once with tiles, too.
`evaluate` then judges the detections by each of the rule sets below. The rules are the same for all
cameras and were not chosen on them one by one, so the figures are those of cameras that nobody has
set up.

With `--keep FOLDER`, the detections stay there, and a further run over the same images takes them
up instead of running the model again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beam_pipeline import cli
from beam_pipeline.console.tables import align
from benchmarks.__main__ import SHARED, machine

TILES = "{columns: 3, rows: 2, overlap: 0.2}"


@dataclass(frozen=True)
class RuleSet:
    """Rules that are measured.

    Attributes:
      name: What the table calls them.
      person: The values of the label person.
      other: The values of each other label.
      sections: The other keys of `defaults`, a line each.
      has_tiles: Whether the detections are those with tiles.
    """

    name: str
    person: str = "{min_score: 0.5, confirm: false}"
    other: str = "{min_score: 0.5}"
    sections: tuple[str, ...] = ("repeats: ", "confirm: ")
    has_tiles: bool = False

    def text(self, labels: list[str], tiles: str) -> str:
        """Returns the rule file.

        Args:
          labels: What the cameras are to raise alerts for.
          tiles: The value of `tiles`.
        """
        lines = ["version: 1", "defaults:", "  cooldown: 0s", "  objects:"]
        for label in labels:
            lines.append(f"    {label}: {self.person if label == 'person' else self.other}")
        lines += [f"  {section}" for section in self.sections]
        if self.has_tiles:
            lines.append(f"  tiles: {tiles}")
        return "\n".join(lines) + "\n"


_TRACKED = ("repeats: ", "confirm: ", "track: ")
RULE_SETS = (
    RuleSet("thresholds", person="{min_score: 0.5}", sections=()),
    RuleSet("recommended"),
    RuleSet(
        "0.3, confirmed",
        person="{min_score: 0.3}",
        sections=("repeats: ", "confirm: {unless_score: 0.5}"),
    ),
    RuleSet("track", sections=_TRACKED),
    RuleSet("tiles", has_tiles=True),
    RuleSet("track, tiles", sections=_TRACKED, has_tiles=True),
)
"""`recommended` are those of docs/rules.md: persons need no confirmation and never repeat, so they
differ from the thresholds for other labels only."""


class BenchmarkError(Exception):
    """A command of the benchmark failed; its message is what the command has said."""


def run(*arguments: str | Path) -> str:
    """Runs a command of `beam_pipeline` in this process, and returns what it prints.

    Raises:
      BenchmarkError: It failed.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(argument) for argument in arguments])
    if code:
        raise BenchmarkError(err.getvalue().strip() or f"{arguments[0]} ended with {code}")
    return out.getvalue()


def detect(args: argparse.Namespace, label_map: list[str], rules: Path, output: Path) -> float:
    """Runs the job, and returns the inferences that an image took on average."""
    run(
        *("--runner", "DirectRunner", "--input", args.images, "--output", output),
        *("--model", args.model, "--model_input_size", str(args.model_input_size)),
        *("--rules", rules, "--no_store_validated", "--resume"),
        *label_map,
    )
    inputs = []
    for path in (output / "detections").rglob("*.json"):
        settings = json.loads(path.read_bytes())["model"]["settings"]
        grid = re.search(r"tiles (\d+)x(\d+)", settings)
        inputs.append(1 + (int(grid[1]) * int(grid[2]) if grid else 0))
    return sum(inputs) / len(inputs) if inputs else 0.0


def measure(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Returns the figures of each rule set.

    Raises:
      BenchmarkError: There is no truth, or a command of the benchmark failed.
    """
    if not args.truth.is_file():
        raise BenchmarkError(f"{args.truth}: there is no such file; give a CSV file with the truth")
    labels = [label.strip() for label in args.objects.split(",")]
    label_map = [] if args.labels is None else ["--labels", args.labels]
    outputs: dict[bool, tuple[Path, float]] = {}
    rows = []
    for number, rule_set in enumerate(RULE_SETS):
        rules = folder / f"rules-{number}.yaml"
        rules.write_text(rule_set.text(labels, args.tiles), encoding="utf-8")
        if rule_set.has_tiles not in outputs:
            output = folder / ("tiles" if rule_set.has_tiles else "whole")
            inferences = detect(args, label_map, rules, output)
            outputs[rule_set.has_tiles] = output, inferences
        output, inferences = outputs[rule_set.has_tiles]
        evaluated = json.loads(
            run(
                *("evaluate", "--archive", output, "--truth", args.truth, "--rules", rules),
                *("--incident_gap", args.incident_gap, "--format", "json"),
                *label_map,
            )
        )
        total = evaluated["total"]
        rows.append(
            {
                "rules": rule_set.name,
                "rule_file": rules.read_text(encoding="utf-8"),
                "inferences_per_image": round(inferences, 2),
                "images": total["pictures"],
                "threat_images": total["threats"],
                "caught_images": total["caught"],
                "recall_of_images": total["recall"],
                "incidents": total["incidents"],
                "caught_incidents": total["incidents_caught"],
                "recall_of_incidents": total["recall_of_incidents"],
                "alerts": total["alerts"],
                "false_alerts": total["false"],
                "false_alerts_per_1000_images": _per_thousand(total["false"], total["pictures"]),
                "false_labels": {
                    row["label"]: row["false_labels"] for row in evaluated["by_label"]
                },
                "first_alert_seconds": total["first_alert_seconds"],
                "by_camera": {
                    row["id"]: {
                        "images": row["pictures"],
                        "threat_images": row["threats"],
                        "caught_images": row["caught"],
                        "false_alerts": row["false"],
                    }
                    for row in evaluated["by_id"]
                },
            }
        )
    return rows


def _per_thousand(part: int, whole: int) -> float | None:
    return round(1000 * part / whole, 2) if whole else None


HEADER = (
    *("rules", "inferences", "images", "recall", "incidents", "alerts", "false"),
    *("per 1,000", "false labels", "first alert, median", "p95"),
)


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the figures for a person."""
    cells = [HEADER]
    for row in rows:
        false = [f"{label} {number}" for label, number in row["false_labels"].items() if number]
        recall, first = row["recall_of_images"], row["first_alert_seconds"]
        cells.append(
            (
                row["rules"],
                f"{row['inferences_per_image']:.3g}",
                f"{row['caught_images']} of {row['threat_images']}",
                "-" if recall is None else f"{recall:.3f}",
                f"{row['caught_incidents']} of {row['incidents']}",
                str(row["alerts"]),
                f"{row['false_alerts']} in {row['images']}",
                str(row["false_alerts_per_1000_images"]),
                ", ".join(false) or "none",
                *("-" if first[key] is None else f"{first[key]:g} s" for key in ("median", "p95")),
            )
        )
    return "".join(f"{line}\n" for line in align(cells))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_cameras", description=__doc__)
    parser.add_argument("images", type=Path, help="a folder of images, named as for a job")
    parser.add_argument("truth", type=Path, help="a CSV file: see docs/evaluate.md")
    parser.add_argument(
        "--model", default=str(SHARED / "models" / "yolox_nano_coco" / "saved_model")
    )
    parser.add_argument("--model_input_size", type=int, default=416)
    parser.add_argument("--objects", default="person", help="what is to raise an alert: person,car")
    parser.add_argument("--labels", help="the label map of the model, as for a job")
    parser.add_argument("--tiles", default=TILES, help="the value of tiles in the rule file")
    parser.add_argument("--incident_gap", default="5m", help="as for evaluate")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the detections there")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(arguments)
    try:
        with contextlib.ExitStack() as stack:
            if args.keep is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            else:
                folder = args.keep
                folder.mkdir(parents=True, exist_ok=True)
            rows = measure(args, folder)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps({"machine": machine(), "rule_sets": rows}, indent=2))
    else:
        print(table(rows), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
