"""The page in a real browser, where there is one."""

import re
import subprocess

import pytest
from gallery import chromium
from synthetic_run import write_run

from permix_jax.report.run_page import write_run_report

CHROMIUM = chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
ATTACK = "</script><script>document.title = 'broken out'</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = write_run(tmp_path_factory.mktemp("run"), completion=ATTACK)
    write_run_report(workdir)
    return workdir


def opened(workdir, anchor: str) -> str:
    """The document as it is after its script has run."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--disable-background-networking", f"--user-data-dir={workdir / 'profile'}"]
    url = f"{(workdir / 'report.html').as_uri()}{anchor}"
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tables_sort_and_what_models_wrote_is_text(workdir):
    document = opened(workdir, "")
    assert "<title>permix · PerMix-RLVR</title>" in document
    assert "<img" not in document
    assert document.count("&lt;/script&gt;&lt;script&gt;document.title") == 2 * 20
    assert document.count('<th scope="col" class="number"><button type="button">') > 10
    assert "20 found, 20 shown" in document


def test_a_link_filters_completions(workdir):
    document = opened(workdir, "#completions?kind=problems&persona=%2Bpoet&outcome=kept")
    assert "2 found, 2 shown" in document  # every second of four problems is right
    shown = document[document.index('<div id="pairs">') :]
    assert set(re.findall("<h3>(.*?)</h3>", shown)) == {"poet"}
