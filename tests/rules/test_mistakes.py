"""Every mistake in a rule file is one line: the location, the problem and the remedy."""

import itertools
import pickle

import pytest

from rules import RulesError, load_rules, parse_rules

LABELS = ("person", "bicycle", "car", "dog")
OBJECT_KEYS = (
    "name, severity, min_score, min_area, max_area, min_ratio, max_ratio, min_score_at_night, "
    "min_count, max_count, repeats, track, confirm"
)
LAYER_KEYS = (
    "objects, resolution, tiles, timezone, names, zones, mask, schedule, night, repeats, track, "
    "confirm, cooldown, incident_gap, notify"
)


def message_for(text: str | bytes, labels=LABELS) -> str:
    with pytest.raises(RulesError) as error:
        parse_rules(text, "rules.yaml", labels)
    assert "\n" not in str(error.value)
    return str(error.value)


def person(values: str) -> str:
    return f"version: 1\ndefaults:\n  objects:\n    person: {values}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: the file is empty; begin with version: 1"),
        ("# only a comment\n", "1: the file is empty; begin with version: 1"),
        ("---\n", "1: the file is empty; begin with version: 1"),
        (b"\xff\xfev\x00", "1: not UTF-8 text; save the file as UTF-8"),
        (b"version: 1\n# caf\xe9\n", "2: not UTF-8 text; save the file as UTF-8"),
        (
            "version: 1\n\ud83d",
            "2: half a surrogate pair is not a character; give the file's bytes",
        ),
        (
            'version: 1\ncameras: {"\\ud83d": }',
            "2: half a surrogate pair is not a character; check the \\u escapes",
        ),
        (
            "version: 1\n\tdefaults: 2",
            "2: not valid YAML: a tab is used for indentation; indent with spaces",
        ),
        (
            "version: 1\ncameras: {a: \ndefaults: 2\n",
            "3: not valid YAML: expected ',' or '}', but got ':' (while parsing a flow "
            "mapping that begins on line 2); check the indentation, brackets and quotes here",
        ),
        (
            "version: 1: 2",
            "1: not valid YAML: mapping values are not allowed here; "
            "check the indentation, brackets and quotes here",
        ),
        (
            "version: 1\n# \x01",
            "2: not valid YAML: it contains the unprintable character U+0001; "
            "save it as plain text",
        ),
        (
            '"\\UFFFFFFFF"',
            "1: not valid YAML: a quoted text or an escape can't be read; "
            "check quotes and escapes",
        ),
        (
            "version: 1\n---\nversion: 1\n",
            "2: a second document begins here; keep one document per file",
        ),
        ("[" * 10_000, "1: nested more than 20 levels deep; check the brackets"),
        (
            "version: 1\n? [a]\n: b\n",
            "2: a key must be text; write a plain name",
        ),
        ("- version: 1", "1: is the list [{'version': 1}]; must be a mapping that begins with "
         "version: 1"),
        ("version", "1: is the text 'version'; must be a mapping that begins with version: 1"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_yaml_mapping_is_rejected(text, message):
    assert message_for(text) == f"rules.yaml:{message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "version: 1\ndefaults: &d {objects: {person: }}\nprofiles:\n  p: *d\n",
            "4: profiles.p: the alias *d is not allowed; "
            "write the value out, or share it through a profile",
        ),
        (
            "version: 1\ndefaults: &d {}\nprofiles:\n  p:\n    <<: *d\n",
            "5: profiles.p.<<: merge keys are not allowed; "
            "write the values out, or share them through a profile",
        ),
        (
            "version: 1\ncameras:\n  a: !!python/object:os.system {}\n",
            "3: cameras.a: the tag tag:yaml.org,2002:python/object:os.system is not allowed; "
            "leave it out; put text in quotes",
        ),
        (
            "a: &a [x, x]\n" + "".join(
                f"{key}: &{key} [{', '.join([f'*{before}'] * 9)}]\n"
                for before, key in itertools.pairwise("abcdefghi")
            ),
            "2: b[0]: the alias *a is not allowed; "
            "write the value out, or share it through a profile",
        ),
    ],
)  # fmt: skip
def test_aliases_merge_keys_and_tags_are_rejected(text, message):
    assert message_for(text) == f"rules.yaml:{message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cameras: {}", "1: version: missing; write version: 1"),
        ("version: 2", "1: version: not a version that this release supports; write version: 1"),
        ("version: '1'", "1: version: not a version that this release supports; write version: 1"),
        ("version: true", "1: version: not a version that this release supports; write version: 1"),
        ("version: 1.0", "1: version: not a version that this release supports; write version: 1"),
        ("version:", "1: version: not a version that this release supports; write version: 1"),
        (
            "version: 1\nstrict_ids: yes",
            "2: strict_ids: is the text 'yes'; must be true or false",
        ),
        (
            "version: 1\nstrict_ids: 'true'",
            "2: strict_ids: is the text 'true'; must be true or false, without quotes",
        ),
        ("version: 1\nstrict_ids: 1", "2: strict_ids: is 1; must be true or false"),
        (
            "version: 1\nstrict_ids:",
            "2: strict_ids: has no value; write true or false, or leave the key out",
        ),
        ("version: 1\n\ncamera: {}", "3: camera: unknown key; did you mean 'cameras'?"),
        (
            "version: 1\nzzz: {}",
            "2: zzz: unknown key; "
            "the keys here are: version, strict_ids, names, defaults, profiles, cameras, "
            "targets, limits, message, console, health, retention",
        ),
        (
            "version: 1\ncameras:\n  - hall\n",
            "2: cameras: is the list ['hall']; "
            "must be a mapping of camera ids, such as {front-door: {profile: outdoor}}",
        ),
        (
            "version: 1\nprofiles: outdoor\ncameras: {a: {profile: outdoor}}\n",
            "2: profiles: is the text 'outdoor'; "
            "must be a mapping of profile names, such as {outdoor: {objects: ...}}",
        ),
        (
            "version: 1\ndefaults: 3",
            "2: defaults: is 3; must be a mapping with objects and resolution",
        ),
        (
            "version: 1\ncameras:\n  hall: true\n",
            f"3: cameras.hall: is true; must be a mapping with any of {LAYER_KEYS}, profile",
        ),
        (
            "version: 1\ncameras: {a: {objects: [person]}}",
            "2: cameras.a.objects: is the list ['person']; "
            "must be a mapping of labels, such as {person: {min_score: 0.6}}",
        ),
        (person("0.5"), f"4: defaults.objects.person: is 0.5; must be a mapping with any of "
         f"{OBJECT_KEYS}"),
        (
            person("{min_scor: 0.5}"),
            "4: defaults.objects.person.min_scor: unknown key; did you mean 'min_score'?",
        ),
        (
            person("\n      zone: x"),
            f"5: defaults.objects.person.zone: unknown key; the keys here are: {OBJECT_KEYS}",
        ),
        (
            "version: 1\nprofiles:\n  p:\n    profile: q\n",
            f"4: profiles.p.profile: unknown key; the keys here are: {LAYER_KEYS}",
        ),
        (
            "version: 1\ncameras:\n  a:\n    Profile: q\n",
            "4: cameras.a.Profile: unknown key; did you mean 'profile'?",
        ),
    ],
)  # fmt: skip
def test_a_wrong_key_or_section_is_rejected_with_a_remedy(text, message):
    assert message_for(text) == f"rules.yaml:{message}"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("min_score: 1.01", "min_score: is 1.01; must be a number from 0 to 1"),
        ("min_score: -0.1", "min_score: is -0.1; must be a number from 0 to 1"),
        ("min_score: .nan", "min_score: is nan; must be a number from 0 to 1"),
        ("min_score: true", "min_score: is true; must be a number from 0 to 1"),
        ("min_score: 50%", "min_score: is the text '50%'; must be a number from 0 to 1"),
        (
            "min_score: '0.5'",
            "min_score: is the text '0.5'; must be a number from 0 to 1, without quotes",
        ),
        (
            "min_score: ",
            "min_score: has no value; write a number from 0 to 1, or leave the key out",
        ),
        ("min_score: [0.5]", "min_score: is the list [0.5]; must be a number from 0 to 1"),
        ("min_score: {}", "min_score: is a mapping; must be a number from 0 to 1"),
        ("min_score: " + "9" * 5000, "min_score: is inf; must be a number from 0 to 1"),
        ("min_area: 1.5", "min_area: is 1.5; must be a number from 0 to 1"),
        ("max_area: -1", "max_area: is -1; must be a number from 0 to 1"),
        ("min_ratio: 0", "min_ratio: is 0; must be a number greater than 0"),
        ("max_ratio: -2.0", "max_ratio: is -2.0; must be a number greater than 0"),
        ("max_ratio: .inf", "max_ratio: is inf; must be a number greater than 0"),
        (
            "severity: high",
            "severity: is the text 'high'; must be alert, detection or ignore",
        ),
        (
            "severity: Alert",
            "severity: is the text 'Alert'; must be alert, detection or ignore; "
            "did you mean 'alert'?",
        ),
        ("severity: 1", "severity: is 1; must be alert, detection or ignore"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_or_of_another_type_is_rejected(values, message):
    assert (
        message_for(person(f"{{{values}}}")) == f"rules.yaml:4: defaults.objects.person.{message}"
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[0, 480]", "min[0]: is 0"),
        ("[640, -1]", "min[1]: is -1"),
        ("[640.0, 480]", "min[0]: is 640.0"),
        ("[640, true]", "min[1]: is true"),
        ("[640, '480']", "min[1]: is the text '480'"),
        ("[640]", "min: is the list [640]"),
        ("[640, 480, 3]", "min: is the list [640, 480, 3]"),
        ("640", "min: is 640"),
        ("640x480", "min: is the text '640x480'"),
    ],
)
def test_a_resolution_is_two_whole_numbers(value, message):
    text = f"version: 1\ndefaults:\n  resolution:\n    min: {value}\n"
    need = "must be [width, height] in pixels, two whole numbers of at least 1"
    assert message_for(text).startswith(f"rules.yaml:4: defaults.resolution.{message}; {need}")


