"""Templates of messages render like Jinja's, and no template needs much memory or time."""

from __future__ import annotations

import resource
import subprocess
import sys
import textwrap

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jinja2 import StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from rules import RulesError, parse_rules
from rules.templates import (
    MessageTemplate,
    TemplateLimitError,
    TemplateMistakeError,
    _example,
    template_problem,
)

FILE = "version: 1\ntargets:\n  guard: {{webhook: https://example.com}}\nmessage:\n  subject: {}\n"
NESTED = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}"


def problem_of(template: str) -> str:
    problem = template_problem(template)
    assert problem is not None
    return problem[0]


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ 'a' * 9999999999 }}", "repeats a value 9999999999 times"),
        ("{{ ([0] * 99999999) | length }}", "repeats a value 99999999 times"),
        ("{{ 9 ** 9 ** 9 }}", "computes a number of more than 256 bits"),
        ("{{ 'a'.center(10 ** 9) }}", "a number above 1000"),
        ("{{ 'x' | indent(99999999) }}", "a number above 1000"),
        ("{{ (1).to_bytes(999, 'big') }}", "attribute 'to_bytes' of 'int' object is unsafe"),
        ("{{ '{:>9999999999}'.format(1) }}", "attribute 'format' of 'str' object is unsafe"),
        ("{{ '%9999999999d' % 1 }}", "a width of more than 999"),
        ("{{ '%.9999999999f' % 1 }}", "a width of more than 999"),
        ("{{ '%*d' | format(9999999999, 1) }}", "a width of more than 999"),
        (NESTED, "a number above 1000"),
        (NESTED.replace("99999", "999"), "needs more than 20000 steps"),
        ("{{ 'a' | replace('a', 'b' * 1001) }}", "a text of more than 1000 characters"),
        ("{{ ('\n' * 9999) | indent(999, blank=true) }}", "a value of more than 20000"),
        ("{{ ('&' * 9999) | e }}", "a value of more than 20000"),
        ("{{ ['a' * 20000] * 10000 }}", "a value of more than 20000"),
        (
            "{% set n = namespace(x='a') %}"
            "{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
            "a value of more than 20000",
        ),
        (
            "{% set n = namespace(x=['a']) %}"
            "{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
            "a value of more than 20000",
        ),
        ("{{ range(999) | map('replace', '1', 'b' * 999) | join }}", "a value of more than 20000"),
        (
            "{% for i in range(900) %}" + "x" * 15000 + "{% endfor %}",
            "renders more than 100000 characters",
        ),
        (
            "{% set x %}{% for i in range(999) %}" + "y" * 15000 + "{% endfor %}{% endset %}",
            "needs more than 20000 steps",
        ),
        ("x" * 20001, "has 20001 characters"),
        ("{{ " + "9" * 5000 + " }}", "not a template: ValueError"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "not a template: RecursionError"),
        ("{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}", "macros are not allowed"),
        ("{% for x in [1] recursive %}{{ loop([1, 1]) }}{% endfor %}", "recursive loops are not"),
        ("{% autoescape 'a' * 9 %}{% endautoescape %}", "autoescape blocks are not allowed"),
        ("{% include '/etc/passwd' %}", "includes are not allowed"),
        ("{{ 'a' | center(9) }}", "No filter named 'center'"),
        ("{{ lipsum(n=999) }}", "there is no variable 'lipsum'"),
    ],
)  # fmt: skip
def test_a_template_beyond_its_limits_is_rejected(template: str, problem: str) -> None:
    assert problem in problem_of(template)


@pytest.mark.parametrize("template", ["\"{{ 'a' * 9999999999 }}\"", f'"{NESTED}"'])
def test_a_rule_file_with_such_a_template_is_rejected_with_its_line(template: str) -> None:
    with pytest.raises(RulesError, match=r"rules.yaml:5: message.subject: the template") as caught:
        parse_rules(FILE.format(template), "rules.yaml")
    assert "make it simpler" in str(caught.value)


def test_a_template_that_grows_with_the_alert_stops_at_the_limit() -> None:
    template = MessageTemplate(
        "{% for a in threats %}{% for b in threats %}x{% endfor %}{% endfor %}"
    )
    assert template.render({"threats": [1] * 50}) == "x" * 2500
    with pytest.raises(TemplateLimitError, match="needs more than 20000 steps"):
        template.render({"threats": [1] * 1000})


def test_the_built_in_template_renders_any_alert() -> None:
    template = MessageTemplate("{% for a in threats %}{{ a }}{% endfor %}")
    values = {"threats": ["y" * 30_000] * 10}
    with pytest.raises(TemplateLimitError):
        template.render(values)
    assert template.render(values, is_built_in=True) == "y" * 300_000


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ labels[:2] | join(' and ') ~ '!' }}", "label 0 and label 1!"),
        ("{{ threats | map(attribute='label') | first }}", "label 0"),
        ("{{ '%.2f' % threats[0].conf }} in 2026", "0.91 in 2026"),
        ("{% for t in threats[:2] if t.conf > 0.5 %}{{ loop.index }}{{ t.zone }},{% endfor %}",
         "1path,2path,"),
        ("{{ threats | selectattr('conf', '>', 0.5) | list | length }}", "50"),
        ("{{ id.split('-')[0] | upper }}{% set n = labels | length %}{{ n * 2 + 1 }}", "FRONT101"),
        ("{{ links.picture or image_uri }}", "https://example.com/picture"),
        ("{% if no_picture %}none{% else %}one{% endif %}", "one"),
        ("{% set x %}a{{ severity }}{% endset %}{{ x | title }}", "Aalert"),
    ],
)  # fmt: skip
def test_usual_templates_are_rendered(template: str, text: str) -> None:
    assert template_problem(template) is None
    assert MessageTemplate(template).render(_example()) == text


