"""What the targets of a job need of each worker."""

from dataclasses import replace

import pytest

from rules import parse_rules
from transforms.alerting.target_checks import (
    TargetError,
    WorkerCheck,
    check_console,
    notified_targets,
)
from transforms.runtime.live_rules import LiveRules

RULES = """\
version: 1
targets:
  guard: {{webhook: "https://${{GUARD_HOST}}/hook"{ca}}}
  nobody: {{webhook: "https://${{NO_HOST}}/hook"}}
defaults: {{objects: {{person: }}, notify: [guard]}}
"""


def check_of(text, urls=()):
    live = LiveRules.of(parse_rules(text, "rules.yaml"))
    console = live.current.alerting.console
    return WorkerCheck(live, notified_targets(live.current), urls, console)


def test_a_worker_needs_the_variables_of_targets_that_are_notified(monkeypatch):
    check = check_of(RULES.format(ca=""))
    monkeypatch.setenv("GUARD_HOST", " \n")
    with pytest.raises(TargetError, match=r"target 'guard' .* environment variable GUARD_HOST"):
        check()
    monkeypatch.setenv("GUARD_HOST", "example.com")
    check()


def test_a_worker_needs_the_variables_of_alert_urls(monkeypatch):
    check = check_of("version: 1\n", urls=("https://example.com/${KEY}",))
    monkeypatch.delenv("KEY", raising=False)
    with pytest.raises(TargetError, match="--alert_url needs the environment variable KEY"):
        check()
    monkeypatch.setenv("KEY", "s3cret")
    check()


@pytest.mark.parametrize(
    ("content", "says"), [(None, "there is no file"), ("no PEM", "holds no certificate")]
)
def test_a_worker_needs_the_certificates_of_targets(monkeypatch, tmp_path, content, says):
    monkeypatch.setenv("GUARD_HOST", "example.com")
    ca = tmp_path / "ca.pem"
    if content is not None:
        ca.write_text(content)
    with pytest.raises(TargetError, match=rf"target 'guard' .*{says}"):
        check_of(RULES.format(ca=f', ca: "{ca}"'))()


def test_an_edit_of_the_rules_never_ends_the_job(monkeypatch):
    """A worker that starts after the edit needs what the edited rules still have of the first."""
    monkeypatch.delenv("GUARD_HOST", raising=False)
    check = check_of(RULES.format(ca=""))
    edited = RULES.format(ca="").replace("GUARD_HOST", "OTHER_HOST")
    replace(check, ruleset=LiveRules.of(parse_rules(edited, "rules.yaml")))()


LINKED = 'version: 1\nconsole: {url: "https://${PLACE}/", key: "${MARK_KEY}"}\n'


def test_a_worker_needs_what_signs_the_links_of_messages(monkeypatch):
    check = check_of(LINKED)
    monkeypatch.delenv("MARK_KEY", raising=False)
    monkeypatch.delenv("PLACE", raising=False)
    needs = "console of the rules needs the environment variable "
    with pytest.raises(TargetError, match=f"^{needs}PLACE, which is not set"):
        check()
    monkeypatch.setenv("PLACE", "console.example.com")
    with pytest.raises(TargetError, match=f"^{needs}MARK_KEY, which is not set"):
        check()
    monkeypatch.setenv("MARK_KEY", "k" * 31)
    with pytest.raises(TargetError, match=r"^console\.key of the rules: .* openssl") as caught:
        check()
    assert "kkk" not in str(caught.value)
    monkeypatch.setenv("MARK_KEY", "k" * 32)
    check()
    check_console(None)
    # An edit never ends a job.
    monkeypatch.delenv("MARK_KEY")
    edited = LINKED.replace("PLACE", "OTHER_PLACE")
    replace(check, ruleset=LiveRules.of(parse_rules(edited, "rules.yaml")))()
