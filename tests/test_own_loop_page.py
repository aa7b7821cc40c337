"""docs/own-loop.md says what the checks of the frameworks run: every added line of its diffs stands in one of them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "own-loop.md").read_text()
# section of the page -> files of tests/frameworks
CHECKS = {
    "segmentation_models.pytorch under Lightning": ["lightning_module.py"],
    "torchvision": ["check_torchvision.py"],
    "Hugging Face: SegFormer and the Trainer": ["check_transformers.py"],
    "mmsegmentation": ["check_mmsegmentation.py"],
    "MONAI": ["check_monai.py"],
    "timm": ["check_timm.py"],
    "Plain PyTorch: DDP and FSDP2": ["two_ddp.py", "two_fsdp2.py"],
    "Accelerate": ["check_accelerate.py"],
}


def test_every_section_with_a_diff_has_its_check():
    titles = [section.splitlines()[0] for section in PAGE.split("\n## ")[1:] if "```diff" in section]
    assert titles == list(CHECKS)


@pytest.mark.parametrize("title", CHECKS)
def test_added_lines_are_those_of_the_check(title):
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    for diff in re.findall(r"```diff\n(.*?)```", section, re.DOTALL):
        added = [line[1:].strip() for line in diff.splitlines() if line.startswith("+") and line[1:].strip()]
        assert 1 <= len(added) <= (5 if title == "mmsegmentation" else 3)
        for name in CHECKS[title]:
            code = [line.strip() for line in (ROOT / "tests" / "frameworks" / name).read_text().splitlines()]
            assert [line for line in added if line not in code] == [], name


def test_versions_are_those_that_are_installed():
    pinned = re.search(r"uv pip install .* (lightning==.*)", (ROOT / "Makefile").read_text()).group(1).split()
    lock = (ROOT / "requirements.lock").read_text()
    assert [f"| {one.replace('==', ' ')} |" in PAGE for one in pinned] == [True] * 3
    names = "PyTorch|torchvision|segmentation-models-pytorch|timm|Accelerate"
    found = re.findall(rf"({names}) (\d[\d.]*\d)", PAGE)
    assert len(found) == 5
    for name, version in found:
        name = "torch" if name == "PyTorch" else name.lower()
        assert re.search(rf"^{name}=={version} ", lock, re.MULTILINE), name