# A comparison with Jinja itself, without limits.

_ATOMS = st.sampled_from(
    ["labels", "threats", "id", "severity", "links.picture", "no_picture", "1", "7", "'ab'", "2.5"]
)
_FILTERS = st.sampled_from(
    [
        *("length", "upper", "join('-')", "first", "list", "default('x')", "string", "title"),
        *("map(attribute='label')", "map('upper')", "unique", "sort", "reverse", "int", "last"),
        *("replace('a', 'bc')", "truncate(9)", "trim", "wordcount", "e", "indent(2)", "round(1)"),
    ]
)
_OPERATORS = st.sampled_from(["+", "-", "*", "/", "//", "%", "**", "~", "==", "<"])
_EXPRESSIONS = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.builds("({} | {})".format, inner, _FILTERS),
        st.builds("({} {} {})".format, inner, _OPERATORS, inner),
        st.builds("({} if {} else {})".format, inner, inner, inner),
        st.builds("[{}, {}]".format, inner, inner),
        st.builds("{}[{}]".format, inner, st.sampled_from(["0", "-1", ":2", "'label'"])),
    ),
    max_leaves=5,
)  # fmt: skip
_TEMPLATES = st.recursive(
    st.one_of(_EXPRESSIONS.map("{{{{ {} }}}}".format), st.sampled_from(["text\n", " "])),
    lambda inner: st.one_of(
        st.builds("{{% for x in {} %}}{}{{{{ x }}}}{{% endfor %}}".format, _EXPRESSIONS, inner),
        st.builds("{{% if {} %}}{}{{% else %}}{}{{% endif %}}".format, _EXPRESSIONS, inner, inner),
        st.builds("{{% set y %}}{}{{% endset %}}{{{{ y }}}}".format, inner),
        st.builds("{}{}".format, inner, inner),
    ),
    max_leaves=4,
)
# Without constant folding, which raises other errors than the rendering.
_JINJA = SandboxedEnvironment(
    undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, optimized=False
)


@given(_TEMPLATES)
@example("{{ 1[:2] ~ labels }}")
def test_a_template_within_the_limits_is_rendered_as_by_jinja(template: str) -> None:
    try:
        text = MessageTemplate(template).render(_example())
    except (TemplateLimitError, TemplateMistakeError):
        return
    except Exception as error:
        with pytest.raises(type(error)):
            _JINJA.from_string(template).render(_example())
        return
    if "<generator object" not in text:  # The text of a generator contains its address.
        assert text == _JINJA.from_string(template).render(_example())


def test_no_template_needs_much_memory_or_time() -> None:
    """Renders templates of operations with large results, in a process limited to 500 MB more."""
    program = """
        import random, resource, sys
        from rules.templates import MessageTemplate, _example

        texts = ["'a'", "'a '", "'\\\\n'", "'<'", "labels", "threats", "[0]", "x", "n.x", "'%s'"]
        numbers = ["2", "60", "999", "1000", "20000", "99999", "9999999999", "-1", "0.5"]
        forms = ["({} * {n})", "({} ~ {})", "({} + {})", "[{}, {}]", "({} | join({}))",
                 "({} | replace({}, {}))", "({} | indent({n}))", "({} | indent({}, blank=true))",
                 "({} | wordwrap({n}, wrapstring={}))", "({} ** {n})", "({} % {})", "({} | list)",
                 "({} | map('replace', {}, {}))", "({} | string)", "({} | e)", "range({n})",
                 "({} | map('indent', {n}))", "('%{n}d' % {})", "({} | format({n}))", "({} | sort)",
                 "({} | urlencode)", "({} | truncate({n}))", "dict(a={}, b={})", "({} | unique)",
                 "({} | groupby({n}))", "({} | select)", "({}.split({}))", "({} | default({}))"]
        random.seed(int(sys.argv[1]))

        def expression(depth):
            if depth == 0:
                return random.choice(texts)
            form = random.choice(forms)
            filled = form.replace("{n}", random.choice(numbers))
            return filled.format(*(expression(random.randrange(depth)) for _ in range(3)))

        def template(depth):
            inner = template(depth - 1) if depth else "{{ %s }}" % expression(4)
            return random.choice([
                "{%% for x in %s %%}%s{%% endfor %%}" % (expression(2), inner),
                "{%% set n.x = %s %%}%s" % (expression(3), inner),
                "{%% for y in range(%s) %%}{%% set n.x = %s %%}%s{%% endfor %%}"
                % (random.choice(numbers), expression(2), inner),
                "{%% set x %%}%s{%% endset %%}{{ x }}" % inner,
                inner,
            ])

        with open("/proc/self/statm") as file:
            loaded = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (loaded + 500_000_000, loaded + 500_000_000))
        made = 0
        for _ in range(1000):
            text = "{% set x = 'a' %}{% set n = namespace(x='ab') %}" + template(3)
            try:
                made += len(MessageTemplate(text).render(_example())) > 0
            except MemoryError:
                sys.exit("too much memory: " + text)
            except Exception:
                pass
        print(made)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), "1"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (200, 200)),
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert int(result.stdout) > 20