@pytest.mark.parametrize(
    "camera_id", ["front door", "-a", ".a", "_a", "a/b", "../a", "ä", "a" * 65, "", '"a\\n"', "~"]
)
def test_an_id_that_no_image_can_have_is_rejected(camera_id):
    message = message_for(f"version: 1\ncameras:\n  good: \n  {camera_id}: \n")
    assert message.startswith("rules.yaml:4: cameras.")
    assert message.endswith(
        ": not a camera id; an id is 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit"
    )


@pytest.mark.parametrize(
    ("label", "labels", "message"),
    [
        ("Person", LABELS, "did you mean 'person'?"),
        ("persn", LABELS, "did you mean 'person'?"),
        ("hippo", LABELS, "the labels of the model are: person, bicycle, car, dog"),
        ("hippo", (), "there are no labels of the model"),
        (
            "zzz",
            [f"label {number}" for number in range(80)],
            "the labels of the model are: label 0, label 1, label 2, label 3, label 4, label 5, "
            "label 6, label 7, label 8, label 9, label 10, label 11, label 12, label 13, "
            "label 14, label 15, ... (80 in all)",
        ),
    ],
)
@pytest.mark.parametrize(
    ("section", "path"),
    [
        ("defaults:\n  x: \n", "defaults"),
        ("profiles:\n  p:\n    x: \n", "profiles.p"),
        ("cameras:\n  c:\n    x: \n", "cameras.c"),
    ],
)
def test_a_label_that_the_model_does_not_have_is_rejected(section, path, label, labels, message):
    text = "version: 1\n" + section.replace("x: ", f"objects: {{{label}: }}")
    line = text.count("\n")
    assert message_for(text, labels) == (
        f"rules.yaml:{line}: {path}.objects.{label}: the model does not have this label; {message}"
    )


