"""The links of all Markdown pages."""

from pathlib import Path

import pytest

from docs.scripts.check_links import all_problems, anchors_of, problems_of, targets_of


def test_all_links_lead_somewhere() -> None:
    assert [str(problem) for problem in all_problems()] == []


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("[a](other.md)", None),
        ("[a](other.md#two-words-and-code)", None),
        ("[a](#here)", None),
        ("[a](other.md#nothing)", "no such heading"),
        ("[a](missing.md)", "no such file"),
        ("![a](missing.png)", "no such file"),
        ('<img src="missing.png">', "no such file"),
        ("[a]: missing.md", "no such file"),
        ("[a](/other.md)", "links must be relative, so that they work on GitHub and on the built site"),
        ("[a](../../outside.md)", "no such file"),
        ("[a](https://docs.ray.io/en/latest/)", None),
        ("[a](http://docs.ray.io)", "is not a well-formed https:// URL"),
        ("[a](https://nowhere)", "is not a well-formed https:// URL"),
        ("`[a](missing.md)`", None),
        ("```\n[a](missing.md)\n```", None),
    ],
)
def test_a_broken_link_is_found(tmp_path: Path, link: str, reason: str | None) -> None:
    (tmp_path / "other.md").write_text("# Other\n\n## Two words, and `code`\n")
    page = tmp_path / "page.md"
    page.write_text(f"# Here\n\n{link}\n")
    assert [problem.reason for problem in problems_of(page, tmp_path)] == ([] if reason is None else [reason])


def test_links_around_images_are_both_found() -> None:
    assert set(targets_of("[![alt](image.png)](page.md)")) == {"image.png", "page.md"}


def test_anchors_are_those_of_github() -> None:
    text = "# What does `abstained` mean, and how?\n\n## [Linked](x.md) heading\n\n```\n# no heading\n```\n"
    assert anchors_of(text) == {"what-does-abstained-mean-and-how", "linked-heading"}
