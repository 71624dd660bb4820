"""The command `nivp guide`."""

import subprocess
import sys

import pytest
from documents import DOCUMENTS, content

from nivp_dist import cli, guide


def test_the_list_names_every_topic_with_a_sentence(capsys):
    assert cli.main(["guide"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(guide.TOPICS)
    assert all(len(line.split()) > 5 for line in lines)


@pytest.mark.parametrize("topic", guide.TOPICS)
def test_a_topic_is_printed_as_it_is_when_piped(topic, capsys):
    assert cli.main(["guide", topic]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("# ") and "\n<!--" not in shown
    assert set(shown.splitlines()) <= set(content(topic).splitlines())


def test_a_topic_is_rendered_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    assert cli.main(["guide", "settings"]) == 0
    shown = capsys.readouterr().out
    assert "Choosing settings" in shown and "## " not in shown and "```" not in shown


def test_an_unknown_topic_is_bad_input(capsys):
    assert cli.main(["guide", "setings"]) == 2
    assert capsys.readouterr().err == "nivp: guide: there is no topic 'setings'; the nearest is settings\n"


def test_the_guide_does_not_import_jax():
    code = "import sys; from nivp_dist import cli; cli.main(['guide', 'method']); cli.main(['guide'])\n"
    code += "sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_the_readme_is_short_and_names_every_command():
    text = content("README")
    assert text.count("\n") <= 200
    sentence = text[text.index("`nivp --help` lists the commands:") :].split("\n\n")[0]
    assert {word.strip("`,.") for word in sentence.split() if word.strip("`,.") in cli.nivp.commands} == set(
        cli.nivp.commands
    )


@pytest.mark.parametrize("topic", guide.TOPICS)
def test_the_readme_links_to_every_topic(topic):
    assert f"(nivp_dist/guide/{topic}.md)" in content("README") and DOCUMENTS[topic].exists()