def test_an_empty_label_is_rejected():
    assert message_for("version: 1\ndefaults:\n  objects:\n    '': {}\n", None) == (
        "rules.yaml:4: defaults.objects.: a label is empty; write a label of the model, e.g. person"
    )


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        ("{outdoor: , indoor: }", "did you mean 'outdoor'?"),
        ("{night: , day: }", "the profiles are: night, day"),
        ("", "there are no profiles"),
    ],
)
def test_a_profile_that_is_not_in_the_file_is_rejected(profiles, message):
    text = f"version: 1\nprofiles: {profiles}\ncameras:\n  a:\n    profile: outdor\n"
    assert message_for(text) == (
        f"rules.yaml:5: cameras.a.profile: there is no profile 'outdor'; {message}"
    )


@pytest.mark.parametrize("profile", ["", "[outdoor]", "{}"])
def test_a_profile_is_a_name(profile):
    text = f"version: 1\nprofiles: {{outdoor: }}\ncameras:\n  a:\n    profile: {profile}\n"
    assert message_for(text).startswith("rules.yaml:5: cameras.a.profile: ")
    assert "the name of a profile of this file" in message_for(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            person("\n      min_area: 0.3\n      max_area: 0.2"),
            "6: defaults.objects.person.max_area: 0.2 is below the min_area 0.3; "
            "must be at least 0.3",
        ),
        (
            person("\n      max_ratio: 1\n      min_ratio: 2"),
            "5: defaults.objects.person.max_ratio: 1.0 is below the min_ratio 2.0; "
            "must be at least 2.0",
        ),
        (
            person("{max_area: 0.2}") + "profiles:\n  p:\n    objects:\n      person:\n"
            "        severity: alert\n        min_area: 0.3\n",
            "10: profiles.p.objects.person.min_area: 0.3 is above the max_area 0.2 of "
            "defaults.objects.person; must be at most 0.2",
        ),
        (
            "version: 1\nprofiles: {p: {objects: {car: {min_area: 0.3}}}}\ncameras:\n  a:\n"
            "    profile: p\n    objects: {car: {max_area: 0.2}}\n",
            "6: cameras.a.objects.car.max_area: 0.2 is below the min_area 0.3 of "
            "profiles.p.objects.car; must be at least 0.3",
        ),
        (
            "version: 1\ndefaults: {resolution: {min: [640, 480]}}\ncameras:\n  a:\n"
            "    resolution: {max: [800, 479]}\n",
            "5: cameras.a.resolution.max: [800, 479] is below the min [640, 480] of "
            "defaults.resolution; must be at least [640, 480]",
        ),
        (
            "version: 1\ndefaults:\n  resolution: {max: [640, 480], min: [641, 480]}\n",
            "3: defaults.resolution.max: [640, 480] is below the min [641, 480]; "
            "must be at least [641, 480]",
        ),
    ],
)
def test_crossed_bounds_are_rejected_whichever_layers_set_them(text, message):
    assert message_for(text) == f"rules.yaml:{message}"


