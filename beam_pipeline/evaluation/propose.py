"""The command `rules propose`: which change of the rules would have silenced the false alerts."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import rules
from beam_pipeline.console.exceptions import SetupError
from beam_pipeline.console.tables import write_stdout
from beam_pipeline.evaluation.comparison import earliest
from beam_pipeline.evaluation.marked import MarkedTruth, read_truth
from beam_pipeline.evaluation.proposing import Findings, Proposal, propose
from beam_pipeline.evaluation.rule_edits import apply_settings, setting_text
from beam_pipeline.inputs import selection
from beam_pipeline.inputs.preflight import check_readable
from beam_pipeline.inputs.rule_files import load_labels, load_rules, read_file, replace_rules
from beam_pipeline.inputs.selection import Selection
from rules.text import number_of


def propose_rules(args: argparse.Namespace) -> int:
    """Prints the proposals, and writes one on request; returns the exit code.

    Raises:
      SetupError: Something of the set-up is wrong; nothing was written.
      CommandFailedError: A store failed.
    """
    for option in ("rules", "labels"):
        check_readable(f"--{option}", getattr(args, option), is_file=True)
    text = read_file(args.rules, "--rules")
    labels = frozenset(load_labels(args.labels).values())
    ruleset = load_rules(text, args.rules, labels)
    chosen = selection.select(args)
    if args.write is not None and len(chosen.ids) != 1:
        raise SetupError("--write changes the rules of one camera; name it by --id")
    truth = read_truth(chosen.archive.uris)
    with selection.store_errors_as_failures():
        found = {id: _of_camera(chosen, truth, ruleset, text, args.rules, id) for id in chosen.ids}
    written = None if args.write is None else _to_write(args.write, next(iter(found.items())))
    if args.format == "json":
        document = {id: [_json(one) for one in of.proposals] for id, of in found.items()}
        write_stdout(json.dumps(document, indent=2) + "\n")
    else:
        tables = (_table(id, of.proposals) for id, of in found.items() if of.proposals)
        write_stdout("\n".join(tables))
    marked = {id for id, _ in truth.facts}
    for id, of in found.items():
        if of.nothing is not None and (chosen.by_id or id in marked):
            print(f"nothing to propose for {id}: {of.nothing}", file=sys.stderr)
    if not chosen.by_id and (unmarked := found.keys() - marked):
        print(
            f"nothing to propose for {number_of(len(unmarked), 'camera')} without marks",
            file=sys.stderr,
        )
    selection.print_problems([*chosen.archive.problems, *truth.problems], "they were left out")
    if written is not None:
        _write(args, text, labels, written)
    return 0


def _of_camera(
    chosen: Selection,
    truth: MarkedTruth,
    ruleset: rules.Rules,
    text: bytes,
    source: str,
    id: str,
) -> Findings:
    facts = {key: known for key, known in truth.facts.items() if key[0] == id}
    images = []
    if facts:
        archived = chosen.archive.images(id, earliest(chosen, ruleset, id), chosen.until)
        images = [one.image for one in archived]
    return propose(images, facts, text.decode(), source, id, since=chosen.since)


def _to_write(number: int, camera: tuple[str, Findings]) -> Proposal:
    """Returns the proposal of a number of a camera; of 0, the first one if it loses nothing.

    Raises:
      SetupError: There is no such proposal.
    """
    id, proposals = camera[0], camera[1].proposals
    if max(number, 1) > len(proposals):
        why = f": {camera[1].nothing}" if camera[1].nothing else ""
        raise SetupError(f"--write {number or 1}: {id} has {len(proposals)} proposals{why}")
    if not number and proposals[0].loses_right:
        raise SetupError(
            f"--write: each proposal for {id} loses alerts that are marked right; to write one "
            "nevertheless, give its number, such as --write 1"
        )
    return proposals[max(number, 1) - 1]


def _write(
    args: argparse.Namespace, text: bytes, labels: frozenset[str], proposal: Proposal
) -> None:
    """Writes the rule file with one proposal.

    Raises:
      SetupError: The file would not be right, or it was edited meanwhile.
      CommandFailedError: It can't be written.
    """
    changed = apply_settings(text.decode(), proposal.changes).encode()
    load_rules(changed, args.rules, labels)
    if read_file(args.rules, "--rules") != text:
        raise SetupError(f"--rules {args.rules}: was edited meanwhile; run the command again")
    with selection.store_errors_as_failures():
        replace_rules(args.rules, changed)
    print(f"{args.rules}: written with proposal {args.write or 1}", file=sys.stderr)


def _json(proposal: Proposal) -> dict[str, Any]:
    return {
        "kind": proposal.kind,
        "label": proposal.label,
        "changes": [{"path": list(path), "value": value} for path, value in proposal.changes],
        **asdict(proposal.effect),
        "right_lost_at_most": round(proposal.right_lost_at_most, 4),
        "sureness": proposal.sureness,
    }


def _were_sent(false: int) -> str:
    return f"{number_of(false, 'alert')} marked false {'was' if false == 1 else 'were'} sent"


def _table(id: str, proposals: Sequence[Proposal]) -> str:
    first = proposals[0].effect
    lines = [f"{id}: {_were_sent(first.false)}, {first.right} right"]
    for number, proposal in enumerate(proposals, 1):
        effect = proposal.effect
        warning = "LOSES RIGHT ALERTS  " if proposal.loses_right else ""
        lines += [
            f"{number:>3}  {warning}{'; '.join(map(setting_text, proposal.changes))}",
            f"     {len(effect.false_gone)} of {effect.false} false alerts gone, "
            f"{effect.right - len(effect.right_lost)} of {effect.right} right ones kept; of the "
            f"unmarked ones {len(effect.others_lost)} gone, and {len(effect.gained)} alerts more",
            f"     {proposal.sureness}",
        ]
    return "".join(f"{line}\n" for line in lines)
