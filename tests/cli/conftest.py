"""The command line, called from a test."""

from __future__ import annotations

import pytest


@pytest.fixture
def nagcore(capsys, tmp_path, monkeypatch):
    """``nagcore("fit", …)`` runs a command in an empty folder: (exit code, stdout, stderr)."""
    pytest.importorskip("typer")
    from nagcore.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NAGCORE_DEBUG", raising=False)

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return end.value.code or 0, out, err

    return run