def test_crossed_bounds_are_reported_once_not_for_every_camera():
    text = person("{min_area: 0.3, max_area: 0.2}") + (
        "cameras:\n  a: {objects: {person: {min_score: 0.9}}}\n  b: {objects: {car: }}\n"
    )
    assert message_for(text).endswith("must be at least 0.3")


def test_a_duplicate_key_is_rejected_with_both_lines():
    text = "version: 1\ncameras:\n  hall: {}\n  porch: {}\n  'hall': {profile: x}\n"
    assert message_for(text) == (
        "rules.yaml:5: cameras.hall: a duplicate key (first on line 3); keep one of them"
    )


def test_the_first_mistake_is_reported_and_the_others_are_counted():
    text = (
        "version: 1\n"
        "cameras:\n"
        "  a: {profile: nowhere}\n"
        "  b: {objects: {cat: , person: {min_score: 2}}}\n"
        "  b: {}\n"
        "defaults: {object: {}}\n"
    )
    assert message_for(text) == (
        "rules.yaml:3: cameras.a.profile: there is no profile 'nowhere'; "
        "there are no profiles (and 4 more mistakes)"
    )
    two = "version: 1\nstrict_ids: 1\ndefaults: 1\n"
    assert message_for(two) == (
        "rules.yaml:2: strict_ids: is 1; must be true or false (and 1 more mistake)"
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "cannot be read: No such file or directory; check the path"),
        (lambda path: path.mkdir(), "cannot be read: Is a directory; check the path"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, make, message):
    path = tmp_path / "rules.yaml"
    make(path)
    with pytest.raises(RulesError) as error:
        load_rules(path)
    assert str(error.value) == f"{path}: {message}"
    assert error.value.line is None


def test_a_path_with_a_nul_is_a_rules_error():
    with pytest.raises(RulesError, match=r"^a\\x00b: cannot be read: embedded null"):
        load_rules("a\0b")


