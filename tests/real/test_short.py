"""The short form: each real program that is installed already boots, and takes and answers one prompt."""

from __future__ import annotations

import pytest
from programs import PROGRAMS
from stage import Stage, holds, marks

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("program", list(PROGRAMS), indirect=True)
def test_it_boots_and_answers(real: Stage) -> None:
    real.spawn()
    body = "!one\n/two\n@three"
    id_ = real.send(body)
    asked = real.answered(id_)
    assert holds(asked, body, real.program)
    assert marks(real.conversation(), id_) == 1