def test_the_error_has_its_parts_and_survives_pickling(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text("version: 1\nstrict_ids: 1\n")
    with pytest.raises(RulesError) as caught:
        load_rules(path)
    error = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(error, ValueError)
    assert str(error) == f"{path}:2: strict_ids: is 1; must be true or false"
    assert (error.source, error.line, error.problem, error.remedy, error.other_count) == (
        str(path),
        2,
        "strict_ids: is 1",
        "must be true or false",
        0,
    )


def test_text_of_the_file_cannot_break_the_line():
    text = 'version: 1\n"a\\nb\\e[31m": 1\n'
    assert "rules.yaml:2: a\\nb\\x1b[31m: unknown key" in message_for(text)
    with pytest.raises(RulesError) as error:
        parse_rules("", "a\nb")
    assert "\n" not in str(error.value)


def test_a_long_word_is_truncated_in_the_message():
    assert len(message_for(f"version: 1\n{'x' * 900}: 1\n")) < 250


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "zones: {z: {polygon: [[0, 0], [1, 1], [1, 0], [0, 1]]}}",
            "defaults.zones.z.polygon: crosses or touches itself at [0.5, 0.5]; give the corners "
            "in order around the area, and two areas apart from each other",
        ),
        (
            "zones: {z: {polygon: [[0, 0], [1, 0], [1, 1.2]]}}",
            "defaults.zones.z.polygon: point 3, [1, 1.2], lies outside the frame; both numbers "
            "must be fractions of the frame, from 0 to 1",
        ),
        (
            "mask: {m: {polygon: [[0, 0], [1, 0]]}}",
            "defaults.mask.m.polygon: 2 different points; must be at least 3, the corners of an "
            "area",
        ),
        (
            "zones: {z: {polygon: all}}",
            "defaults.zones.z.polygon: is the text 'all'; must be the corners as fractions of the "
            "frame, such as [[0, 0.5], [1, 0.5], [1, 1]]",
        ),
        (
            "zones: {z: {anchor: center}}",
            "defaults.zones.z: has no polygon; write its corners, such as polygon: [[0, 0.5], "
            "[1, 0.5], [1, 1], [0, 1]]",
        ),
        ("mask: {m: }", "defaults.mask.m: has no polygon; write its corners, such as polygon: "
         "[[0, 0.5], [1, 0.5], [1, 1], [0, 1]]"),
        (
            "zones: {z: {polygon: [[0, 0], [1, 0], [1, 1]], anchor: top}}",
            "defaults.zones.z.anchor: is the text 'top'; must be bottom_center, center or overlap",
        ),
        (
            "zones: {z: {polygon: [[0, 0], [1, 0], [1, 1]], min_overlap: 0.5}}",
            "defaults.zones.z.min_overlap: has an effect only with anchor: overlap; "
            "write that too, or leave this out",
        ),
        (
            "zones: {z: {polygon: [[0, 0], [1, 0], [1, 1]], objects: {preson: }}}",
            "defaults.zones.z.objects.preson: the model does not have this label; did you mean "
            "'person'?",
        ),
        (
            "mask: {m: {polygon: [[0, 0], [1, 0], [1, 1]], objects: [preson]}}",
            "defaults.mask.m.objects[0]: the model does not have this label; did you mean "
            "'person'?",
        ),
        (
            "timezone: Europe/Berlni",
            "defaults.timezone: there is no time zone 'Europe/Berlni'; did you mean "
            "'Europe/Berlin'?",
        ),
        (
            "schedule: {armed: 0 18 * * *}",
            "defaults.schedule.armed: '0 18 * * *' is a cron expression, which has no end; write "
            'when it starts and ends, such as {days: [mon, tue], start: "18:00", end: "07:00"}',
        ),
        (
            "schedule: {disarmed: [mon-fri 18:00-07:00]}",
            "defaults.schedule.disarmed[0]: 'mon-fri 18:00-07:00' is a text; write {days: [mon, "
            'tue, wed, thu, fri], start: "18:00", end: "07:00"}',
        ),
        (
            "schedule: {armed: [{days: [monday]}]}",
            "defaults.schedule.armed[0].days: 'monday' is not a day; did you mean 'mon'?",
        ),
        (
            "schedule: {armed: [{start: 1800}]}",
            "defaults.schedule.armed[0].start: is 1800; must be a time of day such as 18:00",
        ),
        (
            'night: {start: "24:00", end: 06:00}',
            'defaults.night.start: no period starts at 24:00; write "00:00" of the next day',
        ),
        (
            "night: {start: 20:00}",
            "defaults.night: has no end; write end too, such as 06:00",
        ),
        (
            "objects: {person: {min_count: 3, max_count: 2}}",
            "defaults.objects.person.max_count: 2 is below the min_count 3; must be at least 3",
        ),
        (
            "objects: {person: {min_count: 0}}",
            "defaults.objects.person.min_count: is 0; must be a whole number of at least 1",
        ),
        ("cooldown: 5 minutes", "defaults.cooldown: '5 minutes' is not a duration; write a whole "
         "number and s, m, h or d, such as 30s, 5m, 24h or 7d"),
        ("incident_gap: 5", "defaults.incident_gap: is 5; must be a duration such as 30s, 5m, 24h "
         "or 7d"),
        ("cooldown: 300", "defaults.cooldown: is 300; must be a duration such as 30s, 5m, 24h or "
         "7d"),
        ("cooldown: ", "defaults.cooldown: has no value; write a duration such as 30s, 5m, 24h or "
         "7d, or leave the key out"),
        (
            "repeats: {iou: 0}",
            "defaults.repeats.iou: is 0; must be a number above 0, at most 1",
        ),
        (
            "repeats: {occurrences: 21}",
            "defaults.repeats.occurrences: is 21; must be a whole number from 1 to 20",
        ),
        ("confirm: true", "defaults.confirm: is true; must be a mapping, such as "
            "{pictures: 2, within: 30s}"),
        ("confirm: {within: 0s}", "defaults.confirm.within: 0s is too short; must be at least 1s"),
        ("track: {within: 31s}", "defaults.track.within: 31s is too long; must be at most 30s"),
        ("track: {within: 1h}", "defaults.track.within: 1h is too long; must be at most 30s"),
        ("track: {within: 0s}", "defaults.track.within: 0s is too short; must be at least 1s"),
        ("track: {min_score: 2}", "defaults.track.min_score: is 2; must be a number from 0 to 1"),
        ("track: 3s", "defaults.track: is the text '3s'; must be a mapping, such as "
         "{min_score: 0.1, within: 3s}"),
        ("tiles: 3x2", "defaults.tiles: is the text '3x2'; must be a mapping, such as {columns: 3, "
         "rows: 2, overlap: 0.2}"),
        ("tiles: {columns: 9}", "defaults.tiles.columns: is 9; must be a whole number from 1 to 8"),
        ("tiles: {columns: 8, rows: 0}", "defaults.tiles.rows: is 0; must be a whole number from "
         "1 to 8"),
        ("tiles: {overlap: 0.51}", "defaults.tiles.overlap: is 0.51; must be a number from 0 to "
         "0.5"),
        ("tiles: {overlap: -0.1}", "defaults.tiles.overlap: is -0.1; must be a number from 0 to "
         "0.5"),
        ("tiles: {min_score: 1.1}", "defaults.tiles.min_score: is 1.1; must be a number from 0 to "
         "1"),
        ("tiles: {columns: 1, rows: 1}", "defaults.tiles: columns: 1 and rows: 1 make 1 tile, "
         "which is the whole image; columns times rows must be 2 to 16"),
        ("tiles: {columns: 6, rows: 3}", "defaults.tiles: columns: 6 and rows: 3 make 18 tiles; "
         "columns times rows must be 2 to 16"),
        ("{tiles: {columns: 8}, resolution: {max: [320, 240]}}", "defaults.tiles: the tiles of an "
         "image of 320x240 pixels, the largest permitted one, have 48x133 pixels; they need 64x64; "
         "write fewer columns or rows"),
        ("confirm: {unless_score: -1}", "defaults.confirm.unless_score: is -1; must be a number "
         "from 0 to 1"),
        ("confirm: {pictures: 1}", "defaults.confirm.pictures: is 1; must be a whole number from "
         "2 to 20"),
    ],
)  # fmt: skip
def test_a_wrong_filter_is_rejected_with_a_remedy(line, message):
    assert message_for(f"version: 1\ndefaults:\n  {line}\n") == f"rules.yaml:3: {message}"


def test_crossed_bounds_in_a_zone_name_the_zone():
    text = """version: 1
defaults:
  objects: {person: {min_area: 0.1}}
  zones:
    z:
      polygon: [[0, 0], [1, 0], [1, 1]]
      objects: {person: {max_area: 0.05}}
"""
    assert message_for(text) == (
        "rules.yaml:7: defaults.zones.z.objects.person.max_area: 0.05 is below the min_area 0.1 "
        "of defaults.objects.person; must be at least 0.1"
    )


def test_a_profile_can_leave_the_polygon_of_a_zone_to_its_cameras():
    text = """version: 1
strict_ids: true
profiles:
  yard: {zones: {gate: {anchor: center}}}
cameras:
  a: {profile: yard, zones: {gate: {polygon: [[0, 0], [1, 0], [1, 1]]}}}
  b: {profile: yard}
"""
    assert message_for(text).startswith("rules.yaml:7: cameras.b.zones.gate: has no polygon;")


def test_a_minimum_score_at_night_needs_a_definition_of_night():
    assert message_for("version: 1\ndefaults: {objects: {person: {min_score_at_night: 0.7}}}") == (
        "rules.yaml:2: defaults.night: missing, and defaults.objects.person has a "
        'min_score_at_night; say when it is night, such as night: {start: "20:00", end: "06:00"}'
    )
